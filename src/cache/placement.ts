/**
 * Placement: what moves between the pool and the tiers below it.
 *
 *     commit ──► queue (pinned, bounded in bytes) ──► tier.write        write-behind: nobody waits for it
 *        └─────► waiting (not pinned, may be evicted first) ──► queue   when the queue is full or a tier is away
 *
 *     load ──► tier.read into fresh slots ──► in the pool               promotion: one read, however many wait for it
 *
 * A tier that fails is left alone for a while and tried again; the cache goes on without it. Nothing here throws.
 */
import { codeOf, describe } from "../errors.ts";
import type { Log } from "../log.ts";
import type { RecordId, Tier } from "../tier.ts";
import type { ChunkStore } from "./chunk-store.ts";
import type { Counters } from "./counters.ts";
import type { SlotPool } from "./slot-pool.ts";
import type { StoredChunk } from "./stored-chunk.ts";

const pageBytes = 4096;

export interface PlacementOptions {
  readonly store: ChunkStore;
  /** From fast to slow. */
  readonly tiers: readonly Tier[];
  readonly counters: Counters;
  readonly log: Log;
  /** Bytes of slots that may be pinned for writing at a time, now. */
  readonly queueBytes: () => number;
  /** How long a tier that failed is left alone. */
  readonly retryMs: number;
}

export class Placement {
  readonly #options: PlacementOptions;
  readonly #queued = new Set<StoredChunk>();
  readonly #waiting = new Set<StoredChunk>();
  readonly #outages = new Map<Tier, NodeJS.Timeout>();
  readonly #promotions = new Set<Promise<boolean>>();
  readonly #stop = new AbortController();
  #queuedBytes = 0;
  readonly #whenIdle: (() => void)[] = [];

  constructor(options: PlacementOptions) {
    this.#options = options;
  }

