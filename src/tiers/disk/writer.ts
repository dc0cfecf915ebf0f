/**
 * Write-behind of one drive: takes what is queued in groups and appends them to the open region.
 *
 *     queue ──► group (2 MiB or one record) ──► place in the region ──► one call: hash, write ──► its records are readable
 *                 at most 8 groups under way, and 1 after its turn while reads are (reads-first.ts)
 *
 * Room is made before a region is begun: the oldest regions go, and what the owner still wants of them (at most half a
 * region) is copied into the new one first. A group that fails leaves a hole that nobody refers to.
 */
import { codeOf, RepriseError } from "../../errors.ts";
import type { ChunkRecord, RecordId, TierOwner } from "../../tier.ts";
import { alignedBuffer } from "./aligned.ts";
import { padded, pageBytes } from "../../pages.ts";
import { leastContentsBytes } from "./contents.ts";
import type { Drive } from "./drive.ts";
import { readWholeRecord, type WholeRecord } from "./reader.ts";
import { checksumsIn, encodeHeader, headerLength, recordBytes, type RecordHistory } from "./record.ts";
import type { RecordTable } from "./record-table.ts";
import type { Region } from "./region.ts";

export interface WriterOptions {
  readonly drive: Drive;
  readonly table: RecordTable;
  readonly owner: () => TierOwner | undefined;
  /** Resolves when every region that was there at start has been read: before that none of them is evicted. */
  readonly recovered: Promise<void>;
  /** Something was written that a flush would make safe. */
  readonly onWritten: () => void;
}

/** A chunk to append. */
interface Append {
  readonly record: ChunkRecord;
  /** By part, aligned or not, padded with zeros to whole pages. */
  readonly payloads: readonly Uint8Array[];
  /** Known for what is rewritten. */
  readonly checksums: readonly bigint[] | undefined;
  readonly history: RecordHistory;
  readonly totalBytes: number;
}

interface QueuedWrite extends Append {
  /** The record that is written anew; no room is made for it. */
  readonly source: RecordId | undefined;
  readonly resolve: (id: RecordId | "rejected") => void;
  readonly reject: (error: Error) => void;
}

const groupsUnderWay = 8;
const groupBytes = 2 * 1024 * 1024;
const groupRecords = 128;

export class Writer {
  readonly #options: WriterOptions;
  readonly #queue: QueuedWrite[] = [];
  readonly #groups = new Set<Promise<void>>();
  #pump: Promise<void> | undefined;
  #queuedBytes = 0;

  constructor(options: WriterOptions) {
    this.#options = options;
  }

  /** Bytes queued or under way. */
  get queuedBytes(): number {
    return this.#queuedBytes;
  }

  write(record: ChunkRecord, payloads: readonly Uint8Array[]): Promise<RecordId | "rejected"> {
    const totalBytes = recordBytes(record);
    const history = { writtenAt: Date.now(), reads: 0 };
    return this.#enqueue({ record, payloads, checksums: undefined, history, totalBytes }, undefined);
  }

