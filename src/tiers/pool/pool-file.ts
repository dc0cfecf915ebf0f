/**
 * The pool's file: where it lies, whose it is, and what becomes of those whose owner died.
 *
 *     reprise-USER-ID-RANDOM.pool         ID: a digest of the data directory's identity, or a name nobody adopts
 *
 * The owner holds the file's lock, which falls with its process. A file without an owner is adopted by the next process
 * of the same data directory, kept while that directory exists, and removed otherwise. RANDOM makes a new file another
 * path: a guest that comes back can tell whether its mapping is still the pool.
 */
import { createHash, randomBytes } from "node:crypto";
import {
  closeSync,
  existsSync,
  fstatSync,
  ftruncateSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  realpathSync,
  rmSync,
  statfsSync,
  statSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { codeOf } from "../../errors.ts";
import { extentBytes } from "../../ffi/pool-mapping.ts";
import { tryLock } from "../../ffi/posix.ts";
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
    const path = join(directory, `${filePrefix()}${id}-${randomBytes(6).toString("hex")}.pool`);
    const file = openSync(path, "wx+", 0o600);
    // Between these two lines another start may take the file for a dead one's and remove it: then make another.
    if (tryLock(file) === "locked" && isAt(path, file)) {
      ftruncateSync(file, fileBytes(bytes));
      return { path, file };
    }
    closeSync(file);
  }
}

/**
 * Takes over the file that a dead process of the same data directory left. Of one that cannot be used, `refuse` is told,
 * and it is removed.
 */
export function adoptFile(options: {
  directory: string;
  id: string;
  leastBytes: number;
  refuse: (path: string, reason: string) => void;
}): AdoptableFile | undefined {
  let adopted: AdoptableFile | undefined;
  for (const path of poolsIn(options.directory, options.id)) {
    const file = openDead(path);
    if (file === undefined) continue;
    const header = readHeader(file);
    const reason =
      adopted !== undefined
        ? "another one was adopted already"
        : header === undefined
          ? "it is damaged, or of another version"
          : header.bootId === "" || header.bootId !== bootId()
            ? "the machine was started anew since"
            : header.bytes < options.leastBytes
              ? `it cannot hold ${options.leastBytes} bytes`
              : undefined;
    if (reason === undefined && header !== undefined) {
      adopted = { path, file, header };
      continue;
    }
    rmSync(path, { force: true });
    closeSync(file);
    if (reason !== undefined) options.refuse(path, reason);
  }
  return adopted;
}

/** Removes the pools of dead owners that nobody can adopt any more. */
export function removeStale(directory: string): void {
  for (const path of poolsIn(directory)) if (!canBeAdopted(path)) removeDead(path);
}

/**
 * The room in `directory` for the pool called `id`. Where it does not suffice, memory of the dead goes before it is refused to
 * the living: pools left by other data directories are removed as well.
 */
export function findRoom(options: { directory: string; id: string; wantedBytes: number }): PoolRoom {
  const { directory, id, wantedBytes } = options;
  removeStale(directory);
  const measure = (): PoolRoom => {
    const { bavail, blocks, bsize } = statfsSync(directory);
    const held = poolsIn(directory, id).reduce((sum, path) => sum + deadBytes(path), 0);
    return { directory, freeBytes: bavail * bsize, heldBytes: held, totalBytes: blocks * bsize };
  };
  let place = measure();
  for (const path of poolsIn(directory)) {
    if (place.freeBytes + place.heldBytes >= wantedBytes) break;
    if (path.startsWith(join(directory, `${filePrefix()}${id}-`)) || !removeDead(path)) continue;
    place = measure();
  }
  return place;
}

/** The most a pool can grow to: what its file system could hold, were all of it free. */
export function maximumBytes(place: Pick<PoolRoom, "totalBytes">, capacityBytes: number): number {
  const extents = Math.min(maxExtents, Math.floor(place.totalBytes / extentBytes));
  return Math.max(extents * extentBytes, capacityBytes);
}

/** Users do not touch each other's pools. */
function filePrefix(): string {
  return `reprise-${process.getuid?.() ?? 0}-`;
}

function poolsIn(directory: string, id?: string): string[] {
  const prefix = id === undefined ? filePrefix() : `${filePrefix()}${id}-`;
  return readdirSync(directory)
    .filter((name) => name.startsWith(prefix) && name.endsWith(".pool"))
    .map((name) => join(directory, name));
}

/** Without its lock, which the process that adopts it may want at this moment. */
function canBeAdopted(path: string): boolean {
  try {
    const file = openSync(path, "r");
    try {
      const header = readHeader(file);
      if (header === undefined || header.dataDirectory === "" || header.bootId !== bootId()) return false;
      return path.includes(`-${directoryIdentity(header.dataDirectory)}-`);
    } finally {
      closeSync(file);
    }
  } catch (error) {
    // Gone in the meantime, or not ours to open; or its data directory is gone.
    if (codeOf(error) === "ENOENT" || codeOf(error) === "ENOTDIR" || codeOf(error) === "EACCES") return false;
    throw error;
  }
}

/** Opens and locks a pool whose owner is dead. */
function openDead(path: string): number | undefined {
  let file: number | undefined;
  try {
    file = openSync(path, "r+");
    if (tryLock(file) === "locked" && isAt(path, file)) return file;
  } catch (error) {
    // Removed by another start in the meantime, or not ours to open: either way nothing to take.
    if (codeOf(error) !== "ENOENT" && codeOf(error) !== "EACCES") throw error;
  }
  if (file !== undefined) closeSync(file);
  return undefined;
}

function removeDead(path: string): boolean {
  const file = openDead(path);
  if (file === undefined) return false;
  rmSync(path, { force: true });
  closeSync(file);
  return true;
}

/** What a pool without an owner holds. */
function deadBytes(path: string): number {
  const file = openDead(path);
  if (file === undefined) return 0;
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

function isAt(path: string, file: number): boolean {
  try {
    return statSync(path).ino === fstatSync(file).ino;
  } catch (error) {
    if (codeOf(error) === "ENOENT") return false;
    throw error;
  }
}
