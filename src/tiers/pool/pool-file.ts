/**
 * The pool's file: where it lies, whose it is, and what becomes of one whose owner died.
 *
 *     reprise-USER-ID-RANDOM.pool         ID: a digest of the data directory's identity, or a name nobody adopts
 *     DATA_DIR/pool                       the path of the one file that the next process of the directory adopts
 *
 * The folder is shared with other users, who may put anything under any name. So a new file gets a name that nobody can guess,
 * the data directory remembers it, and only that one is looked at, if it is a file of ours alone (private-files.ts): whatever
 * else lies in the folder costs no time and is not read.
 *
 * The owner holds the file's lock, which falls with its process. A file without an owner that a data directory remembers is kept
 * for it; leftovers.ts removes the others. RANDOM also tells a guest that comes back whether its mapping is still the pool.
 */
import { createHash, randomBytes } from "node:crypto";
import {
  closeSync,
  existsSync,
  fstatSync,
  ftruncateSync,
  readFileSync,
  readSync,
  realpathSync,
  rmSync,
  statfsSync,
  statSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, isAbsolute, join } from "node:path";
import { codeOf } from "../../errors.ts";
import { extentBytes } from "../../ffi/pool-mapping.ts";
import { tryLock } from "../../ffi/posix.ts";
import {
  createPrivateFile,
  isAt,
  openPrivateFile,
  ownUserId,
  readPrivateFile,
  replaceSmallPrivateFile,
  type Foreign,
} from "../../private-files.ts";
import { decodeHeader, fileBytes, headerBytes, maxExtents, tableBytes, type PoolHeader } from "./pool-table.ts";

/** An open pool file, locked. */
export interface OwnedFile {
  readonly path: string;
  readonly file: number;
}

export interface AdoptableFile extends OwnedFile {
  readonly header: PoolHeader;
}

/** The room for a pool. */
export interface PoolRoom {
  readonly directory: string;
  readonly freeBytes: number;
  /** What the pool that would be adopted holds already. */
  readonly heldBytes: number;
  /** What the file system has in all. */
  readonly totalBytes: number;
}

/** A path that no system takes is longer. */
const longestPath = 4096;

/** The data directory, as the same one is told from another of its name: by path, file system, inode and birth. */
export function directoryIdentity(dataDirectory: string): string {
  const path = realpathSync(dataDirectory);
  const { dev, ino, birthtimeNs } = statSync(path, { bigint: true });
  return createHash("sha256").update(`${path}\n${dev} ${ino} ${birthtimeNs}`).digest("hex").slice(0, 16);
}

export function sharedMemoryDirectory(): string {
  return existsSync("/dev/shm") ? "/dev/shm" : tmpdir();
}

/** Names this run of the machine: a pool on a real disk outlives it, and its pages may not. "" where nothing tells. */
export function bootId(): string {
  try {
    return readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
  } catch {
    return ""; // not Linux: pools are not adopted
  }
}

/** Makes a pool's file, 0600, sparse and locked. */
export function makeFile(directory: string, id: string, bytes: number): OwnedFile {
  for (;;) {
    const path = join(directory, `${filePrefix()}${id}-${randomBytes(8).toString("hex")}.pool`);
    const file = createPrivateFile(path);
    // Between these two lines another start may take the file for a dead one's and remove it: then make another.
    if (tryLock(file) === "locked" && isAt(path, file)) {
      ftruncateSync(file, fileBytes(bytes));
      return { path, file };
    }
    closeSync(file);
  }
}

/** From now on the next process of the data directory adopts this pool. @throws Node's errors */
export function rememberPool(dataDirectory: string, path: string): void {
  replaceSmallPrivateFile(join(dataDirectory, "pool"), Buffer.from(`${path}\n`, "utf8"));
}

/** The pool that a data directory remembers. */
export function rememberedPool(dataDirectory: string): string | undefined {
  const bytes = readPrivateFile(join(dataDirectory, "pool"), longestPath, { tighten: true });
  if (!(bytes instanceof Uint8Array)) return undefined;
  const path = bytes.toString("utf8").trimEnd();
  const ours = `${filePrefix()}${directoryIdentity(dataDirectory)}-`;
  return isAbsolute(path) && isPoolName(basename(path)) && basename(path).startsWith(ours) ? path : undefined;
}

/** The pool has ended: there is nothing to adopt. */
export function forgetPool(dataDirectory: string, path: string): void {
  if (rememberedPool(dataDirectory) === path) rmSync(join(dataDirectory, "pool"), { force: true });
}

/**
 * Takes over the file that a dead process of the same data directory left. Of one that cannot be used `refuse` is told; it is
 * removed when it is ours, and not touched when it is not.
 */
