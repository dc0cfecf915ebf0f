/** Which record of which tier below the pool holds a chunk's bytes, and which chunk a record belongs to. */
import { assert } from "../errors.ts";
import type { RecordId, Tier } from "../tier.ts";
import type { ChunkId } from "./chunk-id.ts";
import { flag } from "./chunk-table.ts";
import { LinkedIndex } from "./linked-index.ts";
import type { StoredChunks } from "./stored-chunk.ts";

export class ChunkRecords {
  readonly #chunks: StoredChunks;
  /** By tier. */
  readonly #byRecord: readonly LinkedIndex[];

  constructor(chunks: StoredChunks) {
    this.#chunks = chunks;
    const { table, tiers } = chunks;
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
    const { table } = this.#chunks;
    const number = this.#numberOf(tier);
    assert(table.record(chunk, number) === undefined, "a chunk has one record in a tier");
    table.setRecord(chunk, number, id);
    this.#byRecord[number]!.add(chunk); // one per tier
    table.mark(chunk, flag.usedSinceRecorded, false);
  }

  /** The record was rewritten under another name. */
  move(chunk: ChunkId, tier: Tier, to: RecordId): void {
    this.#take(chunk, this.#numberOf(tier));
    this.add(chunk, tier, to);
  }

  /** The record is gone from its tier. */
  forget(tier: Tier, id: RecordId): ChunkId | undefined {
    const chunk = this.ownerOf(tier, id);
    if (chunk === undefined) return undefined;
    this.#take(chunk, this.#numberOf(tier));
    if (!this.#chunks.hasRecords(chunk) && !this.#chunks.isInMemory(chunk))
      this.#chunks.table.mark(chunk, flag.visible, false);
    return chunk;
  }

  ownerOf(tier: Tier, id: RecordId): ChunkId | undefined {
    return this.#byRecord[this.#numberOf(tier)]!.find(id); // one per tier
  }

  /** The chunk was given to an engine: the tiers that have it keep count. */
  countHit(chunk: ChunkId): void {
    for (const [number, tier] of this.#chunks.tiers.entries()) {
      const id = this.#chunks.table.record(chunk, number);
      if (id !== undefined) tier.countHit(id as RecordId); // only records are set
    }
  }

  /** Used since its record was written: worth rewriting when the record's region goes. */
  isWanted(chunk: ChunkId): boolean {
    return this.#chunks.table.is(chunk, flag.usedSinceRecorded);
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
