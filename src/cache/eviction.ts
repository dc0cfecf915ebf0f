/**
 * Which chunk leaves the pool when room is needed.
 *
 * The cache offers a chunk to the policy while it may go: nobody leases it and none of its children is in the pool (a
 * chunk is of no use without those before it). Leaf-first least-recently-used is the baseline that cleverer policies
 * are measured against.
 */
import { assert } from "../errors.ts";

export interface EvictionPolicy<Chunk> {
  /** The chunk may be evicted from now on. `lastUsed`: a number that grows with every use of any chunk. */
  offer(chunk: Chunk, lastUsed: number): void;
  /** The chunk may not be evicted any more, or is gone. Without effect when it was not offered. */
  withdraw(chunk: Chunk): void;
  /** The chunk to evict first. It stays offered until it is withdrawn. */
  next(): Chunk | undefined;
  isOffered(chunk: Chunk): boolean;
}

interface Entry<Chunk> {
  readonly chunk: Chunk;
  readonly lastUsed: number;
  position: number;
}

/** Least recently used first: a binary heap, O(log n) for each operation. */
export class LeastRecentlyUsed<Chunk> implements EvictionPolicy<Chunk> {
  readonly #heap: Entry<Chunk>[] = [];
  readonly #entries = new Map<Chunk, Entry<Chunk>>();

  offer(chunk: Chunk, lastUsed: number): void {
    assert(!this.#entries.has(chunk), "a chunk is offered once");
    const entry = { chunk, lastUsed, position: this.#heap.length };
    this.#entries.set(chunk, entry);
    this.#heap.push(entry);
    this.#rise(entry);
  }

  withdraw(chunk: Chunk): void {
    const entry = this.#entries.get(chunk);
    if (entry === undefined) return;
    this.#entries.delete(chunk);
    const last = this.#heap.pop()!; // it holds at least `entry`
    if (last === entry) return;
    this.#put(last, entry.position);
    this.#rise(last);
    this.#sink(last);
  }

  next(): Chunk | undefined {
    return this.#heap[0]?.chunk;
  }

  isOffered(chunk: Chunk): boolean {
    return this.#entries.has(chunk);
  }

  #rise(entry: Entry<Chunk>): void {
    while (entry.position > 0) {
      const above = this.#heap[(entry.position - 1) >>> 1]!; // a parent exists
      if (above.lastUsed <= entry.lastUsed) return;
      this.#swap(above, entry);
    }
  }

  #sink(entry: Entry<Chunk>): void {
    for (;;) {
      const left = this.#heap[2 * entry.position + 1];
      const right = this.#heap[2 * entry.position + 2];
      const least = right !== undefined && left !== undefined && right.lastUsed < left.lastUsed ? right : left;
      if (least === undefined || least.lastUsed >= entry.lastUsed) return;
      this.#swap(entry, least);
    }
  }

  #swap(a: Entry<Chunk>, b: Entry<Chunk>): void {
    const { position } = a;
    this.#put(a, b.position);
    this.#put(b, position);
  }

  #put(entry: Entry<Chunk>, position: number): void {
    entry.position = position;
    this.#heap[position] = entry;
  }
}
