/**
 * What the cache needs of the memory pool. `src/tiers/memory.ts` is the real one; the cache itself knows no files.
 */

/** Pool slots: places of a given size, handed out and taken back. */
export interface SlotPool extends AsyncDisposable {
  readonly path: string;
  readonly bytes: number;
  /** The largest slot there can be. */
  readonly maxSlotBytes: number;

  /**
   * A free slot of at least `slotBytes`, or `"full"`: the size class has no free slot and no extent is free for it (or
   * the file system behind the pool has no room).
   */
  allocate(slotBytes: number): number | "full";

  /** Takes a slot back. */
  free(offset: number): void;

  /** The slot's memory. */
  view(offset: number, bytes: number): Uint8Array;

  /** Offsets of the slots in use that share an extent with `offset`: what must go for another size class to have it. */
  neighbours(offset: number): readonly number[];

  /** True when both sizes are served by the same size class. */
  sameClass(slotBytes: number, offset: number): boolean;

  stats(): PoolStats;

  /** Asserts that free + used = total for every extent. */
  check(): void;
}

export interface PoolStats {
  readonly capacityBytes: number;
  /** Bytes of slots in use. */
  readonly usedBytes: number;
  readonly usedSlots: number;
  /** Bytes of the file that have pages behind them. */
  readonly allocatedBytes: number;
}
