/** The file operations that the disk tier needs, so that tests can make them fail. */
import { open, readdir, rm, stat } from "node:fs/promises";

export interface DiskFile {
  /** Reads at `position`; fewer bytes than asked for only at the end of the file. */
  read(into: Uint8Array, position: number): Promise<number>;
  /** Writes all of `pieces`, one after the other. */
  write(pieces: readonly Uint8Array[], position: number): Promise<void>;
  truncate(bytes: number): Promise<void>;
  datasync(): Promise<void>;
  /** Waits for operations under way. */
  close(): Promise<void>;
}

export interface DiskFiles {
  create(path: string): Promise<DiskFile>;
  open(path: string): Promise<DiskFile>;
  remove(path: string): Promise<void>;
  list(directory: string): Promise<string[]>;
  size(path: string): Promise<number>;
}

/** Bytes per read call: large enough for a fast disk, small enough that several are under way. */
const pieceBytes = 4 * 1024 * 1024;

export const nodeFiles: DiskFiles = {
  create: (path) => openFile(path, "wx+"),
  open: (path) => openFile(path, "r+"),
  remove: (path) => rm(path, { force: true }),
  list: (directory) => readdir(directory),
  size: async (path) => (await stat(path)).size,
};

async function openFile(path: string, flags: string): Promise<DiskFile> {
  const handle = await open(path, flags, 0o600);

  async function readPiece(into: Uint8Array, position: number): Promise<number> {
    let done = 0;
    while (done < into.length) {
      const { bytesRead } = await handle.read(into, done, into.length - done, position + done);
      if (bytesRead === 0) break;
      done += bytesRead;
    }
    return done;
  }

  return {
    async read(into, position) {
      const reads: Promise<number>[] = [];
      for (let at = 0; at < into.length; at += pieceBytes)
        reads.push(readPiece(into.subarray(at, at + pieceBytes), position + at));
      return (await Promise.all(reads)).reduce((sum, bytes) => sum + bytes, 0);
    },
    async write(pieces, position) {
      let left = [...pieces];
      let at = position;
      while (left.length > 0) {
        const { bytesWritten } = await handle.writev(left, at);
        at += bytesWritten;
        left = afterBytes(left, bytesWritten);
      }
    },
    truncate: (bytes) => handle.truncate(bytes),
    datasync: () => handle.datasync(),
    close: () => handle.close(),
  };
}

/** What is left of `pieces` after a short write. */
function afterBytes(pieces: readonly Uint8Array[], written: number): Uint8Array[] {
  const left: Uint8Array[] = [];
  let skip = written;
  for (const piece of pieces) {
    if (skip < piece.length) left.push(piece.subarray(skip));
    skip = Math.max(0, skip - piece.length);
  }
  return left;
}
