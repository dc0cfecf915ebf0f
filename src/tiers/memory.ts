/**
 * The memory pool: one file in /dev/shm that the cache process and its guests map.
 *
 * The pool is cut into extents of 64 MiB. An extent belongs to one size class at a time (slots of one size, a multiple of
 * 4 KiB) and goes back when its last slot is freed, so classes cannot fragment each other. Pages are allocated before a
 * slot of theirs is handed out: a full /dev/shm is the answer "full", never a SIGBUS in somebody's memcpy.
 *
 *     extent   │ slot │ slot │ slot │ … │ rest │
 *              └── pages allocated ──┘ ...grows by 4 MiB or a slot, whichever is more (4 MiB take about 1 ms)
 *
 * The file is named after its owner, locked by it, and removed at the next start if the owner died.
 */
import { randomBytes } from "node:crypto";
import {
  closeSync,
  existsSync,
  fstatSync,
  ftruncateSync,
  openSync,
  readdirSync,
  rmSync,
  statfsSync,
  statSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { PoolStats, SlotPool } from "../cache/slot-pool.ts";
import { assert, codeOf, RepriseError } from "../errors.ts";
import { extentBytes, PoolMapping } from "../ffi/pool-mapping.ts";
import { allocate, tryLock } from "../ffi/posix.ts";

const pageBytes = 4096;
const growBytes = 4 * 1024 * 1024;

export interface MemoryPoolOptions {
  /** Names the pool's file; the data directory's or the test's name. Letters, digits and dashes. */
  readonly id: string;
  /** Rounded down to whole extents, but at least one. */
  readonly capacityBytes: number;
  /** Where the file lies; /dev/shm, or the temp folder where that does not exist. */
  readonly directory?: string;
}

interface Extent {
  readonly index: number;
  readonly slotBytes: number;
  readonly slots: number;
  readonly free: number[];
  readonly used: Set<number>;
}

export class MemoryPool implements SlotPool {
  readonly path: string;
  readonly bytes: number;
  readonly maxSlotBytes = extentBytes;
  readonly #file: number;
  readonly #mapping: PoolMapping;
  readonly #extents: (Extent | undefined)[];
  /** Bytes from each extent's start that have pages. They stay when the extent changes its class. */
  readonly #allocated: number[];
  readonly #freeExtents: number[] = [];
  /** Extents with a free slot, by slot size. */
  readonly #roomy = new Map<number, Set<Extent>>();
  #usedBytes = 0;
  #usedSlots = 0;
  #closed = false;

  private constructor(path: string, file: number, bytes: number) {
    this.path = path;
    this.bytes = bytes;
    this.#file = file;
    this.#mapping = PoolMapping.ofFile(file, path, bytes);
    const count = bytes / extentBytes;
    this.#extents = Array.from({ length: count }, () => undefined);
    this.#allocated = Array.from({ length: count }, () => 0);
    for (let index = count - 1; index >= 0; index -= 1) this.#freeExtents.push(index);
  }

  /** Where pools lie on this machine, and the room there is, when those of dead owners are gone. */
  static place(): { readonly directory: string; readonly freeBytes: number } {
    const directory = sharedMemoryDirectory();
    removeStale(directory, filePrefix());
    const { bavail, bsize } = statfsSync(directory);
    return { directory, freeBytes: bavail * bsize };
  }

  /** Makes the pool's file, 0600, and removes those of dead owners. @throws the file system's errors. */
  static open(options: MemoryPoolOptions): MemoryPool {
    assert(/^[\w-]+$/.test(options.id), "a pool's id has letters, digits and dashes");
    const directory = options.directory ?? sharedMemoryDirectory();
    removeStale(directory, filePrefix());
    const bytes = Math.max(1, Math.floor(options.capacityBytes / extentBytes)) * extentBytes;
    for (;;) {
      const path = join(directory, `${filePrefix()}${options.id}-${randomBytes(6).toString("hex")}.pool`);
      const file = openSync(path, "wx+", 0o600);
      // Between these two lines another start may take the file for a dead one's and remove it: then make another.
      if (tryLock(file) === "locked" && isAt(path, file)) {
        ftruncateSync(file, bytes);
        return new MemoryPool(path, file, bytes);
      }
      closeSync(file);
    }
  }

  allocate(slotBytes: number): number | "full" {
    assert(!this.#closed, "a closed pool was used");
    const size = roundedSlot(slotBytes);
    if (size > this.maxSlotBytes)
      throw new RepriseError(
        "BAD_REQUEST",
        `a slot of ${slotBytes} bytes is larger than ${extentBytes}: use fewer tokens per chunk`,
      );
    const extent = this.#roomyExtent(size);
    if (extent === undefined) return "full";
    const slot = extent.free.at(-1)!; // a roomy extent has a free slot
    const end = (slot + 1) * size;
    if (!this.#grow(extent.index, end)) {
      if (extent.used.size === 0) this.#giveBack(extent);
      return "full";
    }
    extent.free.pop();
    if (extent.free.length === 0) this.#roomy.get(size)!.delete(extent); // it was among them
    const offset = extent.index * extentBytes + slot * size;
    extent.used.add(offset);
    this.#usedBytes += size;
    this.#usedSlots += 1;
    return offset;
  }

  free(offset: number): void {
    const extent = this.#extentAt(offset);
    assert(extent.used.delete(offset), `slot ${offset} was freed twice`);
    extent.free.push((offset % extentBytes) / extent.slotBytes);
    this.#usedBytes -= extent.slotBytes;
    this.#usedSlots -= 1;
    if (extent.used.size === 0) this.#giveBack(extent);
    else this.#roomySet(extent.slotBytes).add(extent);
  }

  view(offset: number, bytes: number): Uint8Array {
    return this.#mapping.slot(offset, bytes);
  }

  neighbours(offset: number): readonly number[] {
    return [...this.#extentAt(offset).used];
  }

  sameClass(slotBytes: number, offset: number): boolean {
    return this.#extentAt(offset).slotBytes === roundedSlot(slotBytes);
  }

  stats(): PoolStats {
    return {
      capacityBytes: this.bytes,
      usedBytes: this.#usedBytes,
      usedSlots: this.#usedSlots,
      allocatedBytes: this.#allocated.reduce((sum, bytes) => sum + bytes, 0),
    };
  }

  check(): void {
    let used = 0;
    let free = this.#freeExtents.length;
    for (const [index, extent] of this.#extents.entries()) {
      if (extent === undefined) continue;
      assert(!this.#freeExtents.includes(index), `extent ${index} is free and used`);
      assert(extent.free.length + extent.used.size === extent.slots, `extent ${index}: free + used is not its slots`);
      assert(new Set(extent.free).size === extent.free.length, `extent ${index}: a slot is free twice`);
      const roomy = this.#roomy.get(extent.slotBytes)?.has(extent) ?? false;
      assert(roomy === extent.free.length > 0, `extent ${index}: its room is not known`);
      used += extent.used.size;
      free += 1;
    }
    assert(used === this.#usedSlots, "slots counted and slots used differ");
    assert(free === this.#extents.length, "extents free and extents used are not all");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#mapping.close();
    // Unlinked, never truncated: a guest that still maps it reads old bytes, not a SIGBUS.
    rmSync(this.path, { force: true });
    closeSync(this.#file);
  }

  #roomyExtent(size: number): Extent | undefined {
    const [known] = this.#roomySet(size);
    if (known !== undefined) return known;
    const index = this.#freeExtents.pop();
    if (index === undefined) return undefined;
    const slots = Math.floor(Math.min(extentBytes, this.bytes) / size);
    const free = Array.from({ length: slots }, (_, slot) => slots - 1 - slot);
    const extent: Extent = { index, slotBytes: size, slots, free, used: new Set() };
    this.#extents[index] = extent;
    this.#roomySet(size).add(extent);
    return extent;
  }

  #roomySet(size: number): Set<Extent> {
    let set = this.#roomy.get(size);
    if (set === undefined) this.#roomy.set(size, (set = new Set()));
    return set;
  }

  #giveBack(extent: Extent): void {
    this.#roomySet(extent.slotBytes).delete(extent);
    if (this.#roomySet(extent.slotBytes).size === 0) this.#roomy.delete(extent.slotBytes);
    this.#extents[extent.index] = undefined;
    this.#freeExtents.push(extent.index);
  }

  /** Gives the first `end` bytes of an extent their pages. */
  #grow(index: number, end: number): boolean {
    const have = this.#allocated[index]!; // one per extent
    if (end <= have) return true;
    const wanted = Math.min(extentBytes, Math.max(end, have + growBytes));
    for (const upTo of wanted === end ? [end] : [wanted, end]) {
      if (allocate(this.#file, index * extentBytes + have, upTo - have) === "full") continue;
      this.#allocated[index] = upTo;
      return true;
    }
    return false;
  }

  #extentAt(offset: number): Extent {
    const extent = this.#extents[Math.floor(offset / extentBytes)];
    assert(extent !== undefined && extent.used.has(offset), `no slot is in use at ${offset}`);
    return extent;
  }
}

function roundedSlot(slotBytes: number): number {
  return Math.max(pageBytes, Math.ceil(slotBytes / pageBytes) * pageBytes);
}

/** Users do not touch each other's pools. */
function filePrefix(): string {
  return `reprise-${process.getuid?.() ?? 0}-`;
}

function sharedMemoryDirectory(): string {
  return existsSync("/dev/shm") ? "/dev/shm" : tmpdir();
}

/** Removes pools whose owner no longer holds their lock. */
function removeStale(directory: string, prefix: string): void {
  for (const name of readdirSync(directory)) {
    if (!name.startsWith(prefix) || !name.endsWith(".pool")) continue;
    const path = join(directory, name);
    let file: number | undefined;
    try {
      file = openSync(path, "r+");
      if (tryLock(file) === "locked") rmSync(path, { force: true });
    } catch (error) {
      // Removed by another start in the meantime, or not ours to open: either way nothing to clean.
      if (codeOf(error) !== "ENOENT" && codeOf(error) !== "EACCES") throw error;
    } finally {
      if (file !== undefined) closeSync(file);
    }
  }
}

function isAt(path: string, file: number): boolean {
  try {
    return statSync(path).ino === fstatSync(file).ino;
  } catch (error) {
    if (codeOf(error) === "ENOENT") return false;
    throw error;
  }
}
