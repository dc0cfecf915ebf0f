/**
 * Batches that a start found and nobody has read yet. Those of a text that is asked for are found by their keys, ahead of
 * the others; a batch that was read is its owner's to know.
 */
import type { ChunkKey } from "../../identity/keys.ts";
import type { SpaceId } from "../../identity/space.ts";
import type { FoundRecord, RecordId } from "../../tier.ts";

export interface UnreadBatch {
  readonly space: SpaceId;
  /** @returns how to read the record, or undefined when it is not here; reading gives undefined when it is damaged or gone. Never throws. */
  find(key: ChunkKey): (() => Promise<FoundRecord | undefined>) | undefined;
}

export class UnreadBatches {
  readonly #has: (id: RecordId) => boolean;
  readonly #bySpace = new Map<SpaceId, Set<UnreadBatch>>();

  constructor(has: (id: RecordId) => boolean) {
    this.#has = has;
  }

  add(batch: UnreadBatch): void {
    const batches = this.#bySpace.get(batch.space) ?? new Set();
    this.#bySpace.set(batch.space, batches.add(batch));
  }

  delete(batch: UnreadBatch): void {
    this.#bySpace.get(batch.space)?.delete(batch);
  }

  /** The records of the leading keys, all read at the same time. */
  async find(space: SpaceId, keys: Iterable<ChunkKey>): Promise<readonly FoundRecord[]> {
    const batches = [...(this.#bySpace.get(space) ?? [])];
    const reads: Promise<FoundRecord | undefined>[] = [];
    for (const key of keys) {
      const read = firstOf(batches, key);
      if (read === undefined) break;
      reads.push(read());
    }
    const found: FoundRecord[] = [];
    for (const record of await Promise.all(reads)) {
      if (record === undefined || !this.#has(record.id)) break; // it may have gone since it was read
      found.push(record);
    }
    return found;
  }
}

function firstOf(batches: readonly UnreadBatch[], key: ChunkKey): ReturnType<UnreadBatch["find"]> {
  for (const batch of batches) {
    const read = batch.find(key);
    if (read !== undefined) return read;
  }
  return undefined;
}
