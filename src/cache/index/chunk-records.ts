/**
 * Which record of which tier below the pool holds a chunk's bytes, and which chunk a record belongs to.
 *
 * A log says what it has lost. A shared tier does not, and others fill it: of its records those that became known last are
 * remembered, and a forgotten one is found again by whoever asks for it.
 */
import { assert } from "../../errors.ts";
import { ownedLog, type RecordId, type Tier, type TierName } from "../../tier.ts";
import type { ChunkId } from "./chunk-id.ts";
import { flag } from "./chunk-table.ts";
import { LinkedIndex } from "./linked-index.ts";
import type { StoredChunks } from "./stored-chunk.ts";

/** Hears where chunks' bytes are below the pool, and where no longer. */
export interface RecordListener {
  recorded(chunk: ChunkId, tier: TierName): void;
  removed(chunk: ChunkId, tier: TierName): void;
}

export interface ChunkRecordsOptions {
  readonly chunks: StoredChunks;
  readonly events: RecordListener;
  /** A chunk has lost its record of a shared tier, and perhaps all that was known of it. */
  readonly onForgotten: (chunk: ChunkId) => void;
}

/** Records of one shared tier that are remembered: rows of 50 MB, at 64 tokens a chunk. */
const mostShared = 2 ** 17;

export class ChunkRecords {
  readonly #chunks: StoredChunks;
  readonly #events: RecordListener;
  readonly #onForgotten: (chunk: ChunkId) => void;
  /** By tier that is shared: a ring of the records that became known last, the oldest at `next`. */
  readonly #shared = new Map<Tier, { readonly ids: Float64Array; next: number }>();
  /** By tier. */
  readonly #byRecord: readonly LinkedIndex[];

  constructor({ chunks, events, onForgotten }: ChunkRecordsOptions) {
    this.#chunks = chunks;
    this.#events = events;
    this.#onForgotten = onForgotten;
    const { table, tiers } = chunks;
    for (const tier of tiers)
      if (ownedLog(tier) === undefined) this.#shared.set(tier, { ids: new Float64Array(mostShared).fill(-1), next: 0 });
    this.#byRecord = tiers.map(
      (_, tier) =>
        new LinkedIndex({
          keyOf: (chunk) => table.record(chunk, tier),
          next: (chunk) => table.nextByRecord(chunk, tier),
          setNext: (chunk, next) => table.setNextByRecord(chunk, tier, next),
        }),
    );
  }

  /** Records known, of all tiers. */
  get size(): number {
    return this.#byRecord.reduce((sum, { size }) => sum + size, 0);
  }

  /** The chunk's record in a tier. */
  of(chunk: ChunkId, tier: Tier): RecordId | undefined {
    return this.#chunks.table.record(chunk, this.#numberOf(tier)) as RecordId | undefined; // only records are set
  }

  add(chunk: ChunkId, tier: Tier, id: RecordId): void {
    this.#put(chunk, this.#numberOf(tier), id);
    this.#events.recorded(chunk, tier.name);
    this.#remember(tier, id);
  }

  /** The tier's record lacks snapshots that the chunk has now. */
  isLacking(chunk: ChunkId, tier: Tier): boolean {
    return this.#chunks.isLacking(chunk, this.#numberOf(tier));
  }

  /** Says so of one. */
  lack(chunk: ChunkId, tier: Tier): void {
    this.#chunks.setLacking(chunk, this.#numberOf(tier), true);
  }

  /** The chunk was written anew, with all that it has: the record that a tier had of it goes. */
  replace(chunk: ChunkId, tier: Tier, id: RecordId): void {
    const old = this.of(chunk, tier);
    this.move(chunk, tier, id);
    this.#chunks.setLacking(chunk, this.#numberOf(tier), false);
    this.#remember(tier, id);
    if (old !== undefined) ownedLog(tier)?.drop(old);
  }

  /** The record was rewritten under another name. */
  move(chunk: ChunkId, tier: Tier, to: RecordId): void {
    const number = this.#numberOf(tier);
    this.#take(chunk, number);
    this.#put(chunk, number, to);
  }

  /** The record is gone from its tier. */
  forget(tier: Tier, id: RecordId): ChunkId | undefined {
    const chunk = this.ownerOf(tier, id);
    if (chunk === undefined) return undefined;
    this.#take(chunk, this.#numberOf(tier));
    this.#chunks.setLacking(chunk, this.#numberOf(tier), false);
    this.#chunks.forgetUnreadable(chunk);
    this.#events.removed(chunk, tier.name);
    return chunk;
  }

  /** A shared tier has not given what comes before the chunk: what is known of its own record there is doubtful, and is asked for anew. */
  forgetShared(chunk: ChunkId): void {
    for (const tier of this.#shared.keys()) {
      const id = this.of(chunk, tier);
      if (id !== undefined) this.forget(tier, id);
    }
  }

  /** Gives up every record of the chunk: its log has the room back, and another's store what is in it. */
  drop(chunk: ChunkId): void {
    for (const tier of this.#chunks.tiers) {
      const id = this.of(chunk, tier);
      if (id === undefined) continue;
      this.forget(tier, id);
      ownedLog(tier)?.drop(id);
    }
  }

  ownerOf(tier: Tier, id: RecordId): ChunkId | undefined {
    return this.#byRecord[this.#numberOf(tier)]!.find(id); // one per tier
  }

  /** The chunk was given to an engine: the tiers that have it keep count. */
  countHit(chunk: ChunkId): void {
    for (const [number, tier] of this.#chunks.tiers.entries()) {
      const id = this.#chunks.table.record(chunk, number);
      if (id !== undefined) ownedLog(tier)?.countHit(id as RecordId); // only records are set
    }
  }

  /** Used since its record was written: worth rewriting when the record's region goes. */
  isWanted(chunk: ChunkId): boolean {
    return this.#chunks.table.is(chunk, flag.usedSinceRecorded);
  }

  #put(chunk: ChunkId, tier: number, id: RecordId): void {
    const { table } = this.#chunks;
    assert(table.record(chunk, tier) === undefined, "a chunk has one record in a tier");
    table.setRecord(chunk, tier, id);
    this.#byRecord[tier]!.add(chunk); // one per tier
    table.mark(chunk, flag.usedSinceRecorded, false);
  }

  /** Takes the place of the oldest that is known of a shared tier. */
  #remember(tier: Tier, id: RecordId): void {
    const ring = this.#shared.get(tier);
    if (ring === undefined) return;
    const oldest = ring.ids[ring.next] as RecordId; // within the ring; below 0 until it is full
    ring.ids[ring.next] = id;
    ring.next = (ring.next + 1) % mostShared;
    const chunk = oldest < 0 ? undefined : this.forget(tier, oldest);
    if (chunk !== undefined) this.#onForgotten(chunk);
  }

  #take(chunk: ChunkId, tier: number): void {
    assert(this.#chunks.table.record(chunk, tier) !== undefined, "a record that nobody has was moved");
    this.#byRecord[tier]!.remove(chunk); // one per tier
    this.#chunks.table.setRecord(chunk, tier, undefined);
  }

  #numberOf(tier: Tier): number {
    const number = this.#chunks.tiers.indexOf(tier);
    assert(number !== -1, "a tier was named that the cache does not have");
    return number;
  }
}