  /**
   * Writes a record of this drive anew and drops it where it was; evicts nothing for it.
   *
   * @returns the bytes written: 0 when it was dropped before its turn came; `"full"` when there is no room
   */
  async move(source: RecordId, whole: WholeRecord, totalBytes: number): Promise<number | "full"> {
    const append = movedRecord(whole, this.#options.table.reads(source), totalBytes);
    const outcome = await this.#enqueue(append, source);
    if (outcome === "rejected") return "full";
    return outcome === source ? 0 : totalBytes;
  }

  /** Resolves when nothing is queued or under way. */
  async idle(): Promise<void> {
    while (this.#pump !== undefined || this.#groups.size > 0) await Promise.allSettled([this.#pump, ...this.#groups]);
  }

  /** Does `work` when nothing is queued or under way, and writes nothing before it is done. */
  async whenIdle(work: () => Promise<void>): Promise<void> {
    while (this.#pump !== undefined || this.#groups.size > 0) await Promise.allSettled([this.#pump, ...this.#groups]);
    const done = work(); // in the same step that saw it idle
    this.#pump = done
      .catch(() => {}) // told below
      .then(() => this.#writeQueued());
    return done;
  }

  /** Never throws: each write learns its own fate. */
  async #writeQueued(): Promise<void> {
    const { drive } = this.#options;
    while (this.#queue.length > 0) {
      await drive.traffic.turn();
      while (this.#groups.size >= (drive.traffic.isBusy ? 1 : groupsUnderWay)) await Promise.race(this.#groups);
      const first = this.#queue[0]!; // this loop alone takes from it
      try {
        const region = await this.#roomFor(first);
        this.#forgetGone();
        if (this.#queue[0] !== first) continue;
        if (region === "full") this.#settle(this.#queue.splice(0, 1), "rejected");
        else this.#start(region, this.#takeGroup(region));
      } catch (error) {
        this.#settle(this.#queue.splice(0, 1), failureOf(drive, error));
      }
    }
    // In the same step that saw the queue empty: a write that comes a moment later must find no pump that has ended.
    this.#pump = undefined;
  }

  #enqueue(append: Append, source: RecordId | undefined): Promise<RecordId | "rejected"> {
    this.#queuedBytes += append.totalBytes;
    return new Promise((resolve, reject) => {
      this.#queue.push({ ...append, source, resolve, reject });
      this.#pump ??= this.#writeQueued();
    });
  }

  /** What was dropped while it waited to be written anew must not be: after a clear it would come back. */
  #forgetGone(): void {
    const isGone = ({ source }: QueuedWrite) => source !== undefined && !this.#options.table.has(source);
    if (!this.#queue.some(isGone)) return;
    const all = this.#queue.splice(0);
    this.#queue.push(...all.filter((write) => !isGone(write)));
    for (const write of all) if (isGone(write)) this.#settle([write], write.source!); // it has one
  }

  #takeGroup(region: Region): QueuedWrite[] {
    const group: QueuedWrite[] = [];
    let bytes = 0;
    for (const write of this.#queue) {
      const isEnough = group.length === groupRecords || bytes + write.totalBytes > groupBytes;
      if (group.length > 0 && (isEnough || !hasRoom(region, write))) break;
      reserve(region, write);
      group.push(write);
      bytes += write.totalBytes;
    }
    this.#queue.splice(0, group.length);
    return group;
  }

  #start(region: Region, group: readonly QueuedWrite[]): void {
    const { drive } = this.#options;
    const offset = region.end - group.reduce((sum, { totalBytes }) => sum + totalBytes, 0);
    const work = this.#append(region, group, offset).then(
      (ids) => {
        for (const [i, write] of group.entries()) {
          if (write.source !== undefined) this.#moved(write.source, ids[i]!); // one for each
          this.#settle([write], ids[i]!);
        }
        this.#options.onWritten();
      },
      (error: unknown) => {
        drive.abandon(region);
        this.#settle(group, failureOf(drive, error));
      },
    );
    this.#groups.add(work);
    region.writes.add(work); // it is sealed and removed after what has its place in it
    void work.finally(() => {
      this.#groups.delete(work);
      region.writes.delete(work);
    });
  }

  #settle(writes: readonly QueuedWrite[], outcome: RecordId | "rejected" | Error): void {
    for (const { totalBytes, resolve, reject } of writes) {
      this.#queuedBytes -= totalBytes;
      if (outcome instanceof Error) reject(outcome);
      else resolve(outcome);
    }
  }

