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
import type { ChunkId } from "./chunk-id.ts";
import type { ChunkStore } from "./chunk-store.ts";
import { flag } from "./chunk-table.ts";
import type { Counters } from "./counters.ts";
import type { LoadOrCompute } from "./load-or-compute.ts";
import type { SlotPool } from "./slot-pool.ts";

const pageBytes = 4096;

export interface PlacementOptions {
  readonly store: ChunkStore;
  /** From fast to slow. */
  readonly tiers: readonly Tier[];
  readonly counters: Counters;
  /** Learns from every read how fast the tiers are. */
  readonly loadOrCompute: LoadOrCompute;
  readonly log: Log;
  /** Bytes of slots that may be pinned for writing at a time, now. */
  readonly queueBytes: () => number;
  /** How long a tier that failed is left alone. */
  readonly retryMs: number;
}

export class Placement {
  readonly #options: PlacementOptions;
  readonly #queued = new Set<ChunkId>();
  readonly #waiting = new Set<ChunkId>();
  readonly #outages = new Map<Tier, NodeJS.Timeout>();
  /** Reads from below that are under way, each shared by all who wait for the chunk. */
  readonly #promotions = new Map<ChunkId, Promise<boolean>>();
  readonly #stop = new AbortController();
  #bringing: Promise<void> | undefined;
  #queuedBytes = 0;
  readonly #whenIdle: (() => void)[] = [];

  constructor(options: PlacementOptions) {
    this.#options = options;
  }

