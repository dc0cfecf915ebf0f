/**
 * Finds chunks by their keys, for those who know no tokens: other hosts. Four bytes a chunk, beside the rows, and as many here;
 * made only where such questions come, since the index itself compares tokens.
 *
 * A chunk is in it from when its key is known, which is before anybody can read it, until its row is given back.
 */
import type { ChunkKey } from "../../identity/keys.ts";
import { rowOf, type ChunkId } from "./chunk-id.ts";
import { flag, type ChunkTable } from "./chunk-table.ts";
import { LinkedIndex } from "./linked-index.ts";
import { PagedColumn } from "./paged-column.ts";

export class KeyIndex {
  readonly #table: ChunkTable;
  readonly #byKey: LinkedIndex;

  constructor(table: ChunkTable) {
    this.#table = table;
    const next = PagedColumn.integers();
    this.#byKey = new LinkedIndex({
      keyOf: (chunk) => numberOf(table.keyBytes(chunk)),
      next: (chunk) => next.get(rowOf(chunk)),
      setNext: (chunk, after) => next.set(rowOf(chunk), after),
    });
    table.beforeRemoval = (chunk) => {
      if (table.is(chunk, flag.keyKnown)) this.#byKey.remove(chunk);
    };
  }

  get size(): number {
    return this.#byKey.size;
  }

  /** Of two keys that begin with the same 48 bits one may not be found: a miss. */
  find(key: ChunkKey): ChunkId | undefined {
    const bytes = Buffer.from(key, "hex");
    const chunk = this.#byKey.find(numberOf(bytes));
    return chunk !== undefined && bytes.equals(this.#table.keyBytes(chunk)) ? chunk : undefined;
  }

  /** The chunk's key has become known. */
  add(chunk: ChunkId): void {
    this.#byKey.add(chunk);
  }
}

/** The first 48 bits. */
function numberOf(key: Uint8Array): number {
  const view = new DataView(key.buffer, key.byteOffset, key.byteLength);
  return view.getUint32(0) * 2 ** 16 + view.getUint16(4);
}