  /** Writes records that have their place, from `offset` on: one call, whose thread hashes what it writes. */
  async #append(region: Region, group: readonly Append[], offset: number): Promise<RecordId[]> {
    const { drive, table } = this.#options;
    const staging = alignedBuffer(group.reduce((sum, { record }) => sum + padded(headerLength(record)), 0));
    const pieces: Uint8Array[] = [];
    const incomplete: number[] = [];
    const headers: { header: Buffer; at: number; headerBytes: number }[] = [];
    let stagedAt = 0;
    let at = offset;
    for (const { record, payloads, checksums, history, totalBytes } of group) {
      const page = staging.subarray(stagedAt, stagedAt + padded(headerLength(record)));
      const header = encodeHeader(page, record, checksums, { nonce: region.nonce, offset: at }, history);
      if (checksums === undefined) incomplete.push(pieces.length);
      pieces.push(page, ...payloads.filter(({ length }) => length > 0));
      headers.push({ header, at, headerBytes: page.length });
      stagedAt += page.length;
      at += totalBytes;
    }
    await drive.write(region, pieces, offset, incomplete);
    return group.map(({ record, totalBytes, history }, i) => {
      const { header, at, headerBytes } = headers[i]!; // one for each
      const { space, firstToken } = record;
      region.contents?.add({ offset: at, totalBytes, firstToken, space, header });
      const id = table.add({ regionSlot: region.slot, offset: at, totalBytes, headerBytes, firstToken }, history.reads);
      table.noteChecksums(id, checksumsIn(header));
      return id;
    });
  }

  /** The active region with room for a record; a new one is begun, and old ones go, when it has none. */
  async #roomFor(write: QueuedWrite): Promise<Region | "full"> {
    const { drive } = this.#options;
    const least = 2 * pageBytes + write.totalBytes + leastContentsBytes(headerLength(write.record));
    for (let rewrite = true; ; rewrite = false) {
      const { active } = drive;
      if (active !== undefined && hasRoom(active, write)) return active;
      const wanted = Math.max(drive.regionBytes, least);
      if (wanted > drive.capacityBytes) return "full";
      if (write.source !== undefined) {
        if (drive.bytes + wanted > drive.capacityBytes) return "full";
        drive.seal();
        return drive.begin(wanted, least);
      }
      drive.seal();
      // What was rewritten last time must not fill the new region again: the second time nothing is.
      await this.#shrinkTo(drive.capacityBytes - wanted, { rewrite: false });
      const region = await drive.begin(wanted, least);
      if (region === "full") return "full";
      // One region's room stays free, so that next time what is wanted can be copied before it goes.
      await this.#shrinkTo(drive.capacityBytes - drive.regionBytes - region.fileBytes, { rewrite });
    }
  }

  /** Evicts the oldest regions until all but the active one together have at most `bytes`. */
  async #shrinkTo(bytes: number, { rewrite }: { rewrite: boolean }): Promise<void> {
    const { drive, table } = this.#options;
    if (drive.sealedBytes <= bytes) return;
    if (drive.inEvictionOrder().some(({ state }) => state === "unread")) await this.#options.recovered;
    for (const region of drive.inEvictionOrder()) {
      if (drive.sealedBytes <= bytes) return;
      if (region === drive.active) continue;
      if (rewrite) await this.#rewriteWanted(region);
      const ids = [...table.of(region.slot)];
      for (const id of ids) table.drop(id);
      this.#options.owner()?.onEvicted(ids);
      await drive.remove(region);
    }
  }

  /** Copies what the owner wants of a region to the active one: parents first, half a region at most. */
  async #rewriteWanted(region: Region): Promise<void> {
    const { drive, table } = this.#options;
    const { active } = drive;
    const owner = this.#options.owner();
    if (active === undefined || owner === undefined) return;
    region.hasCopies = true;
    const room = Math.min(drive.regionBytes, active.fileBytes) / 2;
    const wanted = [...table.of(region.slot)]
      .filter((id) => owner.isWanted(id))
      .map((id) => ({ id, position: table.find(id)! })) // a region's records are in the table
      .sort((a, b) => a.position.firstToken - b.position.firstToken);
    for (const { id, position } of wanted) {
      if (active.end + position.totalBytes > room || !table.has(id)) continue;
      await drive.traffic.turn();
      const whole = await readWholeRecord({ file: region.file!, nonce: region.nonce }, position); // read at start
      if (whole === "damaged") continue; // goes with its region
      const append = movedRecord(whole, table.reads(id), position.totalBytes);
      if (!hasRoom(active, append)) break;
      reserve(active, append);
      const [moved] = await this.#append(active, [append], active.end - append.totalBytes);
      this.#moved(id, moved!); // one for one
    }
  }

  #moved(from: RecordId, to: RecordId): void {
    const slot = this.#options.table.drop(from);
    if (slot === undefined) this.#options.table.drop(to); // dropped meanwhile: its copy is garbage
    else this.#options.owner()?.onMoved(from, to);
  }
}

function movedRecord({ decoded, payloads }: WholeRecord, reads: number, totalBytes: number): Append {
  const { record, checksums, writtenAt } = decoded;
  return { record, payloads, checksums, history: { writtenAt, reads }, totalBytes };
}

function hasRoom(region: Region, { record, totalBytes }: Append): boolean {
  const { contents, end, fileBytes } = region;
  return contents !== undefined && end + totalBytes + contents.bytesWith(headerLength(record)) <= fileBytes;
}

/** Takes a record's place at the region's end. */
function reserve(region: Region, { record, totalBytes }: Append): void {
  region.contents?.reserve(record.space, headerLength(record));
  region.end += totalBytes;
}

/** A full disk is a refusal, all else a failure. */
function failureOf(drive: Drive, cause: unknown): "rejected" | RepriseError {
  if (codeOf(cause) === "ENOSPC" || codeOf(cause) === "EDQUOT") {
    drive.noteFull();
    return "rejected";
  }
  return new RepriseError("TIER_UNAVAILABLE", `cannot write to the disk tier in ${drive.directory}`, { cause });
}
