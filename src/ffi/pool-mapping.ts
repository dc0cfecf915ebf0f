/**
 * A process's view of the memory pool: the pool's file, mapped.
 *
 * The cache process and every guest map the same file, so a payload moves once: engine memory ⇄ slot. A slot is handed
 * out as a Uint8Array (for fs calls and JavaScript) and as a pointer (for native calls); both end with {@link close}.
 *
 *     file   │ extent 0, 64 MiB │ extent 1 │ …          a slot never crosses an extent's border
 *     views  │ one ArrayBuffer  │ one      │ …          made when first touched: a Node buffer ends at 4 GiB, a pool does not
 */
import { closeSync, fstatSync } from "node:fs";
import { assert, RepriseError } from "../errors.ts";
import { openPrivateFile } from "../private-files.ts";
import { mapFile, memoryAt, unmap, wantHugePages, type Pointer } from "./posix.ts";

/** Slots are cut from extents of this size. */
export const extentBytes = 64 * 1024 * 1024;

export class PoolMapping {
  readonly path: string;
  readonly bytes: number;
  readonly #extents: (Uint8Array | undefined)[] = [];
  #pointer: Pointer | undefined;

  private constructor(path: string, bytes: number, pointer: Pointer) {
    this.path = path;
    this.bytes = bytes;
    this.#pointer = pointer;
  }

  /**
   * Maps the pool at `path`, which its owner made.
   *
   * @throws RepriseError CACHE_UNAVAILABLE when the file is gone (its owner ended), is another user's, or shorter than `bytes`.
   */
  static open(path: string, bytes: number): PoolMapping {
    const file = openPrivateFile(path, "write");
    if (typeof file !== "number")
      throw new RepriseError(
        "CACHE_UNAVAILABLE",
        file === "absent"
          ? `the memory pool ${path} is gone: its cache ended`
          : `the memory pool ${path} is not used: it ${file.foreign}`,
      );
    try {
      return PoolMapping.ofFile(file, path, bytes);
    } finally {
      closeSync(file);
    }
  }

  /** Maps an open file, which stays the caller's. */
  static ofFile(file: number, path: string, bytes: number): PoolMapping {
    if (fstatSync(file).size < bytes)
      throw new RepriseError(
        "CACHE_UNAVAILABLE",
        `the memory pool ${path} is shorter than the ${bytes} bytes announced`,
      );
    const pointer = mapFile(file, bytes);
    wantHugePages(pointer, bytes);
    return new PoolMapping(path, bytes, pointer);
  }

  /** The bytes of a slot, in place: what is written here is what the cache and every guest see. */
  slot(offset: number, bytes: number): Uint8Array {
    const index = Math.floor(offset / extentBytes);
    const start = index * extentBytes;
    this.#mustFit(offset, bytes);
    const extent = this.#extent(index);
    return extent.subarray(offset - start, offset - start + bytes);
  }

  /** All of the pool, extent by extent. */
  *extents(): Generator<Uint8Array> {
    for (let index = 0; index * extentBytes < this.bytes; index += 1) yield this.#extent(index);
  }

  /** The address of a slot, for native calls; they must not go past `bytes`. */
  pointer(offset: number, bytes: number): Pointer {
    this.#mustFit(offset, bytes);
    return this.#open() + BigInt(offset);
  }

  /** Ends the mapping. Views and pointers handed out before must not be touched again. */
  close(): void {
    if (this.#pointer === undefined) return;
    unmap(this.#pointer, this.bytes);
    this.#pointer = undefined;
    this.#extents.length = 0;
  }

  #extent(index: number): Uint8Array {
    const start = index * extentBytes;
    const pointer = this.#open() + BigInt(start);
    return (this.#extents[index] ??= new Uint8Array(memoryAt(pointer, Math.min(extentBytes, this.bytes - start))));
  }

  #open(): Pointer {
    assert(this.#pointer !== undefined, "a closed pool mapping was used");
    return this.#pointer;
  }

  #mustFit(offset: number, bytes: number): void {
    const inExtent = offset % extentBytes;
    const fits = offset >= 0 && bytes >= 0 && offset + bytes <= this.bytes && inExtent + bytes <= extentBytes;
    if (!fits) throw new RangeError(`slot at ${offset}, ${bytes} bytes, is not within the pool of ${this.bytes} bytes`);
  }
}
