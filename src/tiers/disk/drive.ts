/**
 * One directory of the disk tier: its lock, its region files, which of them is written, and the bytes they take.
 *
 * Knows nothing of what records mean. A region's room is reserved when it is begun, so that it can be filled; the file is
 * cut to what it holds when it is sealed and deleted when it goes, which also tells the drive that the room is free.
 */
import { join } from "node:path";
import { formatBytes } from "../../bytes.ts";
import { codeOf, describe } from "../../errors.ts";
import type { Log } from "../../log.ts";
import { makePrivateDirectory } from "../../private-directory.ts";
import { removeUnfinished } from "../../private-files.ts";
import { alignedBuffer } from "./aligned.ts";
import { padded, pageBytes } from "../../pages.ts";
import { ContentsBuilder } from "./contents.ts";
import { DirectoryLock } from "./directory-lock.ts";
import type { DiskFile, DiskFiles } from "./files.ts";
import { ReadsFirst } from "./reads-first.ts";
import type { RecordTable } from "./record-table.ts";
import { encodeRegionHeader, isOddName, newNonce, parseName, regionName, type Region } from "./region.ts";

export interface DriveOptions {
  readonly directory: string;
  readonly capacityBytes: number;
  readonly regionBytes: number;
  readonly files: DiskFiles;
  readonly table: RecordTable;
  readonly log: Log;
  /** Told of every region there is, before records are in it. */
  readonly onRegion: (region: Region) => void;
}

export class Drive {
  readonly directory: string;
  readonly capacityBytes: number;
  readonly regionBytes: number;
  readonly files: DiskFiles;
  readonly traffic = new ReadsFirst();
  readonly #table: RecordTable;
  readonly #log: Log;
  readonly #onRegion: (region: Region) => void;
  readonly #regions = new Set<Region>();
  readonly #dirty = new Set<Region>();
  #lock: DirectoryLock | undefined;
  #active: Region | undefined;
  #lastNumber = 0;
  #namesChanged = false;
  #syncing: Promise<void> = Promise.resolve();
  #nextSync: Promise<void> | undefined;
  #direct: boolean | undefined;
  #isFull = false;
  #refused = 0;

  private constructor(options: DriveOptions) {
    this.directory = options.directory;
    this.capacityBytes = options.capacityBytes;
    this.regionBytes = options.regionBytes;
    this.files = options.files;
    this.#table = options.table;
    this.#log = options.log;
    this.#onRegion = options.onRegion;
  }

  /**
   * Takes the directory, which is made if it is missing, and looks which regions there are.
   *
   * @throws RepriseError DATA_DIRECTORY_IN_USE, BAD_CONFIG (with a cause when it cannot be made, without one when others could
   * write it), or the file system's errors.
   */
  static async open(options: DriveOptions): Promise<Drive> {
    const drive = new Drive(options);
    const { warnings } = await makePrivateDirectory(options.directory, "the disk tier's directory");
    for (const warning of warnings) options.log.warn(warning);
    drive.#lock = DirectoryLock.take(options.directory);
    try {
      removeUnfinished(options.directory);
      await drive.#list();
      return drive;
    } catch (error) {
      await drive.close();
      throw error;
    }
  }

  /** The region that is written. */
  get active(): Region | undefined {
    return this.#active;
  }

