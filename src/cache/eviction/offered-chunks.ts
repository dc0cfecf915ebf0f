/**
 * The chunks that may be evicted, by tenant and class, least recently touched first.
 *
 *     tenant 0   class 0 [oldest … ]   class 1 [oldest … ]  …          each [ ] is a heap of chunks
 *     tenant 1   class 0 [oldest … ]   …
 *                        │
 *     class 0 [ the tenant with the oldest chunk of the class … ]      a heap of tenants for each class
 *
 * Within a class the oldest chunk is the one to evict: so the best of all is among one chunk per class, and so is the best
 * of one tenant's, however many there are.
 */
import type { ChunkId } from "../index/chunk-id.ts";
import { MinHeap } from "./min-heap.ts";

export interface OfferedColumns {
  readonly touchedAt: (chunk: number) => number;
  readonly classOf: (chunk: number) => number;
  readonly place: (chunk: number) => number;
  readonly setPlace: (chunk: number, place: number) => void;
}

interface TenantQueue {
  /** By class, made when first needed. */
  readonly heaps: (MinHeap | undefined)[];
  /** Where the tenant stands in each class's heap of tenants. */
  readonly places: Int32Array;
  size: number;
}

export class OfferedChunks {
  readonly #columns: OfferedColumns;
  readonly #tenants = new Map<number, TenantQueue>();
  readonly #byClass: readonly MinHeap[];
  readonly #chunkColumns;

  constructor(classes: number, columns: OfferedColumns) {
    this.#columns = columns;
    this.#chunkColumns = { key: columns.touchedAt, place: columns.place, setPlace: columns.setPlace };
    this.#byClass = Array.from(
      { length: classes },
      (_, c) =>
        new MinHeap({
          key: (tenant) => columns.touchedAt(this.#tenants.get(tenant)!.heaps[c]!.first!), // a tenant here has one
          place: (tenant) => this.#tenants.get(tenant)!.places[c]!,
          setPlace: (tenant, place) => (this.#tenants.get(tenant)!.places[c] = place),
        }),
    );
  }

  has(chunk: ChunkId): boolean {
    return this.#columns.place(chunk) !== 0;
  }

  add(chunk: ChunkId, tenant: number): void {
    let queue = this.#tenants.get(tenant);
    if (queue === undefined) {
      queue = { heaps: [], places: new Int32Array(this.#byClass.length), size: 0 };
      this.#tenants.set(tenant, queue);
    }
    const c = this.#columns.classOf(chunk);
    const heap = (queue.heaps[c] ??= new MinHeap(this.#chunkColumns));
    const becomesFirst =
      heap.first === undefined || this.#columns.touchedAt(chunk) < this.#columns.touchedAt(heap.first);
    if (becomesFirst && heap.size > 0) this.#byClass[c]!.remove(tenant);
    heap.add(chunk);
    queue.size += 1;
    if (becomesFirst) this.#byClass[c]!.add(tenant);
  }

  remove(chunk: ChunkId, tenant: number): void {
    const queue = this.#tenants.get(tenant)!; // it was added with this tenant
    const c = this.#columns.classOf(chunk);
    const heap = queue.heaps[c]!; // it was added with this class
    const wasFirst = heap.first === chunk;
    if (wasFirst) this.#byClass[c]!.remove(tenant);
    heap.remove(chunk);
    queue.size -= 1;
    if (wasFirst && heap.size > 0) this.#byClass[c]!.add(tenant);
    if (queue.size === 0) this.#tenants.delete(tenant);
  }

  /** The oldest chunk of a class, of all tenants or of one. */
  oldest(chunkClass: number, tenant?: number): ChunkId | undefined {
    const owner = tenant ?? this.#byClass[chunkClass]!.first;
    if (owner === undefined) return undefined;
    return this.#tenants.get(owner)?.heaps[chunkClass]?.first as ChunkId | undefined; // only chunks were added
  }

  check(): void {
    for (const heap of this.#byClass) heap.check();
    for (const { heaps } of this.#tenants.values()) for (const heap of heaps) heap?.check();
  }
}
