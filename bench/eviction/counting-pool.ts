/** A pool of so many slots and no memory behind them: for replays in which nobody looks at the bytes. */
import { assert } from "../../src/errors.ts";
import type { PoolStats, SlotPool } from "../../src/cache/pool/slot-pool.ts";

export class CountingPool implements SlotPool {
  readonly path = "";
  readonly bytes: number;
  readonly maxSlotBytes = 2;
  readonly #free: number[] = [];
  #next = 0;

  constructor(slots: number) {
    this.bytes = slots;
  }

  allocate(_slotBytes: number): number | "full" {
    const free = this.#free.pop();
    if (free !== undefined) return free;
    if (this.#next === this.bytes) return "full";
    this.#next += 1;
    return this.#next - 1;
  }

  free(offset: number): void {
    this.#free.push(offset);
  }

  view(_offset: number, bytes: number): Uint8Array {
    return new Uint8Array(bytes);
  }

  neighbours(offset: number): readonly number[] {
    return [offset];
  }

  sameClass(): boolean {
    return true;
  }

  // Nothing outlives it.
  keep(): void {}

  seal(): void {}

  sealOf(): undefined {
    return undefined;
  }

  surviving(): readonly [] {
    return [];
  }

  isIntact(): Promise<boolean> {
    return Promise.resolve(true);
  }

  claim(): void {
    assert(false, "nothing was left behind");
  }

  freeUnclaimed(): void {}

  resize(capacityBytes: number): void {
    assert(capacityBytes === this.bytes, "this pool keeps its size");
  }

  leavingSlots(): readonly [] {
    return [];
  }

  stats(): PoolStats {
    const usedSlots = this.#next - this.#free.length;
    return {
      capacityBytes: this.bytes,
      maximumBytes: this.bytes,
      leavingBytes: 0,
      usedBytes: usedSlots,
      usedSlots,
      unclaimedSlots: 0,
      allocatedBytes: 0,
      hugePages: "no",
    };
  }

  check(): void {
    assert(this.#next <= this.bytes, "more slots were given than there are");
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}
