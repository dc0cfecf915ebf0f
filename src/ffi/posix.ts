/**
 * The few POSIX calls that Node lacks: mapping a file, locking it, making sure that its pages exist, and copying by address.
 *
 * Each returns what it made or throws an error shaped like Node's own (`code`, `errno`, `syscall`). Pointers are plain
 * numbers of type bigint, which koffi takes for `void *`.
 */
import { closeSync, constants, ftruncateSync, writeSync } from "node:fs";
import { getSystemErrorName } from "node:util";
import koffi from "koffi";

/** An address in this process. */
export type Pointer = bigint;

const libc = koffi.load(null);
const nativeMmap = libc.func(
  "void *mmap(void *address, size_t bytes, int protection, int flags, int file, int64_t offset)",
);
const nativeMunmap = libc.func("int munmap(void *address, size_t bytes)");
const nativeCopy = libc.func("void *memcpy(void *to, void *from, size_t bytes)");
const nativeFlock = libc.func("int flock(int file, int operation)");
const nativeFcntl = libc.func("int fcntl(int file, int command, ...)");
// macOS has no posix_fallocate; see allocate().
const isLinux = process.platform === "linux";
const nativeFallocate = isLinux ? libc.func("int posix_fallocate(int file, int64_t offset, int64_t bytes)") : undefined;
const nativePunch = isLinux ? libc.func("int fallocate(int file, int mode, int64_t offset, int64_t bytes)") : undefined;
const nativeMemoryFile = isLinux ? libc.func("int memfd_create(const char *name, unsigned int flags)") : undefined;
const nativeAdvise = isLinux ? libc.func("int madvise(void *address, size_t bytes, int advice)") : undefined;

const protectionReadWrite = 3;
const mapShared = 1;
const mapPrivate = 2;
const mapAnonymous = isLinux ? 0x20 : 0x1000;
// Without it a mapping of a hugetlbfs file would take its pages at once, the sparse part of the file included.
const mapNoReserve = isLinux ? 0x4000 : 0;
const keepSizeAndPunchHole = 1 | 2;
const adviseHugePage = 14;
const advisePopulateForReading = 22; // since Linux 5.14, as the next one
const advisePopulateForWriting = 23;
const mapFailed = 0xffff_ffff_ffff_ffffn;
const lockExclusiveNow = 2 | 4;
const getFlags = 3;
const setFlags = 4;
const memoryCloseOnExecAllowSealing = 1 | 2;
const addSeals = 1033;
const sealSealShrinkGrow = 1 | 2 | 4;
const zeros = Buffer.alloc(1 << 20);

/** Maps the first `bytes` of an open file, shared, for reading and writing. @throws ENOMEM, EACCES … */
export function mapFile(file: number, bytes: number): Pointer {
  const pointer = nativeMmap(null, bytes, protectionReadWrite, mapShared | mapNoReserve, file, 0) as Pointer | null;
  if (pointer === null || pointer === mapFailed || pointer === -1n) throw posixError("mmap", koffi.errno());
  return pointer;
}

/**
 * A file of `bytes` that is memory and has no name: whoever inherits it may map it, nobody may change its length. For people it is
 * called `name`.
 *
 * @throws ENOSYS where there is none (not on Linux), EMFILE, ENOMEM …
 */
export function memoryFile(name: string, bytes: number): number {
  if (nativeMemoryFile === undefined) throw posixError("memfd_create", koffi.os.errno["ENOSYS"]!); // every system has that number
  const file = nativeMemoryFile(name, memoryCloseOnExecAllowSealing) as number;
  if (file === -1) throw posixError("memfd_create", koffi.errno());
  ftruncateSync(file, bytes);
  // Else a mapping could lose its pages under somebody's hands.
  if (nativeFcntl(file, addSeals, "int", sealSealShrinkGrow) === -1) {
    const errno = koffi.errno();
    closeSync(file);
    throw posixError("fcntl", errno);
  }
  return file;
}

/** Memory of whole pages that belongs to no thread: it stays until {@link unmap}, whoever ends before. @throws ENOMEM */
export function mapMemory(bytes: number): Pointer {
  const pointer = nativeMmap(null, bytes, protectionReadWrite, mapPrivate | mapAnonymous, -1, 0) as Pointer | null;
  if (pointer === null || pointer === mapFailed || pointer === -1n) throw posixError("mmap", koffi.errno());
  return pointer;
}

/** Lets all pages of a shared mapping be there, on another thread. Where that cannot be asked for it does nothing. */
export function makePages(pointer: Pointer, bytes: number): Promise<void> {
  const advise = nativeAdvise;
  if (advise === undefined) return Promise.resolve();
  return new Promise((resolve) => advise.async(pointer, bytes, advisePopulateForWriting, () => resolve()));
}

/** Lets all pages of memory that nobody has written to be read without a fault each. Where that cannot be asked for it does nothing. */
export function populateForReading(pointer: Pointer, bytes: number): void {
  nativeAdvise?.(pointer, bytes, advisePopulateForReading);
}

