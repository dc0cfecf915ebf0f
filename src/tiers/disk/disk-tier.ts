/**
 * The disk tier: a log of regions over one directory or several, each on a drive of its own.
 *
 *     DIR/lock   0000000007.region   0000000008.region   0000000009.region ◄── the open one: groups are appended
 *                └ evicted first     └ contents at its end
 *
 *     write ──► the drive with the least queued ──► lane.ts          read ──► record-table.ts ──► reader.ts
 *     recover ──► recovery.ts, region by region                      scrubber.ts reads everything again, slowly
 *
 * A drive never takes more than its capacity. A drive that is gone costs its own records. docs/disk.md tells what survives
 * what.
 */
import { assert, describe, RepriseError } from "../../errors.ts";
import { silentLog, type Log } from "../../log.ts";
import type { ChunkKey } from "../../cache/chunk.ts";
import type { ChunkRecord, Compacted, RecordBatch, RecordId, Tier, TierOwner, TierStats } from "../../tier.ts";
import { alignedBuffer, padded, pageBytes } from "./aligned.ts";
import type { DriveCompaction } from "./compaction.ts";
import type { Drive } from "./drive.ts";
import { nodeFiles, type DiskFiles } from "./files.ts";
import { Lane, type DriveStats } from "./lane.ts";
import { readRecord, readWholeRecord } from "./reader.ts";
import { recordBytes } from "./record.ts";
import { RecordTable } from "./record-table.ts";
import { recoverRegion } from "./recovery.ts";
import type { Region } from "./region.ts";
import { Scrubber } from "./scrubber.ts";

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
  readonly log?: Log;
  readonly files?: DiskFiles;
}

export interface DiskTierStats extends TierStats {
  readonly regions: number;
  /** Bytes of regions of another format version, given back when room is needed. */
  readonly foreignBytes: number;
  /** Records found at start whose writing had not ended. */
  readonly tornRecords: number;
  /** Bytes of records that can still be read; the rest of `usedBytes` is garbage, reserved, or says what lies where. */
  readonly liveBytes: number;
  /** Bytes that were read again in search of rot. */
  readonly scrubbedBytes: number;
  /** How often all there was has been read so. */
  readonly scrubRounds: number;
  /** What lay here is still being read. */
  readonly recovering: boolean;
  readonly drives: readonly DriveStats[];
}

const minimumCapacity = 1024 * 1024;
const usualRegion = 256 * 1024 * 1024;
const mostRegions = 4096;
/** Regions whose contents are read at the same time at start. */
const regionsAtOnce = 8;