export function adoptFile(options: {
  directory: string;
  dataDirectory: string;
  leastBytes: number;
  refuse: (path: string, reason: string) => void;
}): AdoptableFile | undefined {
  const path = rememberedPool(options.dataDirectory);
  if (path === undefined) return undefined;
  const file = openDead(path);
  if (typeof file !== "number") {
    if (typeof file === "object") options.refuse(path, `it ${file.foreign}`);
    return undefined;
  }
  const header = readHeader(file);
  const reason =
    header === undefined
      ? "it is damaged, or of another version"
      : !isOf(header, options.dataDirectory)
        ? "it is of another data directory"
        : header.bootId === "" || header.bootId !== bootId()
          ? "the machine was started anew since"
          : dirname(path) !== options.directory
            ? `it does not lie in ${options.directory}`
            : header.bytes < options.leastBytes
              ? `it cannot hold ${options.leastBytes} bytes`
              : undefined;
  if (reason === undefined && header !== undefined) return { path, file, header };
  rmSync(path, { force: true });
  closeSync(file);
  if (reason !== undefined) options.refuse(path, reason);
  return undefined;
}

/** The room in `directory` for the pool of a data directory, as it is now. */
export function measureRoom(directory: string, dataDirectory: string): PoolRoom {
  const { bavail, blocks, bsize } = statfsSync(directory);
  const path = rememberedPool(dataDirectory);
  const heldBytes = path === undefined || dirname(path) !== directory ? 0 : deadBytes(path);
  return { directory, freeBytes: bavail * bsize, heldBytes, totalBytes: blocks * bsize };
}

/** The most a pool can grow to: what its file system could hold, were all of it free. */
export function maximumBytes(place: Pick<PoolRoom, "totalBytes">, capacityBytes: number): number {
  const extents = Math.min(maxExtents, Math.floor(place.totalBytes / extentBytes));
  return Math.max(extents * extentBytes, capacityBytes);
}

/** Whether a name is that of a pool of this user. */
export function isPoolName(name: string): boolean {
  return name.startsWith(filePrefix()) && name.endsWith(".pool");
}

/** Whether a data directory that is there remembers this pool. Asked without its lock, which who adopts it may want now. */
export function isRemembered(path: string): boolean {
  const file = openPrivateFile(path, "read");
  if (typeof file !== "number") return false;
  try {
    const header = readHeader(file);
    if (header === undefined || header.dataDirectory === "" || header.bootId !== bootId()) return false;
    return rememberedPool(header.dataDirectory) === path;
  } catch (error) {
    // Its data directory is gone, or not ours to read any more.
    if (["ENOENT", "ENOTDIR", "EACCES", "ELOOP"].includes(codeOf(error) ?? "")) return false;
    throw error;
  } finally {
    closeSync(file);
  }
}

/** Removes a pool of ours whose owner is dead. @returns false when it is not there, not ours, or its owner lives */
export function removeDead(path: string): boolean {
  const file = openDead(path);
  if (typeof file !== "number") return false;
  rmSync(path, { force: true });
  closeSync(file);
  return true;
}

/** Users do not touch each other's pools. */
function filePrefix(): string {
  return `reprise-${ownUserId()}-`;
}

/** A second name for the pool of another data directory, which somebody made, changes nothing. */
function isOf(header: PoolHeader, dataDirectory: string): boolean {
  return header.dataDirectory !== "" && realpathSync(dataDirectory) === realpathOrSame(header.dataDirectory);
}

function realpathOrSame(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return path; // gone: it is no other directory's
  }
}

/** Opens and locks a pool of ours whose owner is dead. */
function openDead(path: string): number | "absent" | "busy" | Foreign {
  const file = openPrivateFile(path, "write");
  if (typeof file !== "number") return file;
  if (tryLock(file) === "locked" && isAt(path, file)) return file;
  closeSync(file);
  return "busy";
}

/** What a pool without an owner holds. */
function deadBytes(path: string): number {
  const file = openDead(path);
  if (typeof file !== "number") return 0;
  try {
    return fstatSync(file).blocks * 512;
  } finally {
    closeSync(file);
  }
}

function readHeader(file: number): PoolHeader | undefined {
  const { size } = fstatSync(file);
  if (size < tableBytes) return undefined;
  const bytes = Buffer.alloc(headerBytes);
  if (readSync(file, bytes, 0, headerBytes, size - tableBytes) !== headerBytes) return undefined;
  const header = decodeHeader(bytes);
  return header !== undefined && fileBytes(header.bytes) === size ? header : undefined;
}
