/**
 * The disk tier: a log of regions over one directory or several, each on a drive of its own.
 *
 *     DIR/lock   0000000007.region   0000000008.region   0000000009.region ◄── the open one: groups are appended
 *                └ evicted first     └ contents at its end
 *
 *     write ──► the drive with the least queued ──► volume.ts          read ──► record-table.ts ──► reader.ts
 *     recover ──► recovery.ts, region by region                      scrubber.ts reads everything again, slowly
 *
 * A drive never takes more than its capacity. A drive that is gone costs its own records. docs/disk.md tells what survives
 * what.
 */
import { assert, describe, RepriseError } from "../../errors.ts";
import { silentLog, type Log } from "../../log.ts";
import type { ChunkKey, RootKey } from "../../identity/keys.ts";
import type { SpaceId } from "../../identity/space.ts";
import type {
  ChunkRecord,
  Compacted,
  FoundRecord,
  LogTier,
  PartMemory,
  RecordBatch,
  RecordId,
  TierOwner,
} from "../../tier.ts";
import { paddedWithZeros } from "./aligned.ts";
import { pageBytes } from "../../pages.ts";
import type { DriveCompaction } from "./compaction.ts";
import type { Drive } from "./drive.ts";
import { nodeFiles, type DiskFiles } from "./files.ts";
import type { DiskTierStats } from "./disk-stats.ts";
import { LastScrub } from "./last-scrub.ts";
import { recordsFromAnywhere, unreadRegions, Volume } from "./volume.ts";
import { readRecord, readWholeRecord } from "./reader.ts";
import { maxParts, recordBytes } from "./record.ts";
import { RecordTable } from "./record-table.ts";
import { recoverRegion } from "./recovery.ts";
import type { Region } from "./region.ts";
import { Scrubber } from "./scrubber.ts";
import { UnreadBatches } from "./unread-batches.ts";

export interface DriveSetting {
  readonly directory: string;
  /** At least 1 MiB. */
  readonly capacityBytes: number;
}

export interface DiskTierOptions {
  /** At least one. */
  readonly drives: readonly DriveSetting[];
  /** 256 MiB, less where the capacity has no room for eight of them, more above 1 TiB, unless given. */
  readonly regionBytes?: number;
  /** How long written records may stay in the drive's cache before they are forced to it; 1 s unless given. */
  readonly flushMs?: number;
  /** How fast rot is searched for; 4 MiB/s unless given, 0 for not at all. */
  readonly scrubBytesPerSecond?: number;
  /** From one such search to the next, at least; a week unless given. */
  readonly scrubEveryMs?: number;
  readonly log?: Log;
  readonly files?: DiskFiles;
}

const weekMs = 7 * 24 * 3_600_000;
const minimumCapacity = 1024 * 1024;
const usualRegion = 256 * 1024 * 1024;
const mostRegions = 4096;
/** Regions whose contents are read at the same time at start. */
const regionsAtOnce = 8;

export class DiskTier implements LogTier {
  readonly name = "disk";
  readonly #flushMs: number;
  readonly #log: Log;
  readonly #table = new RecordTable();
  readonly #unread = new UnreadBatches((id) => this.#table.has(id));
  readonly #volumes: Volume[] = [];
  readonly #located = new Map<number, { readonly region: Region; readonly volume: Volume }>();
  readonly #scrubber: Scrubber | undefined;
  #owner: TierOwner | undefined;
  #corrupt = 0;
  #torn = 0;
  #recovering = true;
  #recovered = () => {};
  readonly #whenRecovered = new Promise<void>((resolve) => (this.#recovered = resolve));
  /** The last one asked for. */
  #compaction: Promise<void> = Promise.resolve();
  #flushTimer: NodeJS.Timeout | undefined;
  #closed = false;

