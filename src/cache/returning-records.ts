/**
 * Puts what the tiers kept back into the index, in the background, while the cache serves.
 *
 *     tier ──► batch of one space ──► parked until a guest opens the space ──► read, a slice at a time ──► trees
 *                                                                                   └ parent not there yet: waits for it
 *
 * Batches name their space only by its digest and are not read before a guest describes that space. A record whose key
 * does not follow from its tokens, or whose parent is nowhere when all have come, can never be found again and is dropped.
 */
import type { RecordBatch, StoredRecord, Tier } from "../tier.ts";
import { chunkKey, type ChunkKey, type RootKey } from "./chunk.ts";
import type { ChunkStore } from "./chunk-store.ts";
import type { Counters } from "./counters.ts";
import type { SpaceId } from "./space.ts";
import type { Space } from "./spaces.ts";
import type { ChunkNode, RootIndex } from "./stored-chunk.ts";

export interface ReturningRecordsOptions {
  readonly store: ChunkStore;
  readonly counters: Counters;
  readonly makeRoot: (space: Space, key: RootKey) => RootIndex;
}

interface Arrival {
  readonly tier: Tier;
  readonly batch: RecordBatch;
}

interface Orphan {
  readonly tier: Tier;
  readonly record: StoredRecord;
}

/** What is known of one space's records until all have come. */
class Return {
  readonly batches: Arrival[] = [];
  readonly nodes = new Map<ChunkKey | RootKey, ChunkNode>();
  /** By the parent they wait for. */
  readonly orphans = new Map<ChunkKey | RootKey, Orphan[]>();
  space: Space | undefined;
  isRunning = false;
}

/** Others get their turn after so long. */
const sliceMs = 4;

export class ReturningRecords {
  readonly #options: ReturningRecordsOptions;
  readonly #returns = new Map<SpaceId, Return>();
  readonly #whenSettled: (() => void)[] = [];
  #hasEnded = false;
  #stopped = false;

  constructor(options: ReturningRecordsOptions) {
    this.#options = options;
  }

  add(tier: Tier, batch: RecordBatch): void {
    const known = this.#of(batch.space);
    known.batches.push({ tier, batch });
    this.#run(known);
  }

  /** A guest described the space. */
  open(space: Space): void {
    if (this.#hasEnded && !this.#returns.has(space.id)) return;
    const known = this.#of(space.id);
    known.space ??= space;
    this.#run(known);
  }

  /** No more batches come. */
  end(): void {
    this.#hasEnded = true;
    for (const known of this.#returns.values()) this.#run(known);
    this.#settle();
  }

  /** What has not been read is not any more. */
  stop(): void {
    this.#stopped = true;
    this.#settle();
  }

  /** Resolves when all batches have come and those of open spaces are in the index. */
  async settled(): Promise<void> {
    if (this.#isSettled()) return;
    await new Promise<void>((resolve) => this.#whenSettled.push(resolve));
  }

  #of(id: SpaceId): Return {
    let known = this.#returns.get(id);
    if (known === undefined) this.#returns.set(id, (known = new Return()));
    return known;
  }

  #isSettled(): boolean {
    if (this.#stopped) return true;
    return this.#hasEnded && [...this.#returns.values()].every(({ space }) => space === undefined);
  }

  #settle(): void {
    if (!this.#isSettled()) return;
    for (const resolve of this.#whenSettled.splice(0)) resolve();
  }

  #run(known: Return): void {
    const { space } = known;
    if (space === undefined || known.isRunning) return;
    known.isRunning = true;
    void this.#place(known, space).finally(() => {
      known.isRunning = false;
      if (known.batches.length > 0 && !this.#stopped) this.#run(known);
      else if (this.#hasEnded) this.#complete(known, space);
    });
  }

  async #place(known: Return, space: Space): Promise<void> {
    let sliceEnd = performance.now() + sliceMs;
    for (let arrival = known.batches.shift(); arrival !== undefined; arrival = known.batches.shift()) {
      const { tier, batch } = arrival;
      for await (const record of batch.records()) {
        if (this.#stopped) return;
        this.#placeWithOrphans(known, space, { tier, record });
        if (performance.now() < sliceEnd) continue;
        await new Promise((resolve) => setImmediate(resolve));
        sliceEnd = performance.now() + sliceMs;
      }
    }
  }

  /** All have come: who still waits for a parent waits in vain. */
  #complete(known: Return, space: Space): void {
    this.#returns.delete(space.id);
    if (!this.#stopped)
      for (const orphans of known.orphans.values()) for (const { tier, record } of orphans) tier.drop(record.id);
    this.#settle();
  }

  #placeWithOrphans(known: Return, space: Space, first: Orphan): void {
    const ready = [first];
    for (let next = ready.pop(); next !== undefined; next = ready.pop()) {
      const { tier, record } = next;
      const outcome = this.#placeOne(known, space, next);
      if (outcome === "waits") {
        const others = known.orphans.get(record.parent) ?? [];
        known.orphans.set(record.parent, others);
        others.push(next);
        continue;
      }
      if (outcome === "dropped") tier.drop(record.id);
      const children = known.orphans.get(record.key) ?? [];
      known.orphans.delete(record.key);
      ready.push(...children);
    }
  }

  #placeOne(known: Return, space: Space, { tier, record }: Orphan): "placed" | "dropped" | "waits" {
    const { store, counters } = this.#options;
    const { tensorParallel, chunkTokens } = space.description;
    const { tokens, payloadBytes } = record;
    const fits = tokens.length > 0 && tokens.length <= chunkTokens && payloadBytes.length === tensorParallel;
    if (!fits || chunkKey(record.parent, tokens) !== record.key) {
      counters.corruptRecords += 1;
      return "dropped";
    }
    const index = this.#options.makeRoot(space, record.root);
    const parent = record.firstToken === 0 ? index.tree.top : known.nodes.get(record.parent);
    if (parent === undefined) return "waits";
    const follows =
      parent === index.tree.top
        ? record.parent === record.root
        : parent.payload?.index === index &&
          parent.tokens.length === chunkTokens &&
          parent.firstToken + chunkTokens === record.firstToken;
    if (!follows) return "dropped";
    const chunk = store.chunkAt(index, index.tree.insert(parent, tokens));
    known.nodes.set(record.key, chunk.node);
    if (chunk.records.has(tier)) return "dropped"; // saved anew meanwhile, or a rewrite that a crash cut short
    if (!chunk.visible) {
      if (chunk.hasSlots) return "dropped"; // a guest is writing it
      for (const [rank, bytes] of payloadBytes.entries()) {
        chunk.bytes[rank] = bytes;
        chunk.written[rank] = true;
      }
      chunk.visible = true;
      // Adopted in the pool or saved anew, and not as it was: what is in memory counts.
    } else if (chunk.bytes.some((bytes, rank) => bytes !== payloadBytes[rank])) return "dropped";
    store.addRecord(chunk, tier, record.id);
    store.supersede(chunk);
    return "placed";
  }
}
