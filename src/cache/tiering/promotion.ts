/**
 * Promotion: brings chunks from the tiers below into the pool, their snapshots only where a text ends.
 *
 *     load ──► tier.read into fresh slots ──► in the pool               one read, however many wait for it
 *
 * Tiers are tried from fast to slow, and timed (read-speed.ts); a shared one that is away is not. Nothing here throws.
 */
import { codeOf, describe } from "../../errors.ts";
import type { Log } from "../../log.ts";
import { ownedLog, type RecordId, type Tier } from "../../tier.ts";
import type { ChunkId } from "../index/chunk-id.ts";
import type { Wanted } from "../index/stored-chunk.ts";
import type { ChunkStore } from "../pool/chunk-store.ts";
import type { Counters } from "../counters.ts";
import type { LoadOrCompute } from "./load-or-compute.ts";
import { withPatience } from "./patience.ts";
import { payloadsToRead, sealPayloads } from "./pool-payloads.ts";
import type { TierCounts } from "./tier-counters.ts";
import type { TierStates } from "./tier-states.ts";

export interface PromotionOptions {
  readonly store: ChunkStore;
  /** From fast to slow. */
  readonly tiers: readonly Tier[];
  readonly counters: Counters;
  /** Learns from every read how fast the tiers are. */
  readonly loadOrCompute: LoadOrCompute;
  readonly tierCounts: TierCounts;
  readonly tierStates: TierStates;
  readonly now: () => number;
  readonly log: Log;
}

interface Reading {
  readonly what: Wanted;
  readonly done: Promise<boolean>;
}

export class Promotion {
  readonly #options: PromotionOptions;
  /** Reads from below that are under way, each shared by all who wait for the chunk. */
  readonly #underWay = new Map<ChunkId, Reading>();
  readonly #stop = new AbortController();
  /** Ends the reads of one tier. */
  readonly #stops = new Map<Tier, AbortController>();
  #bringing: Promise<void> | undefined;

