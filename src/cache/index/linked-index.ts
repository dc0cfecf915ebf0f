/**
 * Finds chunks by a number they carry (a slot's offset, a record's id): a hash table whose chains run through the chunks'
 * own rows, so that it costs four bytes a chunk here and four there.
 *
 * It grows by linear hashing: each addition splits one bucket at most, and none ever waits for a rehash of all.
 *
 *     buckets   │ split already │ not yet │ new halves │        a hash is cut to the larger power of two where its
 *               0             split     2^level      count      bucket exists, else to the smaller
 */
import { assert } from "../../errors.ts";
import type { ChunkId } from "./chunk-id.ts";
import { PagedColumn } from "./paged-column.ts";

export interface LinkedColumns {
  readonly keyOf: (chunk: ChunkId) => number | undefined;
  /** The chunk after this one in its chain; 0 at the end. */
  readonly next: (chunk: ChunkId) => number;
  readonly setNext: (chunk: ChunkId, next: number) => void;
}

export class LinkedIndex {
  readonly #columns: LinkedColumns;
  readonly #heads = PagedColumn.integers();
  #size = 0;
  #lower = 1;
  #split = 0;

  constructor(columns: LinkedColumns) {
    this.#columns = columns;
  }

  get size(): number {
    return this.#size;
  }

  find(key: number): ChunkId | undefined {
    for (let at = this.#heads.get(this.#bucketOf(key)); at !== 0; at = this.#columns.next(at as ChunkId))
      if (this.#columns.keyOf(at as ChunkId) === key) return at as ChunkId; // only chunks are in chains
    return undefined;
  }

  /** Adds a chunk under the key it has. */
  add(chunk: ChunkId): void {
    const key = this.#columns.keyOf(chunk);
    assert(key !== undefined, "a chunk without a key was added to an index");
    this.#push(this.#bucketOf(key), chunk);
    this.#size += 1;
    if (this.#size > this.#lower + this.#split) this.#splitOne();
  }

  /** Removes a chunk that still has the key it was added with. */
  remove(chunk: ChunkId): void {
    const key = this.#columns.keyOf(chunk);
    assert(key !== undefined, "a chunk without a key was taken from an index");
    const bucket = this.#bucketOf(key);
    const { next, setNext } = this.#columns;
    const after = next(chunk);
    if (this.#heads.get(bucket) === chunk) this.#heads.set(bucket, after);
    else {
      let before = this.#heads.get(bucket) as ChunkId; // only chunks are in chains
      while (next(before) !== chunk) before = next(before) as ChunkId;
      setNext(before, after);
    }
    setNext(chunk, 0);
    this.#size -= 1;
  }

  #push(bucket: number, chunk: ChunkId): void {
    this.#columns.setNext(chunk, this.#heads.get(bucket));
    this.#heads.set(bucket, chunk);
  }

  #splitOne(): void {
    const bucket = this.#split;
    this.#split += 1;
    let at = this.#heads.get(bucket);
    this.#heads.set(bucket, 0);
    this.#heads.set(bucket + this.#lower, 0);
    while (at !== 0) {
      const chunk = at as ChunkId; // only chunks are in chains
      at = this.#columns.next(chunk);
      this.#push(hashOf(this.#columns.keyOf(chunk)!) % (2 * this.#lower), chunk); // it has a key: it was added
    }
    if (this.#split < this.#lower) return;
    this.#lower *= 2;
    this.#split = 0;
  }

  #bucketOf(key: number): number {
    const hash = hashOf(key);
    const bucket = hash % this.#lower;
    return bucket < this.#split ? hash % (2 * this.#lower) : bucket;
  }
}

function hashOf(key: number): number {
  return mix32(key ^ Math.imul(key / 2 ** 32, 0x9e3779b1));
}

/** 32 well mixed bits of as many: MurmurHash3's finalizer. */
export function mix32(bits: number): number {
  let hash = Math.imul(bits ^ (bits >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}
