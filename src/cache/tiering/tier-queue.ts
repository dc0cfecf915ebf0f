/**
 * What is written to one tier, and what waits to be.
 *
 *     saved ──► waiting (not held, may be evicted first) ──► queue (held, bounded in bytes) ──► tier.write
 *                  ▲                                           │
 *                  └────────────── the tier failed ────────────┘
 *
 * A chunk is held for this tier only while it is in this queue. So a tier that is slow or away costs the pool no more than its
 * own bound, and other tiers nothing. Nothing here throws.
 */
import { ownedLog, type RecordId, type Tier } from "../../tier.ts";
import type { ChunkId } from "../index/chunk-id.ts";
import type { ChunkStore } from "../pool/chunk-store.ts";
import { withPatience } from "./patience.ts";
import { payloadsOf, sealPayloads } from "./pool-payloads.ts";
import type { TierCounts } from "./tier-counters.ts";
import type { TierStates } from "./tier-states.ts";

export interface TierQueueOptions {
  readonly tier: Tier;
  readonly store: ChunkStore;
  readonly tierCounts: TierCounts;
  readonly tierStates: TierStates;
  readonly now: () => number;
  /** Bytes of slots that may be held for this tier at a time, now. One chunk may be, however large it is. */
  readonly boundBytes: () => number;
}

export interface QueueStats {
  /** Chunks that are held until they are written. */
  readonly chunks: number;
  /** Bytes of their slots. */
  readonly bytes: number;
  /** Chunks that wait for room in the queue, or for the tier, and may be evicted meanwhile. */
  readonly waitingChunks: number;
}

/** Waiting chunks at which those that have left memory are swept out. */
const minimumSweep = 1024;

export class TierQueue {
  readonly #options: TierQueueOptions;
  readonly #waiting = new Set<ChunkId>();
  readonly #queued = new Set<ChunkId>();
  readonly #stop = new AbortController();
  readonly #whenIdle: (() => void)[] = [];
  #heldBytes = 0;
  #sweepAt = minimumSweep;

  constructor(options: TierQueueOptions) {
    this.#options = options;
    options.tierStates.onBack(options.tier, () => this.#fill());
  }

  get tier(): Tier {
    return this.#options.tier;
  }

  /** A chunk became visible: it is written when its turn comes, unless the tier has it or it has left memory by then. */
  saved(chunk: ChunkId): void {
    if (this.#stop.signal.aborted) return;
    this.#waiting.add(chunk);
    if (this.#waiting.size >= this.#sweepAt) this.#sweep();
    this.#fill();
  }

  /** Resolves when every chunk saved before is written or given up. What waits for a tier that is away is given up. */
  async drained(): Promise<void> {
    for (;;) {
      this.#fill();
      if (this.#queued.size === 0) return;
      await new Promise<void>((resolve) => this.#whenIdle.push(resolve));
    }
  }

  /** Ends all work: what has not been written is not. */
  async close(): Promise<void> {
    this.#stop.abort();
    this.#waiting.clear();
    await this.drained();
  }

  stats(): QueueStats {
    return { chunks: this.#queued.size, bytes: this.#heldBytes, waitingChunks: this.#waiting.size };
  }

  #fill(): void {
    const { store, tier, tierStates, boundBytes } = this.#options;
    if (tierStates.isAway(tier)) return;
    for (const chunk of this.#waiting) {
      if (this.#isToBeWritten(chunk)) {
        const bytes = store.chunks.bytesInPool(chunk);
        if (this.#heldBytes > 0 && this.#heldBytes + bytes > boundBytes()) return;
        this.#enqueue(chunk, bytes);
      }
      this.#waiting.delete(chunk);
    }
  }

  #isToBeWritten(chunk: ChunkId): boolean {
    const { store, tier } = this.#options;
    if (!store.chunks.table.has(chunk) || !store.chunks.isWholeInMemory(chunk)) return false;
    if (this.#queued.has(chunk)) return false;
    return store.records.of(chunk, tier) === undefined || store.records.isLacking(chunk, tier);
  }

  #sweep(): void {
    for (const chunk of this.#waiting) if (!this.#isToBeWritten(chunk)) this.#waiting.delete(chunk);
    this.#sweepAt = Math.max(minimumSweep, 2 * this.#waiting.size);
  }

  #enqueue(chunk: ChunkId, bytes: number): void {
    const { store } = this.#options;
    this.#queued.add(chunk);
    this.#heldBytes += bytes;
    store.hold(chunk);
    void this.#write(chunk).then((outcome) => {
      this.#queued.delete(chunk);
      this.#heldBytes -= bytes;
      if (outcome === "again" && !this.#stop.signal.aborted) this.#waiting.add(chunk);
      store.letGo(chunk);
      this.#fill();
      if (this.#queued.size > 0) return;
      for (const resolve of this.#whenIdle.splice(0)) resolve();
    });
  }

  async #write(chunk: ChunkId): Promise<"done" | "again"> {
    const { store, tier, tierCounts, tierStates, now } = this.#options;
    const { chunks } = store;
    const payloadBytes = chunks.payloadBytes(chunk);
    const counters = tierCounts.of(tier);
    const began = now();
    try {
      const record = { ...chunks.identityOf(chunk), payloadBytes };
      const views = payloadsOf(store, chunk);
      const write = (signal: AbortSignal) => tier.write(record, views, signal);
      const id = await withPatience(tier, this.#stop.signal, write);
      if (id === "rejected") counters.refusedWrites += 1;
      else {
        counters.writtenChunks += 1;
        counters.writtenBytes += payloadBytes.reduce((sum, bytes) => sum + bytes, 0);
        if (payloadBytes.some((bytes, part) => bytes !== chunks.bytes(chunk, part))) {
          ownedLog(tier)?.drop(id); // a snapshot came meanwhile
          return "again";
        }
        this.#written(chunk, id);
      }
      return "done";
    } catch (error) {
      if (!this.#stop.signal.aborted) tierStates.failed(tier, error);
      return "again";
    } finally {
      counters.writeSeconds += (now() - began) / 1000;
    }
  }

  #written(chunk: ChunkId, id: RecordId): void {
    const { store, tier } = this.#options;
    const { records } = store;
    if (records.of(chunk, tier) === undefined) records.add(chunk, tier, id);
    else if (records.isLacking(chunk, tier)) records.replace(chunk, tier, id);
    else {
      ownedLog(tier)?.drop(id); // what the tier kept from before came back meanwhile (recovery/)
      return;
    }
    sealPayloads(store, chunk, { tier, id });
    store.supersede(chunk);
  }
}
