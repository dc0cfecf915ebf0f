/**
 * The memory pool: one file in /dev/shm that the cache process and its guests map.
 *
 * The pool is cut into extents of 64 MiB. An extent belongs to one size class at a time (slots of one size, a multiple of
 * 4 KiB) and goes back when its last slot is freed, so classes cannot fragment each other. Pages are allocated before a
 * slot of theirs is handed out: a full /dev/shm is the answer "full", never a SIGBUS in somebody's memcpy.
 *
 *     extent   │ slot │ slot │ slot │ … │ rest │
 *              └── pages allocated ──┘ ...ahead of need, or on the spot (pool/pool-memory.ts)
 *
 *              ┌──────────────resize──────────────┐
 *     out ◄────┴── free ◄──last slot freed── in use (a class) ◄── free        out: no pages, not part of the capacity
 *
 * The file is as long as the pool may ever grow, and sparse. The next process of the same data directory takes over that of one that
 * was killed: pool/pool-table.ts and pool/slot-notes.ts draw what it finds there.
 */
import { resolve } from "node:path";
import type { KeptSlot, PoolStats, SlotNote, SlotPool } from "../cache/pool/slot-pool.ts";
import type { SpaceDescription } from "../identity/space.ts";
import { assert, RepriseError } from "../errors.ts";
import { extentBytes, PoolMapping } from "../ffi/pool-mapping.ts";
import { silentLog, type Log } from "../log.ts";
import { payloadChecksum } from "./payload-checksum.ts";
import { ExtentMap, slotAt, type Extent } from "./pool/extent-map.ts";
import { HeldPool } from "./pool/held-pool.ts";
import { findRoom } from "./pool/leftovers.ts";
import { bootId, maximumBytes, sharedMemoryDirectory, type PoolRoom } from "./pool/pool-file.ts";
import { pagesOf, type PoolPages } from "./pool/pages.ts";
import { PoolMemory } from "./pool/pool-memory.ts";
import { encodeHeader, fileBytes, notesBytes, PoolTable, strideFor, tableBytes } from "./pool/pool-table.ts";
import { SlotNotes } from "./pool/slot-notes.ts";
import { padded, pageBytes } from "../pages.ts";

/** Free extents that have all their pages, where memory allows: what is saved within the next moments finds them there. */
const readyExtents = 4;

export interface MemoryPoolOptions {
  /** Whose chunks these are: the next process of the same data directory adopts the pool of one that was killed. */
  readonly dataDirectory?: string;
  /** Rounded down to whole extents, but at least one. */
  readonly capacityBytes: number;
  /** The most that {@link MemoryPool.resize} may be asked for; the capacity unless given. */
  readonly maximumBytes?: number;
  /** Where the file lies; /dev/shm, or the temp folder where that does not exist. */
  readonly directory?: string;
  readonly log?: Log;
}

/** Where a pool would lie, and the room there is for it. */
export interface PoolPlace extends PoolRoom {
  readonly pages: PoolPages;
  /** The most that a pool there can be asked to grow to. */
  readonly maximumBytes: number;
}

export class MemoryPool implements SlotPool {
  readonly path: string;
  readonly bytes: number;
  readonly maxSlotBytes = extentBytes;
  /** What the memory behind the pool is made of. */
  readonly pages: PoolPages;
  /** Resolves when what dead processes left in shared memory is gone. */
  readonly swept: Promise<void>;
  readonly #held: HeldPool;
  readonly #mapping: PoolMapping;
  readonly #table: PoolTable;
  readonly #memory: PoolMemory;
  readonly #extents: ExtentMap;
  /** In use, and without pages at their end. */
  readonly #unfinished = new Set<Extent>();
  /** Left by a dead process. */
  readonly #unclaimed = new Set<number>();
  #usedBytes = 0;
  #usedSlots = 0;
  #closed = false;