  constructor(options: PromotionOptions) {
    this.#options = options;
    options.tierStates.onSilent((tier) => this.#stopReading(tier));
  }

  /**
   * Brings a chunk into the pool.
   *
   * @param slotBytes by group
   * @returns false when that failed: it is gone, corrupt, its tier is away, or the pool is full of chunks in use.
   */
  promote(chunk: ChunkId, slotBytes: readonly number[], what: Wanted): Promise<boolean> {
    const { store } = this.#options;
    if (store.chunks.isReady(chunk, what)) return Promise.resolve(true);
    if (this.#stop.signal.aborted) return Promise.resolve(false);
    const underWay = this.#underWay.get(chunk);
    if (underWay !== undefined) {
      if (underWay.what === what || what === "rows") return underWay.done;
      // It may have gone again before this hears of it, when nobody leases it any more.
      return underWay.done.then(
        (isRead) => isRead && store.chunks.table.has(chunk) && this.promote(chunk, slotBytes, what),
      );
    }
    store.beginPromotion(chunk, what);
    const done = Promise.resolve().then(() => this.#promote(chunk, slotBytes, what));
    this.#underWay.set(chunk, { what, done });
    return done;
  }

  /** Brings the chunks of a text into the pool one after the other, while nobody waits for them; one text at a time. */
  bring(chunks: readonly ChunkId[], slotBytes: readonly number[]): void {
    this.#bringing ??= this.#bring(chunks, slotBytes).finally(() => (this.#bringing = undefined));
  }

  /** Ends all work: reads that are under way end, and what they read is not there. */
  async close(): Promise<void> {
    this.#stop.abort();
    for (const tier of this.#options.tiers) this.#stopReading(tier);
    await Promise.all([...Array.from(this.#underWay.values(), ({ done }) => done), this.#bringing]);
  }

  async #promote(chunk: ChunkId, slotBytes: readonly number[], what: Wanted): Promise<boolean> {
    const { store } = this.#options;
    const { chunks } = store;
    const parts: number[] = [];
    let promoted = false;
    try {
      for (const [part, bytes] of chunks.payloadBytes(chunk).entries()) {
        const isWanted = what === "all" || !chunks.isSnapshot(chunk, part);
        if (!isWanted || bytes === 0 || chunks.slot(chunk, part) !== undefined) continue;
        const roomBytes = slotBytes[part % slotBytes.length]!; // one per group
        if (bytes > roomBytes) return false; // written by a guest with larger slots
        if (store.giveSlot(chunk, part, roomBytes) === "full") return false;
        parts.push(part);
      }
      promoted = await this.#readFromAny(chunk, parts);
      return promoted;
    } finally {
      this.#underWay.delete(chunk);
      store.endPromotion(chunk, parts, promoted ? "read" : "failed");
    }
  }

  async #bring(wanted: readonly ChunkId[], slotBytes: readonly number[]): Promise<void> {
    const { store, counters } = this.#options;
    for (const [i, chunk] of wanted.entries()) {
      if (!store.chunks.table.has(chunk) || !store.chunks.hasRecords(chunk)) return;
      if (!(await this.promote(chunk, slotBytes, i === wanted.length - 1 ? "all" : "rows"))) return;
      counters.broughtChunks += 1;
    }
  }

  async #readFromAny(chunk: ChunkId, parts: readonly number[]): Promise<boolean> {
    const { store, tiers, counters, tierStates } = this.#options;
    const needsSnapshots = parts.some((part) => store.chunks.isSnapshot(chunk, part));
    for (const tier of tiers) {
      if (needsSnapshots && store.records.isLacking(chunk, tier)) continue;
      if (ownedLog(tier) === undefined && tierStates.isAway(tier)) continue;
      let id = store.records.of(chunk, tier);
      try {
        while (id !== undefined) {
          if (await this.#timedRead(tier, id, chunk, parts)) {
            store.keep(chunk, parts);
            sealPayloads(store, chunk, { tier, id });
            return true;
          }
          store.records.forget(tier, id);
          id = store.records.of(chunk, tier); // it may have been moved while it was read
        }
      } catch (error) {
        if (codeOf(error) === "RECORD_CORRUPT") {
          counters.corruptRecords += 1;
          store.records.forget(tier, id!); // one was read
          this.#options.log.warn(`${tier.name} tier: ${describe(error)}`);
        } else if (!this.#stop.signal.aborted) tierStates.failed(tier, error);
      }
    }
    return false;
  }

  #stopOf(tier: Tier): AbortSignal {
    if (this.#stop.signal.aborted) return this.#stop.signal;
    let stop = this.#stops.get(tier);
    if (stop === undefined) this.#stops.set(tier, (stop = new AbortController()));
    return stop.signal;
  }

  #stopReading(tier: Tier): void {
    this.#stops.get(tier)?.abort();
    this.#stops.delete(tier);
  }

  /** Reads parts of a record into the chunk's slots. @returns false when the tier has it no more */
  async #timedRead(tier: Tier, id: RecordId, chunk: ChunkId, parts: readonly number[]): Promise<boolean> {
    const { store, loadOrCompute, tierCounts, now } = this.#options;
    const views = payloadsToRead(store, chunk, parts);
    const ended = loadOrCompute.speed(tier.name).begin(views.reduce((sum, view) => sum + (view?.length ?? 0), 0));
    let outcome: "read" | "failed" = "failed";
    const counters = tierCounts.of(tier);
    const began = now();
    try {
      const key = store.chunks.key(chunk);
      const read = (signal: AbortSignal) => tier.read(id, key, views, signal);
      if ((await withPatience(tier, this.#stopOf(tier), read)) === "read") outcome = "read";
    } finally {
      ended(outcome);
      counters.readSeconds += (now() - began) / 1000;
    }
    if (outcome === "failed") return false;
    const payloadBytes = store.chunks.payloadBytes(chunk);
    counters.readChunks += 1;
    counters.readBytes += parts.reduce((sum, part) => sum + payloadBytes[part]!, 0); // parts that it has
    return true;
  }
}
