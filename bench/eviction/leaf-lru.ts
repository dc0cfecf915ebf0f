/** Leaf-first least-recently-used behind the cache's own interface: the baseline that the cache's policy must beat. */
import { rowOf, type ChunkId } from "../../src/cache/index/chunk-id.ts";
import type { EvictionPolicy } from "../../src/cache/eviction/policy.ts";
import type { ChunkTraits } from "../../src/cache/index/stored-chunk.ts";
import { MinHeap } from "../../src/cache/eviction/min-heap.ts";
import { PagedColumn } from "../../src/cache/index/paged-column.ts";

export class LeafLru implements EvictionPolicy {
  readonly #touchedAt = PagedColumn.doubles();
  readonly #place = PagedColumn.integers();
  readonly #heap = new MinHeap({
    key: (chunk) => this.#touchedAt.get(rowOf(chunk)),
    place: (chunk) => this.#place.get(rowOf(chunk)),
    setPlace: (chunk, place) => this.#place.set(rowOf(chunk), place),
  });

  stored(chunk: ChunkId, _traits: ChunkTraits, now: number): void {
    this.refreshed(chunk, now);
  }

  used(chunk: ChunkId, now: number): void {
    this.refreshed(chunk, now);
  }

  refreshed(chunk: ChunkId, now: number): void {
    this.#touchedAt.set(rowOf(chunk), now);
  }

  forgotten(): void {}

  offer(chunk: ChunkId): void {
    this.#heap.add(chunk);
  }

  withdraw(chunk: ChunkId): void {
    if (this.isOffered(chunk)) this.#heap.remove(chunk);
  }

  isOffered(chunk: ChunkId): boolean {
    return this.#place.get(rowOf(chunk)) !== 0;
  }

  /** Knows no tenants: a replay has one. */
  next(): ChunkId | undefined {
    return this.#heap.first as ChunkId | undefined; // only chunks were added
  }

  score(chunk: ChunkId, now: number): number {
    return 1 / (1 + now - this.#touchedAt.get(rowOf(chunk)));
  }

  check(): void {
    this.#heap.check();
  }
}