  private constructor(options: { held: HeldPool; capacityBytes: number; pages: PoolPages; log: Log }) {
    const { held, log } = options;
    this.path = held.path;
    this.bytes = held.bytes;
    this.pages = options.pages;
    this.swept = held.swept;
    this.#held = held;
    this.#mapping = PoolMapping.ofFile(held.file, held.path, fileBytes(held.bytes));
    this.#table = new PoolTable(this.#bufferAt(fileBytes(held.bytes) - tableBytes, tableBytes));
    this.#extents = new ExtentMap({
      count: held.bytes / extentBytes,
      wanted: wholeExtents(options.capacityBytes),
      onOut: (index) => this.#memory.giveUp(index),
    });
    this.#memory = new PoolMemory({
      file: held.file,
      bytes: held.bytes,
      pageBytes: options.pages.bytes,
      log,
      next: () => this.#nextToPopulate(),
      onChange: (index) => this.#changed(index),
    });
  }

  /**
   * The room for a pool on this machine. Where it is not enough, pools without an owner go.
   */
  static async place(options: { dataDirectory: string; wantedBytes: number; directory?: string }): Promise<PoolPlace> {
    const { directory = sharedMemoryDirectory(), wantedBytes, dataDirectory } = options;
    const place = await findRoom({ directory, dataDirectory, wantedBytes });
    const pages = pagesOf(directory);
    return { ...place, pages, maximumBytes: pages.areReserved ? wantedBytes : maximumBytes(place, wantedBytes) };
  }

  /**
   * Adopts the pool that a killed process of the same data directory left, or makes one, 0600; meanwhile those of dead owners
   * that nobody can adopt are removed. After an adoption the capacity may be larger than asked for: {@link resize} moves it.
   *
   * @throws the file system's errors; RepriseError NOT_ENOUGH_MEMORY when not even the table fits.
   */
  static open(options: MemoryPoolOptions): MemoryPool {
    const { log = silentLog, directory = sharedMemoryDirectory() } = options;
    const dataDirectory = options.dataDirectory === undefined ? "" : resolve(options.dataDirectory);
    const pages = pagesOf(directory);
    const leastBytes = wholeExtents(options.capacityBytes) * extentBytes;
    const mostBytes = Math.max(leastBytes, wholeExtents(options.maximumBytes ?? leastBytes) * extentBytes);
    const held = HeldPool.take({ dataDirectory, directory, leastBytes, mostBytes, log });
    try {
      const pool = new MemoryPool({ held, capacityBytes: leastBytes, pages, log });
      pool
        .#bufferAt(fileBytes(held.bytes) - tableBytes, tableBytes)
        .set(encodeHeader({ bytes: held.bytes, bootId: bootId(), dataDirectory }));
      pool.#takeStock();
      return pool;
    } catch (error) {
      held.remove();
      throw error;
    }
  }

  allocate(slotBytes: number, noteTokens = 0): number | "full" {
    assert(!this.#closed, "a closed pool was used");
    const size = roundedSlot(slotBytes);
    if (size > this.maxSlotBytes)
      throw new RepriseError(
        "BAD_REQUEST",
        `a slot of ${slotBytes} bytes is larger than ${extentBytes}: use fewer tokens per chunk`,
      );
    const extent = this.#roomyExtent(size, noteTokens);
    if (extent === undefined) return "full";
    const slot = extent.free.at(-1)!; // a roomy extent has a free slot
    const end = (slot + 1) * size;
    if (!this.#memory.grow(extent.index, end)) {
      if (extent.used.size === 0) this.#close(extent);
      return "full";
    }
    extent.free.pop();
    if (extent.free.length === 0) this.#extents.slotsChanged(extent);
    extent.notes.reserve(slot);
    const offset = extent.index * extentBytes + slot * size;
    extent.used.add(offset);
    this.#usedBytes += size;
    this.#usedSlots += 1;
    return offset;
  }

  free(offset: number): void {
    const extent = this.#extentAt(offset);
    assert(extent.used.delete(offset), `slot ${offset} was freed twice`);
    const slot = slotAt(extent, offset);
    extent.notes.free(slot);
    extent.free.push(slot);
    this.#usedBytes -= extent.slotBytes;
    this.#usedSlots -= 1;
    if (extent.used.size === 0) this.#close(extent);
    else if (extent.free.length === 1) this.#extents.slotsChanged(extent);
  }

  view(offset: number, bytes: number): Uint8Array {
    return this.#mapping.slot(offset, bytes);
  }

  neighbours(offset: number): readonly number[] {
    return [...this.#extentAt(offset).used].filter((slot) => !this.#unclaimed.has(slot));
  }

  sameClass(slotBytes: number, offset: number): boolean {
    return this.#extentAt(offset).slotBytes === roundedSlot(slotBytes);
  }

  keep(offset: number, note: SlotNote, space: SpaceDescription): void {
    const extent = this.#extentAt(offset);
    if (this.#table.addSpace(note.space, space)) extent.notes.keep(slotAt(extent, offset), offset, note);
  }

  seal(offset: number, checksum: bigint): void {
    const extent = this.#extentAt(offset);
    extent.notes.seal(slotAt(extent, offset), checksum);
  }

  sealOf(offset: number): bigint | undefined {
    const extent = this.#extentAt(offset);
    return extent.notes.sealOf(slotAt(extent, offset));
  }

  *surviving(): Iterable<KeptSlot> {
    for (const offset of this.#unclaimed) {
      const extent = this.#extentAt(offset);
      const note = extent.notes.read(slotAt(extent, offset), offset);
      const description = note === undefined ? undefined : this.#table.space(note.space);
      if (note !== undefined && description !== undefined) yield { offset, note, description };
    }
  }

  async isIntact(offset: number, bytes: number): Promise<boolean> {
    const seal = this.sealOf(offset);
    return seal === undefined || (await payloadChecksum(this.view(offset, bytes))) === seal;
  }

  claim(offset: number): void {
    assert(this.#unclaimed.delete(offset), `slot ${offset} was not left behind`);
  }

  freeUnclaimed(): void {
    for (const offset of this.#unclaimed) {
      this.#unclaimed.delete(offset);
      this.free(offset);
    }
  }

  resize(capacityBytes: number, worth: (slots: readonly number[]) => number): void {
    assert(!this.#closed, "a closed pool was used"); // its file's number may be another's
    this.#extents.resize(wholeExtents(capacityBytes), worth);
    this.#memory.populate();
  }

  leavingSlots(): readonly number[] {
    return [...this.#extents.leaving()].flatMap((extent) => [...extent.used]);
  }

  stats(): PoolStats {
    return {
      capacityBytes: this.#extents.capacity * extentBytes,
      maximumBytes: this.bytes,
      leavingBytes: this.#extents.excess * extentBytes,
      usedBytes: this.#usedBytes,
      usedSlots: this.#usedSlots,
      unclaimedSlots: this.#unclaimed.size,
      allocatedBytes: this.#memory.allocatedBytes,
      hugePages: this.pages.huge,
    };
  }

  check(): void {
    this.#extents.check();
    const used = this.#extents.used().reduce((sum, extent) => sum + extent.used.size, 0);
    assert(used === this.#usedSlots, "slots counted and slots used differ");
  }

  /** Ends the pool and removes its file: whoever wants the next process to find something does not come here. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#held.endSweep();
    await this.#memory.close();
    this.#mapping.close();
    this.#held.remove();
  }

  /** Fills the lists from what the file says: nothing, when it is new. */
  #takeStock(): void {
    const rest: number[] = [];
    for (let index = 0; index < this.bytes / extentBytes; index += 1) {
      const entry = this.#table.extent(index);
      if (entry === "damaged") {
        if (!this.#useAll(index)) rest.push(index);
      } else {
        this.#memory.found(index, entry.allocatedBytes);
        if (entry.slotBytes === 0 || !this.#useAgain(index, entry.slotBytes, entry.noteBytes)) rest.push(index);
      }
    }
    // Those with the most pages are free and are taken first; of the others, those at the front.
    rest.sort((a, b) => this.#memory.allocated(b) - this.#memory.allocated(a) || a - b);
    this.#extents.begin(rest);
    this.#memory.populate();
  }

  /** An extent as a dead process had it. @returns false when nothing in it is in use. */
  #useAgain(index: number, slotBytes: number, stride: number): boolean {
    const extent = this.#makeExtent(index, slotBytes, stride);
    for (let slot = extent.slots - 1; slot >= 0; slot -= 1) {
      if (extent.notes.isFree(slot)) extent.free.push(slot);
      else this.#leave(extent, slot);
    }
    if (extent.used.size === 0) {
      this.#writeEntry(index);
      return false;
    }
    this.#open(extent);
    return true;
  }

  /**
   * Nothing is known of the extent, so all of it is in use until the dead process's guests have left it.
   *
   * @returns false when not even that can be written
   */
  #useAll(index: number): boolean {
    if (!this.#memory.growNotes(index, 1)) return false;
    const extent = this.#makeExtent(index, extentBytes, strideFor(extentBytes, 0));
    extent.notes.clear();
    extent.notes.reserve(0);
    this.#leave(extent, 0);
    this.#open(extent);
    return true;
  }

  #leave(extent: Extent, slot: number): void {
    const offset = extent.index * extentBytes + slot * extent.slotBytes;
    extent.used.add(offset);
    this.#unclaimed.add(offset);
    this.#usedBytes += extent.slotBytes;
    this.#usedSlots += 1;
  }

  #roomyExtent(size: number, noteTokens: number): Extent | undefined {
    const known = this.#extents.withRoom(size);
    if (known !== undefined) return known;
    const [index] = this.#extents.ready(1);
    if (index === undefined) return undefined;
    const stride = strideFor(size, noteTokens);
    const extent = this.#makeExtent(index, size, stride);
    if (!this.#memory.growNotes(index, extent.slots * stride)) return undefined;
    extent.notes.clear();
    for (let slot = extent.slots - 1; slot >= 0; slot -= 1) extent.free.push(slot);
    this.#open(extent);
    this.#memory.populate();
    return extent;
  }

  #makeExtent(index: number, slotBytes: number, stride: number): Extent {
    const slots = Math.floor(extentBytes / slotBytes);
    const notes = new SlotNotes(this.#bufferAt(this.#notesAt(index), slots * stride), stride);
    return { index, slotBytes, slots, free: [], used: new Set(), notes };
  }

  #open(extent: Extent): void {
    this.#extents.open(extent);
    this.#writeEntry(extent.index);
    if (!this.#memory.isWhole(extent.index)) this.#unfinished.add(extent);
  }

  #close(extent: Extent): void {
    this.#unfinished.delete(extent);
    this.#extents.close(extent);
    this.#writeEntry(extent.index);
  }

  /** What is in use comes first, then the free extents that are taken next. */
  #nextToPopulate(): number | undefined {
    const [extent] = this.#unfinished;
    return extent?.index ?? this.#extents.ready(readyExtents).findLast((index) => !this.#memory.isWhole(index));
  }

  /** The pages of an extent have come or gone. */
  #changed(index: number): void {
    const extent = this.#extents.at(index);
    if (extent !== undefined && this.#memory.isWhole(index)) this.#unfinished.delete(extent);
    this.#writeEntry(index);
  }

  #writeEntry(index: number): void {
    const extent = this.#extents.at(index);
    const [slotBytes, noteBytes] = [extent?.slotBytes ?? 0, extent?.notes.stride ?? 0];
    this.#table.writeExtent(index, { slotBytes, noteBytes, allocatedBytes: this.#memory.allocated(index) });
  }

  #extentAt(offset: number): Extent {
    assert(!this.#closed, "a closed pool was used"); // its notes are mapped no more
    const extent = this.#extents.at(Math.floor(offset / extentBytes));
    assert(extent !== undefined && extent.used.has(offset), `no slot is in use at ${offset}`);
    return extent;
  }

  #notesAt(index: number): number {
    return this.bytes + index * notesBytes;
  }

  #bufferAt(offset: number, bytes: number): Buffer {
    const { buffer, byteOffset } = this.#mapping.slot(offset, bytes);
    return Buffer.from(buffer, byteOffset, bytes);
  }
}

function wholeExtents(bytes: number): number {
  return Math.max(1, Math.floor(bytes / extentBytes));
}

function roundedSlot(slotBytes: number): number {
  return Math.max(pageBytes, padded(slotBytes));
}
