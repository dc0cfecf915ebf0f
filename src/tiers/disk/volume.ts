/**
 * One drive of the disk tier with all that is its own: the files, the writer, the hit counts, and how it has fared.
 *
 *     volume ──► drive.ts (files) · writer.ts (appends) · hit-counts.ts · compaction.ts
 *
 * A drive that fails three times in a row, where there are others, is left alone until the next start.
 */
import { describe } from "../../errors.ts";
import type { RecordId, TierOwner } from "../../tier.ts";
import { compactDrive, type DriveCompaction } from "./compaction.ts";
import { Drive, type DriveOptions } from "./drive.ts";
import { HitCounts } from "./hit-counts.ts";
import type { RecordTable } from "./record-table.ts";
import type { Region } from "./region.ts";
import { Writer } from "./writer.ts";

export interface DriveStats {
  readonly directory: string;
  readonly usedBytes: number;
  readonly capacityBytes: number;
  /** False when the file system does not take O_DIRECT. */
  readonly direct: boolean;
  /** Reads, writes and flushes that failed. */
  readonly errors: number;
  /** Writes that its file system had no room for. */
  readonly refused: number;
  /** It failed and is left alone until the next start. */
  readonly gone: boolean;
}

export interface VolumeOptions extends Omit<DriveOptions, "onRegion"> {
  readonly owner: () => TierOwner | undefined;
  /** Resolves when every region that was there at start has been read. */
  readonly recovered: Promise<void>;
  /** Something was written that a flush would make safe. */
  readonly onWritten: () => void;
  /** Told of every region there is, before records are in it. */
  readonly onRegion: (region: Region, volume: Volume) => void;
}

/** One of several drives that fails so often in a row is given up. */
const failuresToGiveUp = 3;

export class Volume {
  readonly drive: Drive;
  readonly writer: Writer;
  readonly hits: HitCounts;
  readonly #options: VolumeOptions;
  /** Since the last success. */
  #failures = 0;
  #errors = 0;
  #gone = false;

  private constructor(drive: Drive, hits: HitCounts, options: VolumeOptions) {
    const { table, owner, recovered, onWritten } = options;
    this.drive = drive;
    this.hits = hits;
    this.writer = new Writer({ drive, table, owner, recovered, onWritten });
    this.#options = options;
  }

  /** @throws RepriseError DATA_DIRECTORY_IN_USE, or the file system's errors */
  static async open(options: VolumeOptions): Promise<Volume> {
    const { directory, table, log } = options;
    const found: Region[] = [];
    let onRegion = (region: Region): void => void found.push(region);
    const drive = await Drive.open({ ...options, onRegion: (region) => onRegion(region) });
    const hits = await HitCounts.open({ directory, table, regions: () => drive.regions(), log });
    const volume = new Volume(drive, hits, options);
    onRegion = (region) => options.onRegion(region, volume);
    for (const region of found) onRegion(region);
    return volume;
  }

  get gone(): boolean {
    return this.#gone;
  }

  /** What the drive has to do; how full it is, below 1, when it has nothing to do. */
  get load(): number {
    const { queuedBytes } = this.writer;
    return queuedBytes > 0 ? 1 + queuedBytes : this.drive.writtenBytes / this.drive.capacityBytes;
  }

  succeeded(): void {
    this.#failures = 0;
  }

  /** A drive that is gone costs its records, and no more writes go to it; the only one is tried again and again. */
  failed(error: unknown, { hasOthers }: { readonly hasOthers: boolean }): void {
    this.#failures += 1;
    this.#errors += 1;
    if (this.#gone || this.#failures < failuresToGiveUp || !hasOthers) return;
    this.#gone = true;
    this.#options.log.warn(
      `${this.drive.directory} failed ${this.#failures} times in a row: ${describe(error)}; its records are lost until it works at a start`,
    );
    for (const region of this.drive.regions()) this.#evict(region);
  }

  async flush(): Promise<void> {
    await this.writer.idle();
    try {
      await this.drive.sync();
    } catch (error) {
      this.#errors += 1;
      throw error;
    }
  }

  /**
   * Drops what the capacity has no room for: it may be less than last time, and a power cut may bring back removed files.
   * Only when it is known which regions hold nothing.
   */
  async trim(): Promise<void> {
    const { drive } = this;
    for (const region of drive.inEvictionOrder()) {
      if (drive.bytes <= drive.capacityBytes) return;
      if (region === drive.active) continue;
      this.#evict(region);
      await drive.remove(region);
    }
  }

  clear(): Promise<void> {
    const { drive } = this;
    return this.writer.whenIdle(async () => {
      if (drive.active !== undefined) drive.abandon(drive.active);
      for (const region of drive.regions()) {
        this.#evict(region);
        await drive.remove(region);
      }
      await drive.sync(); // a power cut must not bring the files back
      await this.hits.clear();
    });
  }

  /** @throws the file system's errors */
  compact(call: { isOver: () => boolean; onDamaged: (id: RecordId) => void }): Promise<DriveCompaction> {
    return compactDrive({ drive: this.drive, writer: this.writer, table: this.#options.table, ...call });
  }

  stats(): DriveStats {
    const { directory, bytes, capacityBytes, direct = false, refused } = this.drive;
    return { directory, usedBytes: bytes, capacityBytes, direct, errors: this.#errors, refused, gone: this.#gone };
  }

  async close(): Promise<void> {
    const { drive } = this;
    await this.writer.idle();
    drive.seal();
    await drive.sealed();
    try {
      await drive.sync();
    } catch (error) {
      this.#options.log.warn(`cannot flush ${drive.directory}: ${describe(error)}`);
    }
    await this.hits.close();
    await drive.close();
  }

  #evict(region: Region): void {
    const { table, owner } = this.#options;
    const ids = [...table.of(region.slot)];
    for (const id of ids) table.drop(id);
    owner()?.onEvicted(ids);
  }
}

/** Regions that a start found, the oldest first over all drives. */
export function unreadRegions(volumes: readonly Volume[]): [Region, Volume][] {
  const regions: [Region, Volume][] = [];
  for (const volume of volumes)
    for (const region of volume.drive.regions()) if (region.state === "unread") regions.push([region, volume]);
  return regions.sort(([a], [b]) => a.number - b.number);
}

/** Every record that can be read, beginning with a region chosen at random. */
export function* recordsFromAnywhere(volumes: readonly Volume[], table: RecordTable): Generator<RecordId, void, void> {
  const regions = volumes.flatMap(({ drive, gone }) => (gone ? [] : drive.regions()));
  const first = Math.floor(Math.random() * regions.length);
  for (const { slot } of [...regions.slice(first), ...regions.slice(0, first)]) yield* table.of(slot);
}
