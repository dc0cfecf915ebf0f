/**
 * What a session answers when a text is looked up: how much of it is stored, in which tiers, and how much is worth loading.
 *
 *     text     │ worth loading │ left to be computed │ not stored │
 *     found     ──────────── hitTokens ──────────────►
 *               ─ worthTokens ─►
 *
 * Of what is left something may be read in the background (load-or-compute.ts).
 */
import type { TierName } from "../../tier.ts";
import type { ChunkId } from "../index/chunk-id.ts";
import type { Wanted } from "../index/stored-chunk.ts";
import type { Tokens } from "../../identity/tokens.ts";
import { addTokens } from "../counters.ts";
import type { ChunkPath } from "../index/radix.ts";
import type { Weighing } from "../tiering/load-or-compute.ts";
import type { SessionContext } from "./session-context.ts";
import { lookupOf, maxSegments, type Lookup, type Segment } from "../../session.ts";

/**
 * Of a load, read from below ahead of the chunk that the guest waits for: what keeps eight reads of a drive busy, whatever
 * the size of a chunk. Less where that would be much of the pool, which other loads want too.
 */
const readAheadBytes = 16 * 1024 * 1024;
const readAheadShare = 1 / 16;
/** What one text that is brought into memory in the background may take of the pool. */
const broughtShare = 1 / 4;

export class Lookups {
  readonly #context: SessionContext;
  readonly #chunkTokens: number;
  readonly #slotBytes: readonly number[];
  #computeMsPerToken: number | undefined;

  constructor(
    context: SessionContext,
    { chunkTokens, slotBytes }: { chunkTokens: number; slotBytes: readonly number[] },
  ) {
    this.#context = context;
    this.#chunkTokens = chunkTokens;
    this.#slotBytes = slotBytes;
  }

  /** What a token costs the guest, as it last said; undefined: it never did. */
  get computeMsPerToken(): number | undefined {
    return this.#computeMsPerToken;
  }

  /** What a match says to whoever looks it up: it ends at the first chunk whose bytes are nowhere. */
  found(path: ChunkPath, computeMsPerToken: number | undefined): Lookup {
    const { store, loadOrCompute } = this.#context;
    const { chunks } = store;
    const segments: Segment[] = [];
    if (computeMsPerToken !== undefined) this.#computeMsPerToken = computeMsPerToken;
    const weighing =
      computeMsPerToken === undefined ? undefined : loadOrCompute.weigh(computeMsPerToken, this.aheadBytes());
    let hitTokens = 0;
    let run: TierName | undefined;
    let runFrom = 0;
    for (let i = 0; i < path.length; i += 1) {
      const tier = chunks.tierOf(path.at(i));
      if (tier === undefined) break;
      const matchedTokens = i === path.length - 1 ? path.matchedInLast : this.#chunkTokens;
      if (tier !== run) {
        if (run !== undefined) segments.push(exact(runFrom, hitTokens, run));
        if (segments.length === maxSegments) return lookupOf(segments, weighing?.worthTokens ?? hitTokens);
        run = tier;
        runFrom = hitTokens;
      }
      hitTokens += matchedTokens;
      weighing?.add(matchedTokens, tier, tier === "memory" ? 0 : chunks.bytesToLoad(path.at(i), "rows"));
      if (weighing !== undefined) this.#weighEnd(weighing, path.at(i));
    }
    if (run !== undefined) segments.push(exact(runFrom, hitTokens, run));
    return lookupOf(segments, weighing?.worthTokens ?? hitTokens);
  }

  /** Counts a lookup that a guest has asked for. */
  count(tokens: Tokens, { segments }: Lookup): void {
    const { counters } = this.#context;
    counters.lookups += 1;
    counters.lookedUpTokens += tokens.length;
    for (const { tier, from, to } of segments) addTokens(counters.hitTokens, tier, to - from);
  }

  /** Counts what is found and left to be computed, and reads of it in the background what {@link SessionContext.loadOrCompute} says. */
  leave(path: ChunkPath, { hitTokens, worthTokens }: Lookup): void {
    if (worthTokens === hitTokens) return;
    const { store, counters, loadOrCompute, promotion } = this.#context;
    const { chunks } = store;
    const first = worthTokens / this.#chunkTokens;
    const end = Math.ceil(hitTokens / this.#chunkTokens);
    const wanted = (i: number) => (i === end - 1 ? "all" : "rows"); // of the last its snapshots too
    let below = first;
    while (below < end - 1 && chunks.isReady(path.at(below), wanted(below))) below += 1;
    const slow = this.#slowTierOf(path.at(below), wanted(below));
    const isBrought = loadOrCompute.takeRecomputed(path.at(below));
    let probeBytes = !isBrought && loadOrCompute.takeProbe(slow) ? this.aheadBytes() : 0;
    let bringBytes = isBrought ? store.pool.stats().capacityBytes * broughtShare : 0;
    const brought: ChunkId[] = [];
    for (let i = first; i < end; i += 1) {
      const chunk = path.at(i);
      const tier = chunks.tierOf(chunk)!; // it is found
      addTokens(counters.skippedTokens, tier, Math.min(this.#chunkTokens, hitTokens - i * this.#chunkTokens));
      if (chunks.isReady(chunk, wanted(i)) || (probeBytes <= 0 && bringBytes <= 0)) continue;
      const bytes = chunks.bytesToLoad(chunk, wanted(i));
      if (bringBytes > 0) brought.push(chunk);
      else if (this.#slowTierOf(chunk, wanted(i)) === slow) {
        counters.probedChunks += 1;
        void promotion.promote(chunk, this.#slotBytes, wanted(i));
      }
      bringBytes -= bytes;
      probeBytes -= bytes;
    }
    if (brought.length > 0) promotion.bring(brought, this.#slotBytes);
  }

  /** Where what is not in memory of a chunk would be read from: its rows, or its snapshots alone. */
  #slowTierOf(chunk: ChunkId, wanted: Wanted): TierName {
    const { chunks } = this.#context.store;
    const tier = chunks.tierOf(chunk)!; // it is found
    return tier === "memory" && wanted === "all" ? chunks.snapshotTierOf(chunk)! : tier; // a hit ends where there are some
  }

  /** A load may end here, where the snapshots are that it needs then. */
  #weighEnd(weighing: Weighing, chunk: ChunkId): void {
    const { chunks } = this.#context.store;
    const tier = chunks.snapshotTierOf(chunk);
    if (tier === undefined) return;
    const bytes = tier === "memory" ? 0 : chunks.bytesToLoad(chunk, "all") - chunks.bytesToLoad(chunk, "rows");
    weighing.mayEnd(tier, bytes);
  }

  /** What a load reads at a time, ahead of the chunk that the guest waits for. */
  aheadBytes(): number {
    return Math.min(readAheadBytes, this.#context.store.pool.stats().capacityBytes * readAheadShare);
  }
}

/** A run of a stored prefix. */
function exact(from: number, to: number, tier: TierName): Segment {
  return { kind: "exact", source: from, from, to, tier };
}
