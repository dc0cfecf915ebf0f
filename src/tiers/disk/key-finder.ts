/**
 * Finds a region's records by their keys, in the columns of its contents: a hash table of row numbers, 8 bytes a record. It
 * lives until the region's identities are in the index.
 */
import type { ChunkKey } from "../../identity/keys.ts";
import { columnCount, keyBeginning, keyColumn } from "./contents.ts";

export class KeyFinder {
  readonly #columns: Uint32Array;
  /** Rows + 1; 0 where there is none. */
  readonly #rows: Uint32Array;
  readonly #mask: number;

  /** @param columns as {@link ./contents.ts} has them, of `count` records */
  constructor(columns: Uint32Array, count: number) {
    this.#columns = columns;
    this.#rows = new Uint32Array(2 ** Math.ceil(Math.log2(2 * count + 1)));
    this.#mask = this.#rows.length - 1;
    for (let row = 0; row < count; row += 1) {
      let at = columns[columnCount * row + keyColumn]! & this.#mask; // one for each
      while (this.#rows[at] !== 0) at = (at + 1) & this.#mask;
      this.#rows[at] = row + 1;
    }
  }

  /** Rows whose keys begin as this one does: as a rule one or none. */
  find(key: ChunkKey): number[] {
    const [first, second] = keyBeginning(Buffer.from(key.slice(0, 16), "hex"));
    const found: number[] = [];
    for (let at = first & this.#mask; this.#rows[at] !== 0; at = (at + 1) & this.#mask) {
      const row = this.#rows[at]! - 1; // within the table
      const key = columnCount * row + keyColumn;
      if (this.#columns[key] === first && this.#columns[key + 1] === second) found.push(row);
    }
    return found;
  }
}
