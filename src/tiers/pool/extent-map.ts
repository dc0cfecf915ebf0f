/**
 * Which extents of the pool are in use, free, or out of its capacity, and in which of them there is a slot to give.
 *
 *     out ──capacity grows──► free ──a class opens it──► in use ──last slot freed──► free
 *      ▲                       │                           │
 *      └──capacity shrinks─────┘       leaving: gives no slots any more, and goes out when its last one is freed
 *
 * It decides nothing about memory: whoever owns the pages hears what goes out.
 */
import { assert } from "../../errors.ts";
import { extentBytes } from "../../ffi/pool-mapping.ts";
import type { SlotNotes } from "./slot-notes.ts";

/** An extent in use: cut into slots of one size. */
export interface Extent {
  readonly index: number;
  readonly slotBytes: number;
  readonly slots: number;
  /** Slot numbers; the last is given first. */
  readonly free: number[];
  /** Offsets in the pool. */
  readonly used: Set<number>;
  readonly notes: SlotNotes;
}

/** The number of a slot within its extent. */
export function slotAt(extent: Extent, offset: number): number {
  return (offset % extentBytes) / extent.slotBytes;
}

export class ExtentMap {
  readonly #inUse: (Extent | undefined)[];
  /** The last is taken first; those with pages stand there. */
  readonly #free: number[] = [];
  /** Not part of the capacity. */
  readonly #out: number[] = [];
  readonly #leaving = new Set<Extent>();
  /** Extents with a free slot to give, by slot size. */
  readonly #roomy = new Map<number, Set<Extent>>();
  readonly #onOut: (index: number) => void;
  /** Extents that the capacity is to have, in the end. */
  #wanted: number;

  /** `onOut`: the extent is not part of the capacity any more. */
  constructor(options: { count: number; wanted: number; onOut: (index: number) => void }) {
    this.#inUse = Array.from({ length: options.count }, () => undefined);
    this.#wanted = options.wanted;
    this.#onOut = options.onOut;
  }

  /** Extents of the capacity. */
  get capacity(): number {
    return this.#inUse.length - this.#out.length;
  }

  /** Extents that the capacity has too many. */
  get excess(): number {
    return Math.max(0, this.capacity - this.#wanted);
  }

  at(index: number): Extent | undefined {
    return this.#inUse[index];
  }

  used(): Extent[] {
    return this.#inUse.filter((extent) => extent !== undefined);
  }

  leaving(): Iterable<Extent> {
    return this.#leaving;
  }

  /** The free extents that are taken next, the next one last. */
  ready(count: number): readonly number[] {
    return this.#free.slice(-count);
  }

  /** An extent in use that has a slot of this size to give. */
  withRoom(slotBytes: number): Extent | undefined {
    for (const extent of this.#roomy.get(slotBytes) ?? []) return extent;
    return undefined;
  }

  /** The extents that are not in use when a pool is opened, the one to be taken first in front: fills the capacity with them. */
  begin(indexes: readonly number[]): void {
    const free = Math.max(0, this.#wanted - this.used().length);
    this.#free.push(...indexes.slice(0, free).toReversed());
    for (const index of indexes.slice(free).toReversed()) this.#goOut(index);
    // More in use than wanted: they stay, until somebody who knows their worth resizes the pool.
    this.#wanted = this.capacity;
  }

  /** The extent is in use: it was the next free one, or a dead process left it so. */
  open(extent: Extent): void {
    if (this.#free.at(-1) === extent.index) this.#free.pop();
    this.#inUse[extent.index] = extent;
    this.slotsChanged(extent);
  }

  /** Slots of the extent were given or freed. */
  slotsChanged(extent: Extent): void {
    const { slotBytes } = extent;
    let roomy = this.#roomy.get(slotBytes);
    if (extent.free.length > 0 && !this.#leaving.has(extent)) {
      if (roomy === undefined) this.#roomy.set(slotBytes, (roomy = new Set()));
      roomy.add(extent);
    } else if (roomy?.delete(extent) === true && roomy.size === 0) this.#roomy.delete(slotBytes);
  }

  /** The extent has no slot in use any more: it is free, or goes out. */
  close(extent: Extent): void {
    assert(extent.used.size === 0, "an extent in use was closed");
    this.#inUse[extent.index] = undefined;
    this.#leaving.add(extent); // gives nothing any more
    this.slotsChanged(extent);
    this.#leaving.delete(extent);
    if (this.excess === 0) {
      this.#free.push(extent.index);
      return;
    }
    this.#goOut(extent.index);
    // Another one became empty first: one of those that were to go may stay.
    const [spared] = this.#leaving;
    if (spared !== undefined && this.#leaving.size > this.excess) this.#stay(spared);
  }

  /** Moves the capacity: free extents go first, then those of least worth when they are empty. */
  resize(wanted: number, worth: (slots: readonly number[]) => number): void {
    this.#wanted = Math.min(wanted, this.#inUse.length);
    for (const extent of this.#leaving) this.#stay(extent);
    while (this.capacity < this.#wanted) this.#free.unshift(this.#out.pop()!); // at most all
    // From the front: those without pages first.
    while (this.excess > 0 && this.#free.length > 0) this.#goOut(this.#free.shift()!); // there is one
    const byWorth = this.used().map((extent) => ({ extent, worth: worth([...extent.used]) }));
    for (const { extent } of byWorth.sort((a, b) => a.worth - b.worth).slice(0, this.excess)) {
      this.#leaving.add(extent);
      this.slotsChanged(extent);
    }
  }

  /** Asserts that every extent is in one list, every slot free or used, and that room is known where it is. */
  check(): void {
    const used = this.used();
    for (const extent of used) {
      const { index, free, slots, notes } = extent;
      assert(!this.#free.includes(index), `extent ${index} is free and used`);
      assert(!this.#out.includes(index), `extent ${index} is out and used`);
      assert(free.length + extent.used.size === slots, `extent ${index}: free + used is not its slots`);
      assert(new Set(free).size === free.length, `extent ${index}: a slot is free twice`);
      for (const slot of free) assert(notes.isFree(slot), `extent ${index}: a free slot has a note`);
      for (const offset of extent.used)
        assert(!notes.isFree(slotAt(extent, offset)), `extent ${index}: a used slot has no note`);
      const roomy = this.#roomy.get(extent.slotBytes)?.has(extent) ?? false;
      assert(roomy === (free.length > 0 && !this.#leaving.has(extent)), `extent ${index}: its room is not known`);
    }
    const all = this.#free.length + this.#out.length + used.length;
    assert(all === this.#inUse.length, "extents free, used and out are not all");
    assert(this.#leaving.size === this.excess, "as many extents leave as the capacity has too many");
  }

  #stay(extent: Extent): void {
    this.#leaving.delete(extent);
    this.slotsChanged(extent);
  }

  #goOut(index: number): void {
    this.#out.push(index);
    this.#onOut(index);
  }
}