  /** Bytes of all files, reserved room included. */
  get bytes(): number {
    let sum = 0;
    for (const region of this.#regions) sum += region.fileBytes;
    return sum;
  }

  /** Bytes of those that are not written any more. */
  get sealedBytes(): number {
    return this.bytes - (this.#active?.fileBytes ?? 0);
  }

  /** Bytes of all files without what is only reserved. */
  get writtenBytes(): number {
    return this.sealedBytes + (this.#active?.end ?? 0);
  }

  /** Bytes of records that were not dropped. */
  get liveBytes(): number {
    let sum = 0;
    for (const { slot } of this.#regions) sum += this.#table.liveBytesOf(slot);
    return sum;
  }

  get foreignBytes(): number {
    let sum = 0;
    for (const region of this.#regions) if (region.state === "foreign") sum += region.fileBytes;
    return sum;
  }

  /** False when the file system refuses O_DIRECT; undefined until a file was read or written. */
  get direct(): boolean | undefined {
    return this.#direct;
  }

  /** Records, and tries to make room for some, that the file system had no room for. */
  get refused(): number {
    return this.#refused;
  }

  /** The file system had no room. Told once, until it has some again. */
  noteFull(): void {
    this.#refused += 1;
    if (this.#isFull) return;
    this.#isFull = true;
    this.#log.warn(
      `the file system of ${this.directory} is full: nothing more is stored there until it has room ` +
        `(the tier has ${formatBytes(this.bytes)} of the ${formatBytes(this.capacityBytes)} that it may take)`,
    );
  }

  /** In the order they were begun. */
  regions(): Region[] {
    return [...this.#regions];
  }

  /** Those that hold nothing of ours first, then the oldest. */
  inEvictionOrder(): Region[] {
    const holds = (region: Region) =>
      region.state === "unread" || region.state === "open" || this.#table.liveOf(region.slot) > 0;
    return this.regions().sort((a, b) => Number(holds(a)) - Number(holds(b)) || a.number - b.number);
  }

  /**
   * Begins a region of `wanted` bytes, or of half, a quarter … of them but at least `least`, with room that is reserved.
   *
   * @returns `"full"` when the file system has no room for the least.
   */
  async begin(wanted: number, least: number): Promise<Region | "full"> {
    const { number, path, file } = await this.#create();
    const region = this.#add({ number, path, fileBytes: 0 });
    region.file = file;
    region.state = "open";
    region.nonce = newNonce();
    region.end = pageBytes;
    region.contents = new ContentsBuilder();
    try {
      const reserved = await this.#reserve(file, wanted, least);
      if (reserved === "full") {
        await this.remove(region);
        this.noteFull();
        return "full";
      }
      region.fileBytes = reserved;
      const header = alignedBuffer(pageBytes);
      encodeRegionHeader(header, region);
      await file.write([header], 0, []);
      this.#noteDirect(file);
    } catch (error) {
      await this.remove(region);
      throw error;
    }
    this.#namesChanged = true;
    this.#dirty.add(region);
    this.#active = region;
    if (this.#isFull) this.#log.info(`the file system of ${this.directory} has room again`);
    this.#isFull = false;
    return region;
  }

  /** Starts a write into a region; sealing and removing it wait for it. */
  write(region: Region, pieces: readonly Uint8Array[], position: number, headers: readonly number[]): Promise<void> {
    const file = region.file!; // open
    const work: Promise<void> = file.write(pieces, position, headers).finally(() => {
      region.writes.delete(work);
      this.#dirty.add(region);
      this.#noteDirect(file);
    });
    region.writes.add(work);
    return work;
  }

  /**
   * No more records are written to the active region; its contents are, while the next one is written already: waiting for
   * them and their flush cost a seventh of what the drive could write.
   */
  seal(): void {
    const region = this.#active;
    if (region === undefined) return;
    this.#active = undefined;
    region.sealing = this.sealRegion(region)
      .catch((error: unknown) => this.#log.warn(`cannot write the contents of ${region.path}: ${describe(error)}`))
      .finally(() => (region.sealing = undefined));
  }

  /** Resolves when no region is being sealed. */
  async sealed(): Promise<void> {
    await Promise.all(this.regions().map(async ({ sealing }) => sealing));
  }

  /** A region that could not be written is not written again. What it holds stays readable, and is found by a scan. */
  abandon(region: Region): void {
    if (region === this.#active) this.#active = undefined;
    region.contents = undefined;
    if (region.state === "open") region.state = "sealed";
  }

  /** Writes the contents of a region behind its records and gives back the room that it does not need. */
  async sealRegion(region: Region): Promise<void> {
    await Promise.allSettled(region.writes);
    const { contents, file } = region;
    region.state = "sealed";
    region.contents = undefined;
    if (region.removal !== undefined) return; // which waits for this
    if (this.#table.liveOf(region.slot) === 0) {
      region.sealing = undefined; // removing waits for it
      return this.remove(region);
    }
    if (contents === undefined || file === undefined) return;
    const bytes = contents.encode(region.end, region.nonce);
    const fileBytes = region.end + bytes.length;
    await file.write([bytes], region.end, []);
    await file.truncate(fileBytes);
    region.fileBytes = fileBytes;
    this.#dirty.add(region);
    await this.sync();
  }

  /** Makes all that was written survive a power cut. Whoever asks while one is under way shares the next. */
  sync(): Promise<void> {
    this.#nextSync ??= this.#syncing
      .catch(() => {})
      .then(() => {
        this.#nextSync = undefined;
        this.#syncing = this.#sync();
        return this.#syncing;
      });
    return this.#nextSync;
  }

  /** Opens the file of a region that was there at start. */
  async openFile(region: Region): Promise<DiskFile> {
    region.file ??= await this.files.open(region.path);
    this.#noteDirect(region.file);
    return region.file;
  }

  /** Deletes a region; until its file is gone its bytes count. */
  remove(region: Region): Promise<void> {
    region.removal ??= this.#remove(region).catch((error: unknown) => {
      region.removal = undefined; // to be tried again
      throw error;
    });
    return region.removal;
  }

  async close(): Promise<void> {
    await Promise.allSettled(this.regions().map(async ({ removal, file }) => removal ?? file?.close()));
    this.#regions.clear();
    this.#active = undefined;
    this.#lock?.[Symbol.dispose]();
    this.#lock = undefined;
  }

  /** A name of something that is not ours stays its own: the next one is taken. */
  async #create(): Promise<{ number: number; path: string; file: DiskFile }> {
    for (;;) {
      const number = (this.#lastNumber += 1);
      const path = join(this.directory, regionName(number));
      try {
        return { number, path, file: await this.files.create(path) };
      } catch (error) {
        if (codeOf(error) !== "EEXIST") throw error;
      }
    }
  }

  /** What is under a region's name, or one like it, and is no file of ours alone is told of, and left as it is. */
  async #list(): Promise<void> {
    const found: { number: number; name: string; isRegion: boolean }[] = [];
    for (const name of await this.files.list(this.directory)) {
      const parsed = parseName(name);
      if (parsed !== undefined) found.push({ ...parsed, name });
      else if (isOddName(name)) this.#log.warn(`${join(this.directory, name)} is no region's name: left as it is`);
    }
    for (const { number, name, isRegion } of found.sort((a, b) => a.number - b.number)) {
      const path = join(this.directory, name);
      try {
        const region = this.#add({ number, path, fileBytes: await this.files.size(path) });
        if (!isRegion) region.state = "foreign";
      } catch (error) {
        this.#log.warn(`${describe(error)}: it is no region of ours, and left as it is`);
      }
      this.#lastNumber = number;
    }
  }

  #add(of: { number: number; path: string; fileBytes: number }): Region {
    const region: Region = {
      ...of,
      slot: this.#table.addRegion(),
      file: undefined,
      nonce: Buffer.alloc(0),
      end: 0,
      state: "unread",
      contents: undefined,
      hasCopies: false,
      writes: new Set(),
      sealing: undefined,
      removal: undefined,
    };
    this.#regions.add(region);
    this.#onRegion(region);
    return region;
  }

  async #reserve(file: DiskFile, wanted: number, least: number): Promise<number | "full"> {
    for (let bytes = wanted; ; bytes = Math.max(least, padded(bytes / 2))) {
      try {
        if ((await file.allocate(bytes)) === "allocated") return bytes;
      } catch (error) {
        if (codeOf(error) !== "ENOSPC" && codeOf(error) !== "EDQUOT") throw error;
      }
      if (bytes === least) return "full";
      await file.truncate(0);
    }
  }

  async #sync(): Promise<void> {
    const dirty = [...this.#dirty];
    this.#dirty.clear();
    try {
      for (const { file, removal } of dirty) if (removal === undefined) await file?.datasync();
      if (!this.#namesChanged) return;
      this.#namesChanged = false;
      await this.files.syncDirectory(this.directory);
    } catch (error) {
      for (const region of dirty) if (this.#regions.has(region)) this.#dirty.add(region);
      this.#namesChanged = true;
      throw error;
    }
  }

  async #remove(region: Region): Promise<void> {
    if (region === this.#active) this.#active = undefined;
    await region.sealing;
    await Promise.allSettled(region.writes);
    if (region.hasCopies) await this.sync();
    await this.files.remove(region.path);
    this.#namesChanged = true;
    this.#dirty.delete(region);
    await region.file?.close();
    this.#regions.delete(region);
    this.#table.removeRegion(region.slot);
  }

  #noteDirect(file: DiskFile): void {
    if (this.#direct !== false && !file.direct)
      this.#log.info(
        `${this.directory}: its file system does not take O_DIRECT; reads and writes go through the system's cache`,
      );
    this.#direct = file.direct && this.#direct !== false;
  }

  /** A failure that nobody waits for. */
  noted(what: string, work: Promise<void>): void {
    work.catch((error: unknown) => this.#log.warn(`cannot ${what}: ${describe(error)}`));
  }
}