  private constructor(options: DiskTierOptions) {
    this.#flushMs = options.flushMs ?? 1000;
    this.#log = options.log ?? silentLog;
    const bytesPerSecond = options.scrubBytesPerSecond ?? 4 * 1024 * 1024;
    if (bytesPerSecond > 0)
      this.#scrubber = new Scrubber({
        bytesPerSecond,
        everyMs: options.scrubEveryMs ?? weekMs,
        records: () => recordsFromAnywhere(this.#volumes, this.#table),
        verify: (id) => this.#verify(id),
        last: new LastScrub(() => this.#volumes.map(({ drive }) => drive.directory), this.#log),
        now: Date.now,
      });
  }

  /**
   * Takes the directories, which are made if they are missing, and looks which regions there are. Of several, those that
   * cannot be opened are left out.
   *
   * @throws RepriseError DATA_DIRECTORY_IN_USE, BAD_CONFIG (a capacity too small, a directory that others can write), TIER_UNAVAILABLE (no drive can be opened).
   */
  static async open(options: DiskTierOptions): Promise<DiskTier> {
    for (const { directory, capacityBytes } of options.drives)
      if (capacityBytes < minimumCapacity)
        throw new RepriseError(
          "BAD_CONFIG",
          `${capacityBytes} bytes for ${directory} are too few: give it ${minimumCapacity} or more`,
        );
    const tier = new DiskTier(options);
    try {
      for (const drive of options.drives) await tier.#openDrive(drive, options);
      return tier;
    } catch (error) {
      await tier[Symbol.asyncDispose]();
      throw error;
    }
  }

