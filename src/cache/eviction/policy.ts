/**
 * Which chunk leaves the pool when room is needed.
 *
 * The cache tells the policy what happens to chunks, and offers a chunk while it may go: nobody leases it and none of its
 * children is in the pool (a chunk is of no use without those before it). {@link ./hazard-policy.ts} is the policy in use;
 * bench/eviction.ts compares it with others, docs/eviction.md shows the result.
 */
import type { ChunkId } from "../index/chunk-id.ts";
import type { ChunkTraits } from "../index/stored-chunk.ts";

/**
 * Times are milliseconds on a clock that never stands still: of two chunks that were touched, the later one has the later
 * time. A chunk is not offered while it is stored, used, refreshed or forgotten. The chunks of one root are one tenant's.
 */
export interface EvictionPolicy {
  /** The chunk's bytes were stored: it is new, or had been forgotten. */
  stored(chunk: ChunkId, traits: ChunkTraits, now: number): void;
  /** A request reads the chunk. */
  used(chunk: ChunkId, now: number): void;
  /** A text that begins with the chunk is being stored: the chunk is as recent as that, but nobody read it. */
  refreshed(chunk: ChunkId, now: number): void;
  /** The chunk is gone from the pool and the tiers below. It is not offered. */
  forgotten(chunk: ChunkId, traits: ChunkTraits): void;

  /** The chunk may be evicted from now on. */
  offer(chunk: ChunkId, tenant: number): void;
  /** The chunk may not be evicted any more, or is gone. Without effect when it was not offered. */
  withdraw(chunk: ChunkId, tenant: number): void;
  isOffered(chunk: ChunkId): boolean;
  /** The chunk to evict first, of all or of one tenant's. It stays offered until it is withdrawn. */
  next(now: number, tenant?: number): ChunkId | undefined;
  /** How likely it is that the chunk is read soon, to be added up: what goes first has the lowest. */
  score(chunk: ChunkId, now: number): number;
  /** Asserts that the policy's books are in order. */
  check(): void;
}
