/** Which chunk a slot of the pool belongs to. */
import type { ChunkId } from "../index/chunk-id.ts";
import type { ChunkTable } from "../index/chunk-table.ts";
import { LinkedIndex } from "../index/linked-index.ts";

export class SlotOwners {
  readonly #table: ChunkTable;
  /** By part, made when first needed. */
  readonly #bySlot: LinkedIndex[] = [];

  constructor(table: ChunkTable) {
    this.#table = table;
  }

  /** Slots known, of all parts. */
  get size(): number {
    return this.#bySlot.reduce((sum, { size }) => sum + size, 0);
  }

  /** The chunk whose slot this is; undefined when a dead process left it there. */
  of(offset: number): ChunkId | undefined {
    for (const index of this.#bySlot) {
      const chunk = index.find(offset);
      if (chunk !== undefined) return chunk;
    }
    return undefined;
  }

  /** The chunk has a slot of this part from now on, as its row says. */
  add(chunk: ChunkId, part: number): void {
    this.#slots(part).add(chunk);
  }

  /** It has none any more; to be called while its row still says so. */
  remove(chunk: ChunkId, part: number): void {
    this.#slots(part).remove(chunk);
  }

  #slots(part: number): LinkedIndex {
    while (this.#bySlot.length <= part) {
      const table = this.#table;
      const number = this.#bySlot.length;
      const index = new LinkedIndex({
        keyOf: (chunk) => table.slot(chunk, number),
        next: (chunk) => table.nextBySlot(chunk, number),
        setNext: (chunk, next) => table.setNextBySlot(chunk, number, next),
      });
      this.#bySlot.push(index);
    }
    return this.#bySlot[part]!; // made above
  }
}