  /** A chunk became visible: it is written to every tier that lacks it, when its turn comes. */
  saved(chunk: StoredChunk): void {
    if (this.#stop.signal.aborted || this.#options.tiers.length === 0) return;
    this.#waiting.add(chunk);
    this.#fillQueue();
  }

  /**
   * Brings a chunk into the pool.
   *
   * @returns false when that failed: it is gone, corrupt, its tier is away, or the pool is full of chunks in use.
   */
  promote(chunk: StoredChunk, slotBytes: number): Promise<boolean> {
    if (chunk.isInMemory) return Promise.resolve(true);
    if (this.#stop.signal.aborted) return Promise.resolve(false);
    if (chunk.promotion === undefined) {
      chunk.pins += 1;
      this.#options.store.settle(chunk);
      const work = Promise.resolve().then(() => this.#promote(chunk, slotBytes));
      chunk.promotion = work;
      this.#promotions.add(work);
      void work.finally(() => this.#promotions.delete(work));
    }
    return chunk.promotion;
  }

  /** Resolves when every chunk saved before is written or given up. */
  async drained(): Promise<void> {
    for (;;) {
      this.#fillQueue();
      if (this.#queued.size === 0) return;
      await new Promise<void>((resolve) => this.#whenIdle.push(resolve));
    }
  }

  /** Ends all work: what has not been written is not. */
  async close(): Promise<void> {
    this.#stop.abort();
    this.#waiting.clear();
    for (const timer of this.#outages.values()) clearTimeout(timer);
    this.#outages.clear();
    await this.drained();
    await Promise.all(this.#promotions);
  }

  stats(): { chunks: number; bytes: number; waitingChunks: number } {
    return { chunks: this.#queued.size, bytes: this.#queuedBytes, waitingChunks: this.#waiting.size };
  }

  #fillQueue(): void {
    for (const chunk of this.#waiting) {
      if (!chunk.isInMemory) {
        this.#waiting.delete(chunk);
        continue;
      }
      if (this.#queuedBytes > 0 && this.#queuedBytes + chunk.bytesInPool > this.#options.queueBytes()) return;
      if (this.#tiersWithout(chunk).length === 0 && this.#outages.size > 0) return;
      this.#waiting.delete(chunk);
      this.#enqueue(chunk);
    }
  }

  #enqueue(chunk: StoredChunk): void {
    const bytes = chunk.bytesInPool;
    this.#queued.add(chunk);
    this.#queuedBytes += bytes;
    chunk.pins += 1;
    this.#options.store.settle(chunk);
    void this.#write(chunk).finally(() => {
      this.#queued.delete(chunk);
      this.#queuedBytes -= bytes;
      chunk.pins -= 1;
      this.#options.store.settle(chunk);
      this.#fillQueue();
      if (this.#queued.size > 0) return;
      for (const resolve of this.#whenIdle.splice(0)) resolve();
    });
  }

  /** Tiers that lack the chunk and can be asked now. */
  #tiersWithout(chunk: StoredChunk): Tier[] {
    return this.#options.tiers.filter((tier) => !chunk.records.has(tier) && !this.#outages.has(tier));
  }

  async #write(chunk: StoredChunk): Promise<void> {
    const { store, counters } = this.#options;
    for (const tier of this.#tiersWithout(chunk)) {
      if (this.#stop.signal.aborted) return;
      try {
        const payloads = chunk.slots.map((slot, rank) => paddedView(store.pool, slot!, chunk.bytes[rank]!)); // pinned in memory
        const record = {
          space: chunk.index.space,
          root: chunk.index.key,
          key: chunk.key,
          parent: chunk.parentKey,
          firstToken: chunk.node.firstToken,
          tokens: chunk.node.tokens,
          payloadBytes: chunk.bytes,
        };
        const id = await tier.write(record, payloads, this.#stop.signal);
        if (id === "rejected") {
          counters.refusedWrites += 1;
          continue;
        }
        if (chunk.records.has(tier)) {
          tier.drop(id); // what the tier kept from before came back meanwhile (returning-records.ts)
          continue;
        }
        store.addRecord(chunk, tier, id);
        this.#seal(chunk, tier, id);
        store.supersede(chunk);
      } catch (error) {
        if (this.#stop.signal.aborted) return;
        this.#outage(tier, error);
        this.#waiting.add(chunk);
      }
    }
  }

  async #promote(chunk: StoredChunk, slotBytes: number): Promise<boolean> {
    const { store } = this.#options;
    let promoted = false;
    try {
      for (const rank of chunk.slots.keys()) {
        if (chunk.bytes[rank]! > slotBytes) return false; // written by a guest with larger slots
        if (store.giveSlot(chunk, rank, slotBytes) === "full") return false;
      }
      promoted = await this.#readFromAny(chunk);
      return promoted;
    } finally {
      chunk.promotion = undefined;
      if (!promoted) store.takeSlots(chunk);
      // Its record may have come or gone meanwhile: what counts is where the bytes are now.
      chunk.visible = promoted || chunk.records.size > 0;
      chunk.pins -= 1;
      store.settle(chunk);
      store.removeIfEmpty(chunk);
    }
  }

  async #readFromAny(chunk: StoredChunk): Promise<boolean> {
    const { store, tiers, counters } = this.#options;
    for (const tier of tiers) {
      const id = chunk.records.get(tier);
      if (id === undefined) continue;
      try {
        const into = chunk.slots.map((slot, rank) => paddedView(store.pool, slot!, chunk.bytes[rank]!)); // given above, pinned
        if ((await tier.read(id, chunk.key, into, this.#stop.signal)) === "read") {
          store.keep(chunk);
          this.#seal(chunk, tier, id);
          return true;
        }
        store.forgetRecord(tier, id);
      } catch (error) {
        if (codeOf(error) === "RECORD_CORRUPT") {
          counters.corruptRecords += 1;
          store.forgetRecord(tier, id);
          this.#options.log.warn(`${tier.name} tier: ${describe(error)}`);
        } else if (!this.#stop.signal.aborted) this.#outage(tier, error);
      }
    }
    return false;
  }

  /** The tier has computed the payloads' checksums: the pool notes them, for whoever adopts it after a crash. */
  #seal(chunk: StoredChunk, tier: Tier, id: RecordId): void {
    const checksums = tier.checksums(id);
    if (checksums !== undefined) this.#options.store.seal(chunk, checksums);
  }

  /** One line per outage; after a while waiting chunks are written again. */
  #outage(tier: Tier, error: unknown): void {
    this.#options.counters.tierFailures += 1;
    if (this.#outages.has(tier)) return;
    this.#options.log.warn(`${tier.name} tier: ${describe(error)}; going on without it`);
    const timer = setTimeout(() => {
      this.#outages.delete(tier);
      this.#fillQueue();
    }, this.#options.retryMs);
    timer.unref();
    this.#outages.set(tier, timer);
  }
}

/** A payload with what pads it to whole pages: slots are whole pages, so it is always there, and the tiers' to use. */
function paddedView(pool: SlotPool, slot: number, bytes: number): Uint8Array {
  return pool.view(slot, Math.ceil(bytes / pageBytes) * pageBytes);
}