/** Ends a mapping. Whoever still has a view of it must not touch it again. */
export function unmap(pointer: Pointer, bytes: number): void {
  if (nativeMunmap(pointer, bytes) !== 0) throw posixError("munmap", koffi.errno());
}

/** The memory at `pointer` as an ArrayBuffer; Node's fs calls read and write it in place. */
export function memoryAt(pointer: Pointer, bytes: number): ArrayBuffer {
  return koffi.view(pointer, bytes);
}

/** Where bytes lie. It holds as long as they are referenced. */
export function addressOf(bytes: Uint8Array | ArrayBufferLike): Pointer {
  return koffi.address(bytes);
}

/** Copies between places of this process, in whatever threads they are used. They must not overlap. */
export function copyMemory(to: Pointer, from: Pointer, bytes: number): void {
  nativeCopy(to, from, bytes);
}

/**
 * Takes the lock of an open file without waiting. The lock falls when the file is closed or its owner dies, in
 * whatever way.
 */
export function tryLock(file: number): "locked" | "busy" {
  while (nativeFlock(file, lockExclusiveNow) !== 0) {
    const errno = koffi.errno();
    if (errno === koffi.os.errno["EWOULDBLOCK"]) return "busy";
    if (errno !== koffi.os.errno["EINTR"]) throw posixError("flock", errno);
  }
  return "locked";
}

/** Lets the calls on an open file go through the system's cache from now on, those under way not. @throws EBADF … */
export function endDirect(file: number): void {
  // Undefined where the system has no such thing (macOS).
  const direct = (constants as { readonly O_DIRECT?: number }).O_DIRECT ?? 0;
  const flags = nativeFcntl(file, getFlags, "int", 0) as number;
  if (flags === -1 || nativeFcntl(file, setFlags, "int", flags & ~direct) === -1)
    throw posixError("fcntl", koffi.errno());
}

/**
 * Makes sure that a range of a file has its pages, so that touching it through a mapping can never fail. The range must
 * not have been written yet.
 *
 * @returns `"full"` when the file system has no room.
 */
export function allocate(file: number, offset: number, bytes: number): "allocated" | "full" {
  if (nativeFallocate === undefined) return writeZeros(file, offset, bytes);
  for (;;) {
    const answer = allocation(nativeFallocate(file, offset, bytes) as number);
    if (answer !== "interrupted") return answer;
  }
}

/** As {@link allocate}, in a thread of its own: zeroing 4 MiB takes about 1 ms. Where that cannot be had, `"full"`. */
export async function allocateAside(file: number, offset: number, bytes: number): Promise<"allocated" | "full"> {
  if (nativeFallocate === undefined) return "full";
  for (;;) {
    const errno = await new Promise<number>((resolve, reject) => {
      nativeFallocate.async(file, offset, bytes, (error: Error | null, result: number) =>
        error === null ? resolve(result) : reject(error),
      );
    });
    const answer = allocation(errno);
    if (answer !== "interrupted") return answer;
  }
}

/**
 * Gives the pages of a range back to the system; the range reads as zeros from then on and the file keeps its length.
 *
 * @returns `"kept"` where that cannot be done (not on Linux, or a file system without holes).
 */
export function punchHole(file: number, offset: number, bytes: number): "punched" | "kept" {
  if (nativePunch === undefined) return "kept";
  for (;;) {
    if (nativePunch(file, keepSizeAndPunchHole, offset, bytes) === 0) return "punched";
    const errno = koffi.errno();
    if (errno === koffi.os.errno["EOPNOTSUPP"]) return "kept";
    if (errno !== koffi.os.errno["EINTR"]) throw posixError("fallocate", errno);
  }
}

/** Asks for huge pages behind a mapping. A wish: where there are none to be had, nothing changes. */
export function wantHugePages(pointer: Pointer, bytes: number): void {
  nativeAdvise?.(pointer, bytes, adviseHugePage);
}

function allocation(errno: number): "allocated" | "full" | "interrupted" {
  if (errno === 0) return "allocated";
  if (errno === koffi.os.errno["ENOSPC"] || errno === koffi.os.errno["EFBIG"]) return "full";
  if (errno === koffi.os.errno["EINTR"]) return "interrupted";
  throw posixError("posix_fallocate", errno);
}

function writeZeros(file: number, offset: number, bytes: number): "allocated" | "full" {
  try {
    for (let done = 0; done < bytes;)
      done += writeSync(file, zeros, 0, Math.min(zeros.length, bytes - done), offset + done);
    return "allocated";
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOSPC") return "full";
    throw error;
  }
}

function posixError(syscall: string, errno: number): Error {
  const code = getSystemErrorName(-errno);
  return Object.assign(new Error(`${code}: ${syscall} failed`), { code, errno: -errno, syscall });
}