export class DiskTier implements Tier {
  readonly name = "disk";
  readonly #flushMs: number;
  readonly #log: Log;
  readonly #table = new RecordTable();
  readonly #lanes: Lane[] = [];
  readonly #located = new Map<number, { readonly region: Region; readonly lane: Lane }>();
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
        records: () => this.#allRecords(),
        verify: (id) => this.#verify(id),
      });
  }

  /**
   * Takes the directories, which are made if they are missing, and looks which regions there are. Of several, those that
   * cannot be opened are left out.
   *
   * @throws RepriseError DATA_DIRECTORY_IN_USE, BAD_CONFIG (a capacity too small), TIER_UNAVAILABLE (no drive can be opened).
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
      for (const [region, lane] of this.#regionsToRecover()) {
        const work = this.#recoverRegion(region, lane);
        pending.push(work);
        if (pending.length >= regionsAtOnce) yield* await pending.shift()!; // not empty
      }
      for (const work of pending) yield* await work;
      for (const lane of this.#lanes) await lane.trim();
    } finally {
      this.#recovering = false;
      this.#recovered();
      if (!this.#closed) this.#scrubber?.start();
    }
  }

  async write(
    record: ChunkRecord,
    payloads: readonly Uint8Array[],
    signal: AbortSignal,
  ): Promise<RecordId | "rejected"> {
    assert(this.#owner !== undefined, "a tier is recovered before it is written");
    if (signal.aborted || this.#closed) throw new RepriseError("TIER_UNAVAILABLE", "the disk tier is closing");
    const totalBytes = recordBytes(record);
    const lanes = this.#lanes.filter(({ drive, gone }) => !gone && totalBytes <= drive.capacityBytes / 4);
    const [lane] = lanes.sort((a, b) => a.load - b.load);
    if (lane === undefined) return "rejected";
    try {
      const id = await lane.writer.write(
        record,
        payloads.map((payload, rank) => paddedWithZeros(payload, record.payloadBytes[rank]!)), // one per rank
      );
      lane.succeeded();
      return id;
    } catch (error) {
      this.#failed(lane, error);
      throw error;
    }
  }

  async read(id: RecordId, key: ChunkKey, into: readonly Uint8Array[], signal: AbortSignal): Promise<"read" | "gone"> {
    const position = this.#table.find(id);
    if (position === undefined) return "gone";
    const { region, lane } = this.#located.get(position.regionSlot)!; // a region with records is located
    const targets = into.map((bytes) => (bytes.length % pageBytes === 0 ? bytes : alignedBuffer(bytes.length)));
    let whole: Awaited<ReturnType<typeof readRecord>>;
    try {
      const from = { file: region.file!, nonce: region.nonce }; // open: its records are known
      whole = await lane.drive.traffic.during(() => readRecord(from, position, targets, key));
      lane.succeeded();
    } catch (error) {
      if (!this.#table.has(id)) return "gone"; // evicted while it was read
      this.#failed(lane, error);
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
    for (const [rank, bytes] of into.entries())
      if (targets[rank] !== bytes) bytes.set(targets[rank]!.subarray(0, bytes.length)); // one each
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
    this.#located.get(position.regionSlot)!.lane.hits.changed(); // a region with records is located
  }

  drop(id: RecordId): void {
    const slot = this.#table.drop(id);
    if (slot === undefined || this.#table.liveOf(slot) > 0) return;
    const { region, lane } = this.#located.get(slot)!; // it had a record
    if (region.state !== "sealed") return;
    // Nothing in it is needed: its room comes back now. A failure shows at the next write.
    lane.drive.noted(`remove ${region.path}`, lane.drive.remove(region));
  }

  async clear(): Promise<void> {
    if (this.#owner !== undefined) await this.#whenRecovered;
    const outcomes = await Promise.allSettled(this.#lanes.map((lane) => lane.clear()));
    mustAllSucceed(outcomes, "clear");
  }

  async compact(signal: AbortSignal): Promise<Compacted> {
    if (this.#owner !== undefined) await this.#whenRecovered;
    const before = this.#compaction;
    const work = (async () => {
      await before;
      return this.#compact(signal);
    })();
    const done = work.then(
      () => {},
      () => {},
    );
    this.#compaction = done;
    return work;
  }

  async flush(): Promise<void> {
    clearTimeout(this.#flushTimer);
    this.#flushTimer = undefined;
    const outcomes = await Promise.allSettled(this.#lanes.filter(({ gone }) => !gone).map((lane) => lane.flush()));
    mustAllSucceed(outcomes, "flush");
  }

  stats(): DiskTierStats {
    const sum = (value: (drive: Drive) => number) => this.#lanes.reduce((total, { drive }) => total + value(drive), 0);
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
      drives: this.#lanes.map((lane) => lane.stats()),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#flushTimer);
    await this.#scrubber?.stop();
    await this.#compaction;
    for (const lane of this.#lanes) await lane.close();
  }

  async #openDrive({ directory, capacityBytes }: DriveSetting, options: DiskTierOptions): Promise<void> {
    const wanted =
      options.regionBytes ?? Math.max(Math.min(usualRegion, capacityBytes / 8), capacityBytes / mostRegions);
    try {
      const lane = await Lane.open({
        directory,
        capacityBytes,
        regionBytes: Math.floor(wanted / pageBytes) * pageBytes,
        files: options.files ?? nodeFiles,
        table: this.#table,
        log: this.#log,
        owner: () => this.#owner,
        recovered: this.#whenRecovered,
        onWritten: () => this.#flushLater(),
        onRegion: (region, its) => void this.#located.set(region.slot, { region, lane: its }),
      });
      this.#lanes.push(lane);
    } catch (error) {
      if (error instanceof RepriseError) throw error;
      const failure = new RepriseError("TIER_UNAVAILABLE", `cannot open the disk tier in ${directory}`, {
        cause: error,
      });
      if (options.drives.length === 1) throw failure;
      this.#log.warn(`${describe(failure)}; going on without this drive`);
    }
  }

  /** What there is, the oldest first over all drives. */
  #regionsToRecover(): [Region, Lane][] {
    const regions: [Region, Lane][] = [];
    for (const lane of this.#lanes)
      for (const region of lane.drive.regions()) if (region.state === "unread") regions.push([region, lane]);
    return regions.sort(([a], [b]) => a.number - b.number);
  }

  async #compact(signal: AbortSignal): Promise<Compacted> {
    const isOver = () => signal.aborted || this.#closed;
    const compactLane = async (lane: Lane): Promise<readonly [string, DriveCompaction]> => {
      const { directory } = lane.drive;
      try {
        return [directory, await lane.compact({ isOver, onDamaged: (id) => this.#rotted(id) })];
      } catch (error) {
        this.#failed(lane, error);
        throw new RepriseError("TIER_UNAVAILABLE", `cannot compact ${directory}`, { cause: error });
      }
    };
    const outcomes = await Promise.allSettled(this.#lanes.filter(({ gone }) => !gone).map(compactLane));
    mustAllSucceed(outcomes, "compact");
    const drives = outcomes.flatMap((outcome) => (outcome.status === "fulfilled" ? [outcome.value] : []));
    const figures = (figure: keyof DriveCompaction) =>
      Object.fromEntries(drives.map(([directory, done]) => [directory, done[figure]]));
    return { freedBytes: figures("freedBytes"), movedBytes: figures("movedBytes") };
  }

  /** Never throws: one bad file costs its records, not the tier. */
  async #recoverRegion(region: Region, { drive, hits }: Lane): Promise<RecordBatch[]> {
    try {
      const batches = await recoverRegion(region, {
        drive,
        table: this.#table,
        log: this.#log,
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

  *#allRecords(): Generator<RecordId, void, void> {
    for (const { drive, gone } of this.#lanes)
      for (const region of gone ? [] : drive.regions()) yield* this.#table.of(region.slot);
  }

  /** For the scrubber: never throws. */
  async #verify(id: RecordId): Promise<number> {
    const position = this.#table.find(id);
    if (position === undefined) return 0;
    const { region, lane } = this.#located.get(position.regionSlot)!; // a region with records is located
    try {
      await lane.drive.traffic.turn();
      const whole = await readWholeRecord({ file: region.file!, nonce: region.nonce }, position); // open: it has records
      if (whole !== "damaged" || !this.#table.has(id)) return position.totalBytes;
      this.#rotted(id);
    } catch (error) {
      if (this.#table.has(id)) this.#failed(lane, error);
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

  #failed(lane: Lane, error: unknown): void {
    lane.failed(error, { hasOthers: this.#lanes.some((other) => other !== lane && !other.gone) });
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

/** The payload padded to whole pages: in place where there is room behind it. */
function paddedWithZeros(payload: Uint8Array, bytes: number): Uint8Array {
  if (payload.length === padded(bytes)) return payload.fill(0, bytes);
  assert(payload.length === bytes, "a view is as long as its payload, or padded to whole pages");
  const copy = alignedBuffer(bytes).fill(0, bytes);
  copy.set(payload);
  return copy;
}
