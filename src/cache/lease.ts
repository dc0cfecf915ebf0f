/**
 * Leases: who is using which chunks right now.
 *
 * A guest that loads or writes a chunk holds a lease on it; a leased chunk is never evicted. Leases belong to a session
 * and fall with it, so a killed engine cannot pin memory. Numbers are never used twice, so a late release is harmless.
 *
 *     reserve ──► writing ──commit──► (visible)      load ──► reading ──release──► (evictable)
 *                    └──── drop ────► (never was)
 */
import { assert } from "../errors.ts";
import type { LeaseId } from "./session.ts";

declare const brand: unique symbol;
/** The session a lease belongs to. */
export type HolderId = number & { readonly [brand]: "HolderId" };

export type Lease<Chunk> =
  | { readonly kind: "reading"; readonly chunk: Chunk }
  /** The slot of one tensor-parallel rank is being written. */
  | { readonly kind: "writing"; readonly chunk: Chunk; readonly rank: number };

export class LeaseTable<Chunk> {
  /** Leases per chunk, of both kinds. */
  readonly #counts = new Map<Chunk, number>();
  readonly #held = new Map<HolderId, Map<LeaseId, Lease<Chunk>>>();
  #lastId = 0;
  #size = 0;

  /** Leases held by all. */
  get size(): number {
    return this.#size;
  }

  /** Whether a chunk may be leased so is the caller's decision; the table keeps count. */
  acquire(holder: HolderId, lease: Lease<Chunk>): LeaseId {
    const id = (this.#lastId += 1) as LeaseId;
    let held = this.#held.get(holder);
    if (held === undefined) this.#held.set(holder, (held = new Map()));
    held.set(id, lease);
    this.#counts.set(lease.chunk, this.leasesOf(lease.chunk) + 1);
    this.#size += 1;
    return id;
  }

  get(holder: HolderId, id: LeaseId): Lease<Chunk> | undefined {
    return this.#held.get(holder)?.get(id);
  }

  /** Gives one lease back. @returns what it was, or undefined when the holder does not hold it (any more). */
  release(holder: HolderId, id: LeaseId): Lease<Chunk> | undefined {
    const held = this.#held.get(holder);
    const lease = held?.get(id);
    if (held === undefined || lease === undefined) return undefined;
    held.delete(id);
    if (held.size === 0) this.#held.delete(holder);
    this.#forget(lease);
    return lease;
  }

  /** Gives back all that a session held. @returns the leases: what was being written holds nothing now. */
  dropHolder(holder: HolderId): Lease<Chunk>[] {
    const leases = [...(this.#held.get(holder)?.values() ?? [])];
    this.#held.delete(holder);
    for (const lease of leases) this.#forget(lease);
    return leases;
  }

  heldBy(holder: HolderId): number {
    return this.#held.get(holder)?.size ?? 0;
  }

  leasesOf(chunk: Chunk): number {
    return this.#counts.get(chunk) ?? 0;
  }

  /** Every lease, for checks. */
  *all(): Iterable<Lease<Chunk>> {
    for (const held of this.#held.values()) yield* held.values();
  }

  /** Asserts that what is counted per chunk is what is held. */
  check(): void {
    const counts = new Map<Chunk, number>();
    for (const lease of this.all()) counts.set(lease.chunk, (counts.get(lease.chunk) ?? 0) + 1);
    assert(counts.size === this.#counts.size, "chunks counted and chunks leased differ");
    let size = 0;
    for (const [chunk, count] of counts) {
      assert(this.#counts.get(chunk) === count, `a chunk has ${count} leases and counts ${this.#counts.get(chunk)}`);
      size += count;
    }
    assert(size === this.#size, "leases counted and leases held differ");
  }

  #forget(lease: Lease<Chunk>): void {
    const left = this.leasesOf(lease.chunk) - 1;
    assert(left >= 0, "a lease was counted that nobody held");
    if (left === 0) this.#counts.delete(lease.chunk);
    else this.#counts.set(lease.chunk, left);
    this.#size -= 1;
  }
}
