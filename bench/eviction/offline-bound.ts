/**
 * What could be reached by someone who knows the future: Belady's rule, by requests.
 *
 * The block whose next use is farthest goes first, the deeper one of equals, and a block that is never asked for again is
 * not stored. A block's next use is never later than that of those after it, so prefixes stay whole. Not a proof of
 * optimality (a hit needs all blocks before it), but nothing that decides online comes near it.
 */
import type { TraceRequest } from "../../src/bench/workloads/mooncake-trace.ts";

interface Kept {
  readonly nextUse: number;
  readonly depth: number;
}

export function offlineHits(requests: readonly TraceRequest[], capacity: number): number {
  const nextUses = nextUsesOf(requests);
  const kept = new Map<number, Kept>();
  const farthest = new FarthestFirst();
  let hits = 0;
  for (const [i, { hashIds }] of requests.entries()) {
    const missing = hashIds.findIndex((block) => !kept.has(block));
    hits += missing === -1 ? hashIds.length : missing;
    for (const [depth, block] of hashIds.entries()) {
      const nextUse = nextUses[i]![depth]!; // one per block
      if (nextUse === Infinity) {
        kept.delete(block);
        continue;
      }
      kept.set(block, { nextUse, depth });
      farthest.push({ block, nextUse, depth });
      while (kept.size > capacity) {
        const out = farthest.pop();
        const now = kept.get(out.block);
        if (now?.nextUse === out.nextUse && now.depth === out.depth) kept.delete(out.block);
      }
    }
  }
  return hits;
}

/** For each block of each request, the next request that has it. */
function nextUsesOf(requests: readonly TraceRequest[]): number[][] {
  const next = new Map<number, number>();
  const uses: number[][] = requests.map(() => []);
  for (let i = requests.length - 1; i >= 0; i -= 1) {
    const { hashIds } = requests[i]!; // within bounds
    uses[i] = hashIds.map((block) => next.get(block) ?? Infinity);
    for (const block of hashIds) next.set(block, i);
  }
  return uses;
}

interface Entry extends Kept {
  readonly block: number;
}

/** A binary heap with the farthest next use first, the deeper of equals. */
class FarthestFirst {
  readonly #entries: Entry[] = [];

  push(entry: Entry): void {
    const entries = this.#entries;
    let place = entries.length;
    while (place > 0) {
      const above = (place - 1) >>> 1;
      if (!isBefore(entry, entries[above]!)) break;
      entries[place] = entries[above]!;
      place = above;
    }
    entries[place] = entry;
  }

  pop(): Entry {
    const entries = this.#entries;
    const top = entries[0]!; // asked only when something is kept
    const last = entries.pop()!;
    if (entries.length === 0) return top;
    let place = 0;
    for (;;) {
      let below = 2 * place + 1;
      if (below >= entries.length) break;
      if (below + 1 < entries.length && isBefore(entries[below + 1]!, entries[below]!)) below += 1;
      if (!isBefore(entries[below]!, last)) break;
      entries[place] = entries[below]!;
      place = below;
    }
    entries[place] = last;
    return top;
  }
}

function isBefore(a: Kept, b: Kept): boolean {
  return a.nextUse > b.nextUse || (a.nextUse === b.nextUse && a.depth > b.depth);
}
