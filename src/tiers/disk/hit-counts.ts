/**
 * How often each record was given to an engine, kept in `DIR/hits` across restarts: written anew a minute after a hit and at
 * close. What a killed process counted in its last minute is lost; nothing else hangs on the file.
 *
 *     0     8  magic "RPRHITS1"
 *     8     4  regions, little-endian as all numbers
 *     …        per region: its nonce (16), records that were hit (4), for each its page in the region (4) and its hits (4)
 *     end  16  xxh3-128 of everything before
 *
 * A region is known by its nonce, so counts of one that is gone, or of another under the same name, are never taken.
 */
import { xxh3 } from "@node-rs/xxhash";
import { close, fstat, readFile } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe } from "../../errors.ts";
import type { Log } from "../../log.ts";
import { openPrivateFile, replacePrivateFile } from "../../private-files.ts";
import { pageBytes } from "../../pages.ts";
import { checksumBytes, nonceBytes, readChecksum, writeChecksum } from "./record.ts";
import type { RecordTable } from "./record-table.ts";
import type { Region } from "./region.ts";

const magic = Buffer.from("RPRHITS1");
const headBytes = 12;
const afterMs = 60_000;
const readAll = promisify(readFile);
const statsOf = promisify(fstat);
const closeFile = promisify(close);

export interface SavedHits {
  readonly savedAt: Date;
  /** Hits by page of a region; empty when the file says nothing of it. */
  of(nonce: Buffer): ReadonlyMap<number, number>;
}

/** @returns undefined when there is no file, or it is damaged. @throws when it is not ours alone, or cannot be read */
export async function readHits(directory: string): Promise<SavedHits | undefined> {
  const path = join(directory, "hits");
  const file = openPrivateFile(path, "read", { tighten: true });
  if (file === "absent") return undefined;
  if (typeof file !== "number") throw new Error(`${path} ${file.foreign}`);
  try {
    const regions = decode(await readAll(file));
    if (regions === undefined) return undefined;
    const { mtime } = await statsOf(file);
    return { savedAt: mtime, of: (nonce) => byPage(regions.get(nonce.toString("hex"))) };
  } finally {
    await closeFile(file);
  }
}

export interface HitCountsOptions {
  readonly directory: string;
  readonly table: RecordTable;
  readonly regions: () => readonly Region[];
  readonly log: Log;
}

/** The counts of one drive: what was saved of them, and when they are saved again. */
export class HitCounts {
  readonly #options: HitCountsOptions;
  readonly #saved: SavedHits | undefined;
  #timer: NodeJS.Timeout | undefined;
  #saving: Promise<void> = Promise.resolve();

  private constructor(options: HitCountsOptions, saved: SavedHits | undefined) {
    this.#options = options;
    this.#saved = saved;
  }

  /** A file that cannot be read costs its counts. */
  static async open(options: HitCountsOptions): Promise<HitCounts> {
    try {
      return new HitCounts(options, await readHits(options.directory));
    } catch (error) {
      options.log.warn(`cannot read the hit counts in ${options.directory}: ${describe(error)}; going on without them`);
      return new HitCounts(options, undefined);
    }
  }

  /** Gives the records of a region that came back the hits they had. */
  restore({ slot, nonce }: Region): void {
    const { table } = this.#options;
    const saved = this.#saved?.of(nonce);
    if (saved === undefined || saved.size === 0) return;
    for (const id of table.of(slot)) {
      const hits = saved.get(table.find(id)!.offset / pageBytes); // a region's records are in the table
      if (hits !== undefined) table.setReads(id, hits);
    }
  }

  /** Something was hit. */
  changed(): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      this.#saving = this.#save();
    }, afterMs).unref();
  }

  /** Saves what has changed. */
  async close(): Promise<void> {
    await this.#saving;
    if (this.#timer === undefined) return;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    await this.#save();
  }

  async clear(): Promise<void> {
    await this.#saving;
    await rm(join(this.#options.directory, "hits"), { force: true });
  }

  /** Never throws. */
  async #save(): Promise<void> {
    const { directory, table, regions, log } = this.#options;
    try {
      const parts: Buffer[] = [];
      for (const region of regions()) {
        const part = encodeRegion(region, table);
        if (part !== undefined) parts.push(part);
        await new Promise((resolve) => setImmediate(resolve)); // some thousand records a region
      }
      await replacePrivateFile(join(directory, "hits"), encode(parts));
    } catch (error) {
      log.warn(`cannot save the hit counts in ${directory}: ${describe(error)}; they are kept in memory`);
    }
  }
}

function encodeRegion({ slot, nonce }: Region, table: RecordTable): Buffer | undefined {
  const values: number[] = [];
  for (const id of table.of(slot)) {
    const hits = table.reads(id);
    if (hits > 0) values.push(table.find(id)!.offset / pageBytes, hits); // a region's records are in the table
  }
  if (values.length === 0) return undefined;
  return Buffer.concat([nonce, Buffer.from(Uint32Array.from([values.length / 2, ...values]).buffer)]);
}

function encode(parts: readonly Buffer[]): Buffer {
  const checksum = Buffer.alloc(checksumBytes);
  const bytes = Buffer.concat([magic, Buffer.from(Uint32Array.of(parts.length).buffer), ...parts, checksum]);
  const end = bytes.length - checksumBytes;
  writeChecksum(bytes, end, xxh3.xxh128(bytes.subarray(0, end)));
  return bytes;
}

/** What the file says of each region, by its nonce: pages and hits in turn. */
function decode(bytes: Buffer): Map<string, Buffer> | undefined {
  const end = bytes.length - checksumBytes;
  if (end < headBytes || !bytes.subarray(0, magic.length).equals(magic)) return undefined;
  if (xxh3.xxh128(bytes.subarray(0, end)) !== readChecksum(bytes, end)) return undefined;
  const regions = new Map<string, Buffer>();
  let at = headBytes;
  for (let left = bytes.readUInt32LE(magic.length); left > 0; left -= 1) {
    const nonce = bytes.toString("hex", at, at + nonceBytes);
    const from = at + nonceBytes + 4;
    at = from + 8 * bytes.readUInt32LE(from - 4);
    regions.set(nonce, bytes.subarray(from, at));
  }
  return regions;
}

function byPage(pairs: Buffer = Buffer.alloc(0)): Map<number, number> {
  const hits = new Map<number, number>();
  for (let at = 0; at < pairs.length; at += 8) hits.set(pairs.readUInt32LE(at), pairs.readUInt32LE(at + 4));
  return hits;
}
