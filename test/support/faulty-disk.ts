/**
 * A disk in memory that can lose power, for the disk tier's seam (src/tiers/disk/files.ts).
 *
 *     write ──► what programs read ──► datasync ──► what survives a power cut
 *                  └─ cut(): of every unsynced write each sector of 512 bytes survives or not, in any order;
 *                     a file whose name was never synced may be gone, or come back when it was removed
 */
import { leavesOf } from "../../src/tiers/payload-checksum.ts";
import type { DiskFile, DiskFiles } from "../../src/tiers/disk/files.ts";
import { completeHeaders } from "../../src/tiers/disk/record.ts";

const sectorBytes = 512;

interface StoredFile {
  /** What reads see. */
  now: Buffer;
  /** What is on the medium for sure. */
  safe: Buffer;
  /** Sectors written since the last sync. */
  readonly unsynced: Set<number>;
}

export class FaultyDisk {
  #files = new Map<string, StoredFile>();
  /** As the directory stands on the medium. */
  #safeNames = new Map<string, StoredFile>();
  readonly #random: () => number;
  /** Calls of all kinds so far; at `dieAt` the power goes in the middle of one. */
  calls = 0;
  dieAt = Number.POSITIVE_INFINITY;
  isDead = false;
  /** Bytes read so far. */
  readBytes = 0;

  /** @param random from 0 to 1 */
  constructor(random: () => number) {
    this.#random = random;
  }

  readonly files: DiskFiles = {
    create: async (path) => {
      this.#call();
      if (this.#files.has(path)) throw Object.assign(new Error(`EEXIST ${path}`), { code: "EEXIST" });
      this.#files.set(path, { now: Buffer.alloc(0), safe: Buffer.alloc(0), unsynced: new Set() });
      return this.#handle(path);
    },
    open: async (path) => this.#handle(path),
    openReadOnly: async (path) => this.#handle(path),
    remove: async (path) => {
      this.#call();
      this.#files.delete(path);
    },
    list: async (directory) =>
      [...this.#files.keys()]
        .filter((path) => path.startsWith(`${directory}/`))
        .map((path) => path.slice(directory.length + 1)),
    size: async (path) => this.#file(path).now.length,
    syncDirectory: async () => {
      this.#call();
      if (this.isDead) throw powerOut();
      this.#safeNames = new Map(this.#files);
    },
  };

  paths(): string[] {
    return [...this.#files.keys()];
  }

  bytesOf(path: string): Buffer {
    return this.#file(path).now;
  }

  /** Puts a file there, as somebody with a copy of an older one would. */
  put(path: string, bytes: Buffer): void {
    const file = { now: Buffer.from(bytes), safe: Buffer.from(bytes), unsynced: new Set<number>() };
    this.#files.set(path, file);
    this.#safeNames.set(path, file);
  }

  /** What is left after the power was cut: another disk, that works. */
  afterCut(): FaultyDisk {
    const next = new FaultyDisk(this.#random);
    const names = new Map(this.#safeNames);
    for (const [path, file] of this.#files) if (!names.has(path) && this.#random() < 0.5) names.set(path, file);
    for (const path of names.keys()) if (!this.#files.has(path) && this.#random() < 0.5) names.delete(path);
    for (const [path, file] of names) next.put(path, this.#torn(file));
    return next;
  }

  /** What is left after the process was killed: everything that a call has brought to the system. */
  afterKill(): FaultyDisk {
    const next = new FaultyDisk(this.#random);
    for (const [path, file] of this.#files) next.put(path, file.now);
    return next;
  }

  #torn({ now, safe, unsynced }: StoredFile): Buffer {
    // The length may have arrived or not, as any metadata.
    const bytes = Buffer.alloc(this.#random() < 0.5 ? now.length : safe.length);
    safe.copy(bytes);
    const arrives = this.#random(); // from nearly nothing to nearly everything
    for (const sector of unsynced)
      if (this.#random() < arrives)
        now.copy(bytes, sector * sectorBytes, sector * sectorBytes, (sector + 1) * sectorBytes);
    return bytes;
  }

  #file(path: string): StoredFile {
    const file = this.#files.get(path);
    if (file === undefined) throw Object.assign(new Error(`ENOENT ${path}`), { code: "ENOENT" });
    return file;
  }

  #call(): void {
    if (this.isDead) throw powerOut();
    this.calls += 1;
    if (this.calls >= this.dieAt) this.isDead = true;
  }

  #handle(path: string): DiskFile {
    const file = this.#file(path);
    const setLength = (bytes: number) => {
      const now = Buffer.alloc(bytes);
      file.now.copy(now);
      file.now = now;
    };
    return {
      direct: true,
      read: async (pieces, position) => {
        let at = position;
        for (const piece of pieces) {
          const bytes = file.now.subarray(at, at + piece.length);
          piece.set(bytes);
          at += bytes.length;
        }
        this.readBytes += at - position;
        return { bytes: at - position, leaves: pieces.map(leavesOf) };
      },
      write: async (pieces, position, headers) => {
        this.#call();
        completeHeaders(pieces, headers);
        const total = pieces.reduce((sum, piece) => sum + piece.length, 0);
        // A call during which the power goes arrives in part.
        const arrived = this.isDead ? Math.floor(this.#random() * total) : total;
        if (position + total > file.now.length) setLength(position + total);
        let at = position;
        for (const piece of pieces) {
          file.now.set(piece.subarray(0, Math.max(0, position + arrived - at)), at);
          at += piece.length;
        }
        for (let sector = position / sectorBytes; sector * sectorBytes < position + arrived; sector += 1)
          file.unsynced.add(sector);
        if (this.isDead) throw powerOut();
      },
      allocate: async (bytes) => {
        this.#call();
        if (bytes > file.now.length) setLength(bytes);
        return "allocated";
      },
      truncate: async (bytes) => {
        this.#call();
        setLength(bytes);
      },
      datasync: async () => {
        this.#call();
        if (this.isDead) throw powerOut();
        file.safe = Buffer.from(file.now);
        file.unsynced.clear();
      },
      close: async () => {},
    };
  }
}

function powerOut(): Error {
  return Object.assign(new Error("the power is out"), { code: "EIO" });
}
