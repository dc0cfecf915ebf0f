/**
 * Leases: who is using which chunks right now.
 *
 * A guest that loads or writes a chunk holds a lease on it; a leased chunk is never evicted. Leases belong to a session
 * and fall with it, so a killed engine cannot pin memory; one that lives can pin a part of it ({@link LeaseTable.mayRead}, {@link LeaseTable.mayWrite}),
 * and for a time: whoever holds a lease too long is disconnected (wire/cache/server.ts). Numbers are never used twice, so a late
 * release is harmless.
 *
 *     reserve ──► writing ──commit──► (visible)      load ──► reading ──release──► (evictable)
 *                    └──── drop ────► (never was)
 */
import { assert } from "../../errors.ts";
import type { LeaseId } from "../../session.ts";

declare const brand: unique symbol;
/** The session a lease belongs to. */
export type HolderId = number & { readonly [brand]: "HolderId" };

/** A group's payloads of one chunk, those of all ranks. */
export interface GroupBytes {
  readonly group: number;
  /** Of the pool: what their slots take, and cannot be given to others meanwhile. */
  readonly bytes: number;
}

/** What both kinds have. */
interface Hold<Chunk> extends GroupBytes {
  readonly chunk: Chunk;
  /** When it was taken, in milliseconds of the cache's clock. */
  readonly since: number;
}

export type Lease<Chunk> =
  | ({ readonly kind: "reading" } & Hold<Chunk>)
  /** The slot of one part is being written. */
  | ({ readonly kind: "writing"; readonly part: number } & Hold<Chunk>);

interface Leased {
  leases: number;
  bytes: number;
}

/** Part of the pool that all that is being written may take. */
const writtenShare = 3 / 4;
/** How many times as much as is still free of that part a session may have reserved. */
const freeTimes = 2;
/** Part of the pool that one session may keep in place for reading. */
const readShare = 1 / 2;

/** What is leased for one purpose: each group of a chunk counts once, however many leases it has. */
class LeasedChunks<Chunk> {
  readonly chunks = new Map<Chunk, Map<number, Leased>>();
  bytes = 0;

  add({ chunk, group, bytes }: Hold<Chunk>): void {
    let groups = this.chunks.get(chunk);
    if (groups === undefined) this.chunks.set(chunk, (groups = new Map()));
    const known = groups.get(group);
    if (known === undefined) this.bytes += bytes;
    if (known === undefined) groups.set(group, { leases: 1, bytes });
    else known.leases += 1;
  }

  remove({ chunk, group }: Hold<Chunk>): void {
    const groups = this.chunks.get(chunk);
    const known = groups?.get(group);
    assert(groups !== undefined && known !== undefined, "a lease was counted that nobody held");
    known.leases -= 1;
    if (known.leases > 0) return;
    groups.delete(group);
    if (groups.size === 0) this.chunks.delete(chunk);
    this.bytes -= known.bytes;
  }

  /** What a chunk's groups, which are leased, would take beyond what is counted of them; undefined: all that is counted is of this chunk. */
  growth(chunk: Chunk, groups: readonly GroupBytes[]): number | undefined {
    const known = this.chunks.get(chunk);
    let ofChunk = 0;
    for (const { bytes } of known?.values() ?? []) ofChunk += bytes;
    if (this.bytes === ofChunk) return undefined;
    return groups.reduce((sum, { group, bytes }) => sum + Math.max(0, bytes - (known?.get(group)?.bytes ?? bytes)), 0);
  }

  grow(chunk: Chunk, groups: readonly GroupBytes[]): void {
    for (const { group, bytes } of groups) {
      const known = this.chunks.get(chunk)?.get(group);
      if (known === undefined || known.bytes >= bytes) continue;
      this.bytes += bytes - known.bytes;
      known.bytes = bytes;
    }
  }

  /** What these groups would take beyond what is counted; undefined: nothing, or all that is counted is of this chunk too. */
  moreBytes(chunk: Chunk, groups: readonly GroupBytes[]): number | undefined {
    const known = this.chunks.get(chunk);
    let ofChunk = 0;
    for (const { bytes } of known?.values() ?? []) ofChunk += bytes;
    const added = groups.filter(({ group }) => known?.has(group) !== true);
    if (this.bytes === ofChunk || added.length === 0) return undefined;
    return added.reduce((sum, { bytes }) => sum + bytes, 0);
  }
}

class Held<Chunk> {
  /** The oldest first. */
  readonly leases = new Map<LeaseId, Lease<Chunk>>();
  readonly reading = new LeasedChunks<Chunk>();
  readonly writing = new LeasedChunks<Chunk>();
}

export class LeaseTable<Chunk> {
  /** Leases per chunk, of both kinds. */
  readonly #counts = new Map<Chunk, number>();
  readonly #writing = new LeasedChunks<Chunk>();
  readonly #held = new Map<HolderId, Held<Chunk>>();
  #lastId = 0;
  #size = 0;

  /** Leases held by all. */
  get size(): number {
    return this.#size;
  }

  /** Bytes of the pool that are being written: nobody else can have them, and nothing is stored there yet. */
  get reservedBytes(): number {
    return this.#writing.bytes;
  }

  /** Whether a holder may keep these groups of a chunk in place for reading: half of the pool at most, and one chunk always. */
  mayRead(holder: HolderId, chunk: Chunk, groups: readonly GroupBytes[], capacityBytes: number): boolean {
    const own = this.#held.get(holder)?.reading;
    const moreBytes = own?.moreBytes(chunk, groups);
    return own === undefined || moreBytes === undefined || own.bytes + moreBytes <= readShare * capacityBytes;
  }

