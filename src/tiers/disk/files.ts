/**
 * The file operations that the disk tier needs, and the system's files. Tests give others, which tear, lose and fail.
 *
 * Only files of ours alone are opened (private-files.ts): what another user, or a link, puts under a region's name is not.
 *
 * Files are opened with O_DIRECT where the file system takes it, so that bytes go between the drive and a pool slot without
 * a copy in between. Positions and lengths of a whole call are multiples of 4096.
 */
import { close, constants, fchmod, fstat, ftruncate, lstat, open, type Stats } from "node:fs";
import { open as openHandle, readdir, rm } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { promisify } from "node:util";
import { codeOf } from "../../errors.ts";
import { endDirect } from "../../ffi/posix.ts";
import { whyForeign } from "../../private-files.ts";
import type { IoAnswer } from "./io-thread.ts";
import { IoThreads, placesOf } from "./io-threads.ts";

export interface ReadAnswer {
  /** Fewer than asked for only at the end of the file. */
  readonly bytes: number;
  /** The checksum leaves of each piece. */
  readonly leaves: readonly (readonly bigint[])[];
}

export interface DiskFile {
  /** False when the system's cache stands between. It may become false with a call that O_DIRECT was refused. */
  readonly direct: boolean;
  /** Fills `pieces`, one after the other, from `position`. */
  read(pieces: readonly Uint8Array[], position: number): Promise<ReadAnswer>;
  /**
   * Writes all of `pieces`, one after the other. Those whose numbers are in `headers` are headers of records, which
   * {@link completeHeaders} completes first, off the main thread.
   */
  write(pieces: readonly Uint8Array[], position: number, headers: readonly number[]): Promise<void>;
  /** Makes the file `bytes` long with room that is reserved. */
  allocate(bytes: number): Promise<"allocated" | "full">;
  truncate(bytes: number): Promise<void>;
  /** Makes everything that was written survive a power cut. */
  datasync(): Promise<void>;
  /** Waits for operations under way; further ones fail with EBADF, and a second close does nothing. */
  close(): Promise<void>;
}

export interface DiskFiles {
  create(path: string): Promise<DiskFile>;
  open(path: string): Promise<DiskFile>;
  openReadOnly(path: string): Promise<DiskFile>;
  remove(path: string): Promise<void>;
  list(directory: string): Promise<string[]>;
  /** @throws when it is not a file of ours alone */
  size(path: string): Promise<number>;
  /** Makes names made and removed in a directory survive a power cut. */
  syncDirectory(directory: string): Promise<void>;
}

type Move = { readonly kind: "read" } | { readonly kind: "write"; readonly headers: readonly number[] };

const openFile = promisify(open);
const closeFile = promisify(close);
const truncateFile = promisify(ftruncate);
const statsOf = promisify(fstat);
const statsAt = promisify(lstat);
const setMode = promisify(fchmod);

/** No link is followed, and a FIFO keeps nobody waiting. */
const guarded = constants.O_NOFOLLOW | constants.O_NONBLOCK;
/** What a backup brings back without its modes is closed to others again. */
const rules = { tighten: true } as const;

/**
 * Shared by all tiers of the process, as libuv's threads are; the first to read starts with the first file. Two readers a
 * core: on 2 cores 8 brought no more bytes than 4, and took 0.42 s of processor time a GiB where 4 took 0.33.
 */
const reads = new IoThreads({ most: Math.min(8, 2 * Math.max(2, availableParallelism())) });
const writes = new IoThreads({ most: 6 });

export const nodeFiles: DiskFiles = {
  create: (path) => openSystemFile(path, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL),
  open: (path) => openSystemFile(path, constants.O_RDWR),
  openReadOnly: (path) => openSystemFile(path, constants.O_RDONLY),
  remove: (path) => rm(path, { force: true }),
  list: (directory) => readdir(directory),
  size: async (path) => mustBeOurs(path, await statsAt(path)).size,
  async syncDirectory(directory) {
    const handle = await openHandle(directory, "r");
    try {
      await handle.sync();
    } finally {
      await handle.close();
    }
  },
};

async function openSystemFile(path: string, flags: number): Promise<DiskFile> {
  reads.prepare();
  const { file, direct } = await openDirect(path, flags | guarded);
  try {
    const { mode } = mustBeOurs(path, await statsOf(file));
    const mayWrite = (flags & constants.O_RDWR) !== 0;
    if (mayWrite && (mode & 0o077) !== 0) await setMode(file, 0o600);
  } catch (error) {
    await closeFile(file);
    throw error;
  }
  return systemFile(file, direct);
}

async function openDirect(path: string, flags: number): Promise<{ file: number; direct: boolean }> {
  // Undefined where the system has no such thing (macOS).
  const direct = (constants as { readonly O_DIRECT?: number }).O_DIRECT ?? 0;
  if (direct === 0) return { file: await openFile(path, flags, 0o600), direct: false };
  try {
    return { file: await openFile(path, flags | direct, 0o600), direct: true };
  } catch (error) {
    if (codeOf(error) !== "EINVAL") throw error;
    // Some file systems make the file before they refuse.
    return { file: await openFile(path, flags & ~constants.O_EXCL, 0o600), direct: false };
  }
}

function mustBeOurs(path: string, stats: Stats): Stats {
  const foreign = whyForeign(stats, rules);
  if (foreign !== undefined) throw Object.assign(new Error(`${path} ${foreign}`), { code: "EACCES" });
  return stats;
}

function systemFile(file: number, openedDirect: boolean): DiskFile {
  let direct = openedDirect;
  const underWay = new Set<Promise<unknown>>();
  let closed: Promise<void> | undefined;
  const during = async <T>(work: () => Promise<T>): Promise<T> => {
    // Its number is another file's by now.
    if (closed !== undefined) throw Object.assign(new Error("EBADF: the file was closed"), { code: "EBADF" });
    const noted: Promise<T> = work().finally(() => underWay.delete(noted));
    underWay.add(noted);
    return noted;
  };
  const move = async (what: Move, pieces: readonly Uint8Array[], position: number): Promise<IoAnswer> => {
    const threads = what.kind === "read" ? reads : writes;
    const places = placesOf(pieces);
    try {
      return await threads.run({ ...what, file, direct, position, places }, pieces);
    } catch (error) {
      // Some file systems take O_DIRECT when a file is opened and refuse it later, or for some memory.
      if (!openedDirect || codeOf(error) !== "EINVAL") throw error;
      endDirect(file);
      direct = false;
      return threads.run({ ...what, file, direct, position, places }, pieces);
    }
  };
  return {
    get direct() {
      return direct;
    },
    read: (pieces, position) => during(() => move({ kind: "read" }, pieces, position)),
    write: async (pieces, position, headers) => {
      await during(() => move({ kind: "write", headers }, pieces, position));
    },
    allocate: async (bytes) => {
      const { full } = await during(() => writes.run({ kind: "allocate", file, bytes }));
      return full ? "full" : "allocated";
    },
    truncate: (bytes) => during(() => truncateFile(file, bytes)),
    datasync: async () => {
      await during(() => writes.run({ kind: "datasync", file }));
    },
    close: () => (closed ??= Promise.allSettled(underWay).then(() => closeFile(file))),
  };
}
