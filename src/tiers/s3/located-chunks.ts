/**
 * Chunks that this host has found or written lately, and where they lie: what reads need, and what the index of a text that goes on
 * tells of the chunks before. The oldest go first; what was forgotten is asked for again.
 */
import type { ChunkKey } from "../../identity/keys.ts";
import type { RecordId } from "../../tier.ts";
import type { Head } from "../shared/head.ts";
import { Remembered } from "../shared/remembered.ts";
import type { IndexEntry } from "./index-object.ts";

export interface LocatedChunk extends IndexEntry {
  readonly decoded: Head;
}

export class LocatedChunks {
  readonly #byId = new Remembered<RecordId, LocatedChunk>(({ decoded }) => decoded);
  readonly #byKey = new Remembered<ChunkKey, LocatedChunk>(({ decoded }) => decoded);
  #lastId = 0;

  /** Under a number that no other has. */
  add(chunk: LocatedChunk): RecordId {
    const id = (this.#lastId += 1) as RecordId;
    this.#byId.set(id, chunk);
    this.note(chunk);
    return id;
  }

  /** For those who go by the key. */
  note(chunk: LocatedChunk): void {
    this.#byKey.set(chunk.decoded.record.key, chunk);
  }

  byId(id: RecordId): LocatedChunk | undefined {
    return this.#byId.get(id);
  }

  /** The last that was found or written of the key. */
  byKey(key: ChunkKey): LocatedChunk | undefined {
    return this.#byKey.get(key);
  }

  forget(key: ChunkKey): void {
    this.#byKey.delete(key);
  }
}
