/**
 * What the cache needs of the memory pool. `src/tiers/memory.ts` is the real one; the cache itself knows no files.
 *
 * The pool outlives a process that is killed: what was kept in it by {@link SlotPool.keep} is found by the next owner in
 * {@link SlotPool.surviving}. Slots of the dead process stay as they are, in use and nobody's, until they are claimed or
 * given up, since its guests may still be copying.
 *
 *     free ──allocate──► reserved ──keep──► kept       free() from both, and then nothing is left to find
 */
import type { ChunkRecord } from "../../tier.ts";
import type { SpaceDescription } from "../../identity/space.ts";

/** Pool slots: places of a given size, handed out and taken back. */
export interface SlotPool extends AsyncDisposable {
  readonly path: string;
  /** What guests map: more than the capacity, so that it can grow. */
  readonly bytes: number;
  /** The largest slot there can be. */
  readonly maxSlotBytes: number;

  /**
   * A free slot of at least `slotBytes`, or `"full"`: the size class has no free slot and no extent is free for it (or
   * the file system behind the pool has no room). With room for a note of `noteTokens` tokens beside it.
   */
  allocate(slotBytes: number, noteTokens: number): number | "full";

  /** Takes a slot back. */
  free(offset: number): void;

  /** The slot's memory. */
  view(offset: number, bytes: number): Uint8Array;

  /** Offsets of the slots in use that share an extent with `offset`: what must go for another size class to have it. */
  neighbours(offset: number): readonly number[];

  /** True when both sizes are served by the same size class. */
  sameClass(slotBytes: number, offset: number): boolean;

  /** Notes what the slot holds, for the next owner: the bytes are written and will not change. */
  keep(offset: number, note: SlotNote, space: SpaceDescription): void;

  /** Notes the checksum of what a kept slot holds; {@link isIntact} compares it. */
  seal(offset: number, checksum: bigint): void;

  /** The checksum that was noted of a kept slot. */
  sealOf(offset: number): bigint | undefined;

  /** Slots that a dead process kept and nobody has claimed. */
  surviving(): Iterable<KeptSlot>;

  /** False when the slot was sealed and its bytes do not match. */
  isIntact(offset: number, bytes: number): Promise<boolean>;

  /** A slot left behind is the caller's from now on. */
  claim(offset: number): void;

  /** Frees what is left behind and unclaimed, half-written slots included. */
  freeUnclaimed(): void;

  /**
   * Moves the capacity, in whole extents and at most to {@link bytes}. Growing is done at once. Shrinking gives the
   * pages of free extents back at once, and those of the extents of least `worth` when their last slot is freed: until
   * then nothing new is put there ({@link leavingSlots}).
   */
  resize(capacityBytes: number, worth: (slots: readonly number[]) => number): void;

  /** Offsets of the slots in use in extents that are to go. */
  leavingSlots(): readonly number[];

  stats(): PoolStats;

  /** Asserts that free + used = total for every extent. */
  check(): void;
}

/** One part's payload of one chunk, as the next owner finds it. */
export interface SlotNote extends Omit<ChunkRecord, "payloadBytes"> {
  readonly part: number;
  /** Parts that a chunk of the space has. */
  readonly parts: number;
  /** Of this part. */
  readonly payloadBytes: number;
  /** The size that the slot was asked for with. */
  readonly slotBytes: number;
}

export interface KeptSlot {
  readonly offset: number;
  readonly note: SlotNote;
  readonly description: SpaceDescription;
}

export interface PoolStats {
  readonly capacityBytes: number;
  /** What the capacity can grow to while this process lives. */
  readonly maximumBytes: number;
  /** Of the capacity: bytes that go as soon as nobody uses them any more. */
  readonly leavingBytes: number;
  /** Bytes of slots in use. */
  readonly usedBytes: number;
  readonly usedSlots: number;
  /** Of these, slots of a dead process that nobody has claimed. */
  readonly unclaimedSlots: number;
  /** Bytes of the file that have pages behind them. */
  readonly allocatedBytes: number;
  /** How huge pages come: `"no"`, `"hugetlbfs"`, or the mount's option, such as `"within_size"`. */
  readonly hugePages: string;
}