  /**
   * The groups of a chunk that a holder reads are brought into the pool, and counted from now on.
   *
   * @returns false when it keeps as much already as {@link mayRead} allows: nothing is counted then
   */
  mayBring(holder: HolderId, chunk: Chunk, groups: readonly GroupBytes[], capacityBytes: number): boolean {
    const own = this.#held.get(holder)?.reading;
    const moreBytes = own?.growth(chunk, groups);
    if (own === undefined) return true;
    if (moreBytes !== undefined && moreBytes > 0 && own.bytes + moreBytes > readShare * capacityBytes) return false;
    own.grow(chunk, groups);
    return true;
  }

  /**
   * Whether a holder may reserve these groups of a chunk. All reservations together may take three quarters of the pool, and
   * those of a holder twice what is left of that: half of the pool when it is alone, and less the more others have reserved,
   * so that there is always something left for the next one. The same group's slots of other ranks are counted already.
   */
  mayWrite(holder: HolderId, chunk: Chunk, groups: readonly GroupBytes[], capacityBytes: number): boolean {
    const all = this.#writing;
    const moreBytes = all.moreBytes(chunk, groups);
    if (moreBytes === undefined) return true;
    const own = (this.#held.get(holder)?.writing.bytes ?? 0) + moreBytes;
    return own <= freeTimes * (writtenShare * capacityBytes - all.bytes - moreBytes);
  }

  /** Whether a chunk may be leased so is the caller's decision; the table keeps count. */
  acquire(holder: HolderId, lease: Lease<Chunk>): LeaseId {
    const id = (this.#lastId += 1) as LeaseId;
    let held = this.#held.get(holder);
    if (held === undefined) this.#held.set(holder, (held = new Held()));
    held.leases.set(id, lease);
    held[lease.kind].add(lease);
    if (lease.kind === "writing") this.#writing.add(lease);
    this.#counts.set(lease.chunk, this.leasesOf(lease.chunk) + 1);
    this.#size += 1;
    return id;
  }

  get(holder: HolderId, id: LeaseId): Lease<Chunk> | undefined {
    return this.#held.get(holder)?.leases.get(id);
  }

  /** Gives one lease back. @returns what it was, or undefined when the holder does not hold it (any more). */
  release(holder: HolderId, id: LeaseId): Lease<Chunk> | undefined {
    const held = this.#held.get(holder);
    const lease = held?.leases.get(id);
    if (held === undefined || lease === undefined) return undefined;
    held.leases.delete(id);
    held[lease.kind].remove(lease);
    if (held.leases.size === 0) this.#held.delete(holder);
    this.#forget(lease);
    return lease;
  }

  /** What a session holds, the oldest first. */
  idsOf(holder: HolderId): readonly LeaseId[] {
    return [...(this.#held.get(holder)?.leases.keys() ?? [])];
  }

  heldBy(holder: HolderId): number {
    return this.#held.get(holder)?.leases.size ?? 0;
  }

  /** When the oldest lease that a holder still has was taken. */
  oldest(holder: HolderId): number | undefined {
    for (const { since } of this.#held.get(holder)?.leases.values() ?? []) return since;
    return undefined;
  }

  leasesOf(chunk: Chunk): number {
    return this.#counts.get(chunk) ?? 0;
  }

  /** Every lease, for checks. */
  *all(): Iterable<Lease<Chunk>> {
    for (const { leases } of this.#held.values()) yield* leases.values();
  }

  /** Asserts that what is counted is what is held. */
  check(): void {
    for (const { leases, reading, writing } of this.#held.values()) {
      checkCounts(reading, leases.values(), "reading");
      checkCounts(writing, leases.values(), "writing");
    }
    checkCounts(this.#writing, this.all(), "writing");
    const counts = countOf(this.all());
    assert(counts.size === this.#counts.size, "chunks counted and chunks leased differ");
    let size = 0;
    for (const [chunk, count] of counts) {
      assert(this.#counts.get(chunk) === count, `a chunk has ${count} leases and counts ${this.#counts.get(chunk)}`);
      size += count;
    }
    assert(size === this.#size, "leases counted and leases held differ");
  }

  #forget(lease: Lease<Chunk>): void {
    const { kind, chunk } = lease;
    if (kind === "writing") this.#writing.remove(lease);
    const left = this.leasesOf(chunk) - 1;
    assert(left >= 0, "a lease was counted that nobody held");
    if (left === 0) this.#counts.delete(chunk);
    else this.#counts.set(chunk, left);
    this.#size -= 1;
  }
}

function checkCounts<Chunk>(
  counted: LeasedChunks<Chunk>,
  leases: Iterable<Lease<Chunk>>,
  of: Lease<Chunk>["kind"],
): void {
  const held = new LeasedChunks<Chunk>();
  for (const lease of leases) if (lease.kind === of) held.add(lease);
  assert(held.chunks.size === counted.chunks.size, "chunks counted and chunks leased for one purpose differ");
  let bytes = 0;
  for (const [chunk, groups] of counted.chunks) {
    assert(groups.size === held.chunks.get(chunk)?.size, "groups counted and groups leased for one purpose differ");
    for (const [group, known] of groups) {
      const leasesHeld = held.chunks.get(chunk)?.get(group)?.leases;
      assert(leasesHeld === known.leases, `a chunk's leases for ${of} are miscounted`);
      bytes += known.bytes;
    }
  }
  assert(bytes === counted.bytes, "bytes counted and bytes leased differ");
}

function countOf<Chunk>(leases: Iterable<Lease<Chunk>>): Map<Chunk, number> {
  const counts = new Map<Chunk, number>();
  for (const { chunk } of leases) counts.set(chunk, (counts.get(chunk) ?? 0) + 1);
  return counts;
}
