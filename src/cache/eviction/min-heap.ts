/**
 * A binary heap of integers, the one with the least key first; O(log n) for each operation.
 *
 * Keys and places live with the owner, so that an item costs four bytes here and can be found without a search. Of equal
 * keys any may come first, but the same operations always give the same order.
 */
import { assert } from "../../errors.ts";

export interface HeapColumns {
  /** What the heap is ordered by. It changes only between {@link MinHeap.remove} and {@link MinHeap.add}. */
  readonly key: (item: number) => number;
  /** Where an item stands, from 1; 0 for one that is in no heap. */
  readonly place: (item: number) => number;
  readonly setPlace: (item: number, place: number) => void;
}

export class MinHeap {
  readonly #columns: HeapColumns;
  /** From index 1, so that the parent of i is i/2. */
  #items = new Int32Array(4);
  #size = 0;

  constructor(columns: HeapColumns) {
    this.#columns = columns;
  }

  get size(): number {
    return this.#size;
  }

  get first(): number | undefined {
    return this.#size === 0 ? undefined : this.#items[1];
  }

  /** Items whose key is below `limit`, the first one first, the others in no order. */
  *before(limit: number): Generator<number, void, void> {
    const open = [1];
    for (let place = open.shift(); place !== undefined; place = open.shift()) {
      if (place > this.#size || this.#columns.key(this.#items[place]!) >= limit) continue; // below the size
      yield this.#items[place]!;
      open.push(2 * place, 2 * place + 1);
    }
  }

  add(item: number): void {
    assert(this.#columns.place(item) === 0, "an item is in one heap, once");
    if (this.#size + 1 === this.#items.length) this.#resize(Math.ceil(this.#items.length * 1.5));
    this.#size += 1;
    this.#rise(item, this.#size);
  }

  remove(item: number): void {
    const place = this.#columns.place(item);
    assert(this.#items[place] === item && place <= this.#size, "an item was taken from a heap that it is not in");
    this.#columns.setPlace(item, 0);
    const last = this.#items[this.#size]!; // it holds at least `item`
    this.#size -= 1;
    if (last !== item) {
      this.#rise(last, place);
      this.#sink(last, this.#columns.place(last));
    }
    if (this.#items.length > 64 && this.#size * 4 < this.#items.length) this.#resize(this.#size * 2);
  }

  /** Asserts that no item comes before its parent, and that each knows its place. */
  check(): void {
    const { key, place } = this.#columns;
    for (let i = 1; i <= this.#size; i += 1) {
      assert(place(this.#items[i]!) === i, "an item of a heap does not know its place");
      assert(i === 1 || key(this.#items[i >>> 1]!) <= key(this.#items[i]!), "a heap is out of order");
    }
  }

  #rise(item: number, from: number): void {
    const { key } = this.#columns;
    const wanted = key(item);
    let place = from;
    while (place > 1) {
      const above = this.#items[place >>> 1]!; // a parent exists
      if (key(above) <= wanted) break;
      this.#put(above, place);
      place >>>= 1;
    }
    this.#put(item, place);
  }

  #sink(item: number, from: number): void {
    const { key } = this.#columns;
    const wanted = key(item);
    let place = from;
    for (;;) {
      let below = 2 * place;
      if (below > this.#size) break;
      if (below < this.#size && key(this.#items[below + 1]!) < key(this.#items[below]!)) below += 1;
      if (key(this.#items[below]!) >= wanted) break;
      this.#put(this.#items[below]!, place);
      place = below;
    }
    this.#put(item, place);
  }

  #put(item: number, place: number): void {
    this.#items[place] = item;
    this.#columns.setPlace(item, place);
  }

  #resize(length: number): void {
    const items = new Int32Array(Math.max(4, length));
    items.set(this.#items.subarray(0, this.#size + 1));
    this.#items = items;
  }
}