  /** A chunk became visible: it is written to every tier that lacks it, when its turn comes. */
  saved(chunk: ChunkId): void {
    if (this.#stop.signal.aborted || this.#options.tiers.length === 0) return;
    this.#waiting.add(chunk);
    this.#fillQueue();
  }

  /**
   * Brings a chunk into the pool.
   *
   * @returns false when that failed: it is gone, corrupt, its tier is away, or the pool is full of chunks in use.
   */
  promote(chunk: ChunkId, slotBytes: number): Promise<boolean> {
    const { store } = this.#options;
    if (store.chunks.isInMemory(chunk)) return Promise.resolve(true);
    if (this.#stop.signal.aborted) return Promise.resolve(false);
    let work = this.#promotions.get(chunk);
    if (work === undefined) {
      store.pin(chunk);
      store.chunks.table.mark(chunk, flag.promoting, true);
      work = Promise.resolve().then(() => this.#promote(chunk, slotBytes));
      this.#promotions.set(chunk, work);
    }
    return work;
  }

  /** Brings the chunks of a text into the pool one after the other, while nobody waits for them; one text at a time. */
  bring(chunks: readonly ChunkId[], slotBytes: number): void {
    this.#bringing ??= this.#bring(chunks, slotBytes).finally(() => (this.#bringing = undefined));
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
    await Promise.all([...this.#promotions.values(), this.#bringing]);
  }

  stats(): { chunks: number; bytes: number; waitingChunks: number } {
    return { chunks: this.#queued.size, bytes: this.#queuedBytes, waitingChunks: this.#waiting.size };
  }

  #fillQueue(): void {
    const { chunks } = this.#options.store;
    for (const chunk of this.#waiting) {
      if (!chunks.table.has(chunk) || !chunks.isInMemory(chunk)) {
        this.#waiting.delete(chunk);
        continue;
      }
      if (this.#queuedBytes > 0 && this.#queuedBytes + chunks.bytesInPool(chunk) > this.#options.queueBytes()) return;
      if (this.#tiersWithout(chunk).length === 0 && this.#outages.size > 0) return;
      this.#waiting.delete(chunk);
      this.#enqueue(chunk);
    }
  }

  #enqueue(chunk: ChunkId): void {
    const { store } = this.#options;
    const bytes = store.chunks.bytesInPool(chunk);
    this.#queued.add(chunk);
    this.#queuedBytes += bytes;
    store.pin(chunk);
    void this.#write(chunk).finally(() => {
      this.#queued.delete(chunk);
      this.#queuedBytes -= bytes;
      store.unpin(chunk);
      this.#fillQueue();
      if (this.#queued.size > 0) return;
      for (const resolve of this.#whenIdle.splice(0)) resolve();
    });
  }

  /** Tiers that lack the chunk and can be asked now. */
  #tiersWithout(chunk: ChunkId): Tier[] {
    const { store, tiers } = this.#options;
    return tiers.filter((tier) => store.records.of(chunk, tier) === undefined && !this.#outages.has(tier));
  }

  async #write(chunk: ChunkId): Promise<void> {
    const { store, counters } = this.#options;
    for (const tier of this.#tiersWithout(chunk)) {
      if (this.#stop.signal.aborted) return;
      try {
        const { chunks } = store;
        const payloads = this.#views(chunk);
        const { space, key: root } = chunks.rootOf(chunk);
        const record = {
          space,
          root,
          key: chunks.key(chunk),
          parent: chunks.parentKey(chunk),
          firstToken: chunks.firstToken(chunk),
          tokens: chunks.tokens(chunk),
          payloadBytes: chunks.payloadBytes(chunk),
        };
        const id = await tier.write(record, payloads, this.#stop.signal);
        if (id === "rejected") {
          counters.refusedWrites += 1;
          continue;
        }
        if (store.records.of(chunk, tier) !== undefined) {
          tier.drop(id); // what the tier kept from before came back meanwhile (returning-records.ts)
          continue;
        }
        store.records.add(chunk, tier, id);
        this.#seal(chunk, tier, id);
        store.supersede(chunk);
      } catch (error) {
        if (this.#stop.signal.aborted) return;
        this.#outage(tier, error);
        this.#waiting.add(chunk);
      }
    }
  }

  async #promote(chunk: ChunkId, slotBytes: number): Promise<boolean> {
    const { store } = this.#options;
    let promoted = false;
    try {
      for (const [rank, bytes] of store.chunks.payloadBytes(chunk).entries()) {
        if (bytes > slotBytes) return false; // written by a guest with larger slots
        if (store.giveSlot(chunk, rank, slotBytes) === "full") return false;
      }
      promoted = await this.#readFromAny(chunk);
      return promoted;
    } finally {
      this.#promotions.delete(chunk);
      const { table } = store.chunks;
      table.mark(chunk, flag.promoting, false);
      if (!promoted) store.takeSlots(chunk);
      // Its record may have come or gone meanwhile: what counts is where the bytes are now.
      table.mark(chunk, flag.visible, promoted || store.chunks.hasRecords(chunk));
      store.unpin(chunk);
      store.removeIfEmpty(chunk);
    }
  }

  async #bring(wanted: readonly ChunkId[], slotBytes: number): Promise<void> {
    const { store, counters } = this.#options;
    for (const chunk of wanted) {
      if (!store.chunks.table.has(chunk) || !store.chunks.hasRecords(chunk)) return;
      if (!(await this.promote(chunk, slotBytes))) return;
      counters.broughtChunks += 1;
    }
  }

  async #readFromAny(chunk: ChunkId): Promise<boolean> {
    const { store, tiers, counters } = this.#options;
    for (const tier of tiers) {
      let id = store.records.of(chunk, tier);
      try {
        while (id !== undefined) {
          if (await this.#timedRead(tier, id, chunk)) {
            store.keep(chunk);
            this.#seal(chunk, tier, id);
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
        } else if (!this.#stop.signal.aborted) this.#outage(tier, error);
      }
    }
    return false;
  }

  /** Reads a record into the chunk's slots. @returns false when the tier has it no more */
  async #timedRead(tier: Tier, id: RecordId, chunk: ChunkId): Promise<boolean> {
    const { store, loadOrCompute } = this.#options;
    const views = this.#views(chunk);
    const ended = loadOrCompute.speed(tier.name).begin(views.reduce((sum, view) => sum + view.length, 0));
    let outcome: "read" | "failed" = "failed";
    try {
      if ((await tier.read(id, store.chunks.key(chunk), views, this.#stop.signal)) === "read") outcome = "read";
    } finally {
      ended(outcome);
    }
    return outcome === "read";
  }

  /** The tier has computed the payloads' checksums: the pool notes them, for whoever adopts it after a crash. */
  #seal(chunk: ChunkId, tier: Tier, id: RecordId): void {
    const checksums = tier.checksums(id);
    if (checksums !== undefined) this.#options.store.seal(chunk, checksums);
  }

  /** The payloads of a chunk that has its slots and is pinned. */
  #views(chunk: ChunkId): Uint8Array[] {
    const { chunks, pool } = this.#options.store;
    return chunks.payloadBytes(chunk).map((bytes, rank) => paddedView(pool, chunks.slot(chunk, rank)!, bytes)); // it has them
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