  async *recover(owner: TierOwner): AsyncGenerator<RecordBatch, void, void> {
    assert(this.#owner === undefined, "a tier is recovered once");
    this.#owner = owner;
    try {
      const pending: Promise<RecordBatch[]>[] = [];
      for (const [region, volume] of unreadRegions(this.#volumes)) {
        const work = this.#recoverRegion(region, volume);
        pending.push(work);
        if (pending.length >= regionsAtOnce) yield* await pending.shift()!; // not empty
      }
      for (const work of pending) yield* await work;
      for (const volume of this.#volumes) await volume.trim();
    } finally {
      this.#recovering = false;
      this.#recovered();
      if (!this.#closed) this.#scrubber?.start();
    }
  }

  /** Of what a start found and nobody has read yet; reads that are under way end by themselves. */
  find(space: SpaceId, _root: RootKey, keys: Iterable<ChunkKey>): Promise<readonly FoundRecord[]> {
    return this.#unread.find(space, keys);
  }

  has(id: RecordId): boolean {
    return this.#table.has(id);
  }

  async write(
    record: ChunkRecord,
    payloads: readonly Uint8Array[],
    signal: AbortSignal,
  ): Promise<RecordId | "rejected"> {
    assert(this.#owner !== undefined, "a tier is recovered before it is written");
    if (signal.aborted || this.#closed) throw new RepriseError("TIER_UNAVAILABLE", "the disk tier is closing");
    if (record.payloadBytes.length > maxParts) return "rejected";
    const totalBytes = recordBytes(record);
    const volumes = this.#volumes.filter(({ drive, gone }) => !gone && totalBytes <= drive.capacityBytes / 4);
    const [volume] = volumes.sort((a, b) => a.load - b.load);
    if (volume === undefined) return "rejected";
    try {
      const id = await volume.writer.write(
        record,
        payloads.map((payload, part) => paddedWithZeros(payload, record.payloadBytes[part]!)), // one per part
      );
      volume.succeeded();
      return id;
    } catch (error) {
      this.#failed(volume, error);
      throw error;
    }
  }

  async read(id: RecordId, key: ChunkKey, into: PartMemory, signal: AbortSignal): Promise<"read" | "gone"> {
    const position = this.#table.find(id);
    if (position === undefined) return "gone";
    const { region, volume } = this.#located.get(position.regionSlot)!; // a region with records is located
    let whole: Awaited<ReturnType<typeof readRecord>>;
    try {
      const from = { file: region.file!, nonce: region.nonce }; // open: its records are known
      whole = await volume.drive.traffic.during(() => readRecord(from, position, into, key));
      volume.succeeded();
    } catch (error) {
      if (!this.#table.has(id)) return "gone"; // evicted while it was read
      this.#failed(volume, error);
      throw new RepriseError("TIER_UNAVAILABLE", `cannot read ${region.path}`, { cause: error });
    }
    signal.throwIfAborted();
    if (whole === "damaged") {
      if (!this.#table.has(id)) return "gone";
      this.#corrupt += 1;
      this.drop(id);
      throw new RepriseError(
        "RECORD_CORRUPT",
        `a record in ${region.path} at ${position.offset} does not match its checksum or its key; it is dropped`,
      );
    }
    this.#table.noteChecksums(id, whole.decoded.checksums);
    return "read";
  }

  checksums(id: RecordId): readonly bigint[] | undefined {
    return this.#table.checksums(id);
  }

  countHit(id: RecordId): void {
    const position = this.#table.find(id);
    if (position === undefined) return;
    this.#table.countRead(id);
    this.#located.get(position.regionSlot)!.volume.hits.changed(); // a region with records is located
  }

  drop(id: RecordId): void {
    const slot = this.#table.drop(id);
    if (slot === undefined || this.#table.liveOf(slot) > 0) return;
    const { region, volume } = this.#located.get(slot)!; // it had a record
    if (region.state !== "sealed") return;
    // Nothing in it is needed: its room comes back now. A failure shows at the next write.
    volume.drive.noted(`remove ${region.path}`, volume.drive.remove(region));
  }

  async clear(): Promise<void> {
    if (this.#owner !== undefined) await this.#whenRecovered;
    const outcomes = await Promise.allSettled(this.#volumes.map((volume) => volume.clear()));
    mustAllSucceed(outcomes, "clear");
  }

  async compact(signal: AbortSignal): Promise<Compacted> {
    if (this.#owner !== undefined) await this.#whenRecovered;
    const work = this.#compaction.then(() => this.#compact(signal)); // never rejects
    this.#compaction = work.then(
      () => {},
      () => {},
    );
    return work;
  }

  async flush(): Promise<void> {
    clearTimeout(this.#flushTimer);
    this.#flushTimer = undefined;
    const outcomes = await Promise.allSettled(
      this.#volumes.filter(({ gone }) => !gone).map((volume) => volume.flush()),
    );
    mustAllSucceed(outcomes, "flush");
  }

  stats(): DiskTierStats {
    const sum = (value: (drive: Drive) => number) =>
      this.#volumes.reduce((total, { drive }) => total + value(drive), 0);
    return {
      records: this.#table.size,
      usedBytes: sum((drive) => drive.bytes),
      capacityBytes: sum((drive) => drive.capacityBytes),
      corruptRecords: this.#corrupt,
      regions: sum((drive) => drive.regions().length),
      foreignBytes: sum((drive) => drive.foreignBytes),
      tornRecords: this.#torn,
      liveBytes: sum((drive) => drive.liveBytes),
      scrubbedBytes: this.#scrubber?.progress.bytes ?? 0,
      scrubRounds: this.#scrubber?.progress.rounds ?? 0,
      recovering: this.#recovering,
      drives: this.#volumes.map((volume) => volume.stats()),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#flushTimer);
    await this.#scrubber?.stop();
    await this.#compaction;
    for (const volume of this.#volumes) await volume.close();
  }

  async #openDrive({ directory, capacityBytes }: DriveSetting, options: DiskTierOptions): Promise<void> {
    const wanted =
      options.regionBytes ?? Math.max(Math.min(usualRegion, capacityBytes / 8), capacityBytes / mostRegions);
    try {
      const volume = await Volume.open({
        directory,
        capacityBytes,
        regionBytes: Math.floor(wanted / pageBytes) * pageBytes,
        files: options.files ?? nodeFiles,
        table: this.#table,
        log: this.#log,
        owner: () => this.#owner,
        recovered: this.#whenRecovered,
        onWritten: () => this.#flushLater(),
        onRegion: (region, its) => void this.#located.set(region.slot, { region, volume: its }),
      });
      this.#volumes.push(volume);
    } catch (error) {
      // One that others could write is a fault of the configuration; one that cannot be made has failed.
      if (error instanceof RepriseError && error.cause === undefined) throw error;
      const failure = new RepriseError("TIER_UNAVAILABLE", `cannot open the disk tier in ${directory}`, {
        cause: error instanceof RepriseError ? error.cause : error,
      });
      if (options.drives.length === 1) throw failure;
      this.#log.warn(`${describe(failure)}; going on without this drive`);
    }
  }

  async #compact(signal: AbortSignal): Promise<Compacted> {
    const isOver = () => signal.aborted || this.#closed;
    const compactVolume = async (volume: Volume): Promise<readonly [string, DriveCompaction]> => {
      const { directory } = volume.drive;
      try {
        return [directory, await volume.compact({ isOver, onDamaged: (id) => this.#rotted(id) })];
      } catch (error) {
        this.#failed(volume, error);
        throw new RepriseError("TIER_UNAVAILABLE", `cannot compact ${directory}`, { cause: error });
      }
    };
    const outcomes = await Promise.allSettled(this.#volumes.filter(({ gone }) => !gone).map(compactVolume));
    mustAllSucceed(outcomes, "compact");
    const drives = outcomes.flatMap((outcome) => (outcome.status === "fulfilled" ? [outcome.value] : []));
    const figures = (figure: keyof DriveCompaction) =>
      Object.fromEntries(drives.map(([directory, done]) => [directory, done[figure]]));
    return { freedBytes: figures("freedBytes"), movedBytes: figures("movedBytes") };
  }

  /** Never throws: one bad file costs its records, not the tier. */
  async #recoverRegion(region: Region, { drive, hits }: Volume): Promise<RecordBatch[]> {
    try {
      const batches = await recoverRegion(region, {
        drive,
        table: this.#table,
        log: this.#log,
        unread: this.#unread,
        onCorrupt: () => (this.#corrupt += 1),
        onTorn: () => (this.#torn += 1),
      });
      hits.restore(region);
      return batches;
    } catch (error) {
      this.#corrupt += 1;
      if (region.state === "unread") region.state = "foreign";
      this.#log.warn(`cannot read ${region.path}: ${describe(error)}; going on with the next`);
      return [];
    }
  }

  /** For the scrubber: never throws. */
  async #verify(id: RecordId): Promise<number> {
    const position = this.#table.find(id);
    if (position === undefined) return 0;
    const { region, volume } = this.#located.get(position.regionSlot)!; // a region with records is located
    try {
      await volume.drive.traffic.turn();
      const whole = await readWholeRecord({ file: region.file!, nonce: region.nonce }, position); // open: it has records
      if (whole !== "damaged" || !this.#table.has(id)) return position.totalBytes;
      this.#rotted(id);
    } catch (error) {
      if (this.#table.has(id)) this.#failed(volume, error);
    }
    return position.totalBytes;
  }

  /** A live record that nobody was waiting for does not match its checksums. */
  #rotted(id: RecordId): void {
    const position = this.#table.find(id)!; // live
    const { region } = this.#located.get(position.regionSlot)!; // a region with records is located
    this.#corrupt += 1;
    this.#log.warn(`a record in ${region.path} at ${position.offset} has rotted; it is dropped`);
    this.drop(id);
    this.#owner?.onEvicted([id]);
  }

  #failed(volume: Volume, error: unknown): void {
    volume.failed(error, { hasOthers: this.#volumes.some((other) => other !== volume && !other.gone) });
  }

  #flushLater(): void {
    this.#flushTimer ??= setTimeout(() => {
      this.flush().catch((error: unknown) => this.#log.warn(describe(error)));
    }, this.#flushMs).unref();
  }
}

/** @throws RepriseError TIER_UNAVAILABLE */
function mustAllSucceed(outcomes: readonly PromiseSettledResult<unknown>[], what: string): void {
  const failure = outcomes.find((outcome) => outcome.status === "rejected");
  if (failure !== undefined)
    throw new RepriseError("TIER_UNAVAILABLE", `cannot ${what} the disk tier`, { cause: failure.reason });
}
