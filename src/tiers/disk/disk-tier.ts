/**
 * The disk tier: a log of segments in one directory.
 *
 *     DIR/lock   0000000007.segment   0000000008.segment   0000000009.segment ◄── the active one: records are appended
 *                └ evicted first                                                 as groups, one write call each
 *
 * Room is made before a segment is begun, so the directory never exceeds its capacity: the oldest segment goes, and what
 * the owner still wants of it (at most half a segment) is appended to the active one first. There is no index file: at
 * open the headers are read. What was written survives a killed process at once and a power cut within a second.
 */
import { mkdirSync } from "node:fs";
import { assert, codeOf, describe, RepriseError } from "../../errors.ts";
import { silentLog, type Log } from "../../log.ts";
import type { ChunkRecord, RecordId, StoredRecord, Tier, TierOwner, TierStats } from "../../tier.ts";
import { DirectoryLock } from "./directory-lock.ts";
import { nodeFiles, type DiskFiles } from "./files.ts";
import { encodeHeader, padded, pageBytes, payloadChecksum, payloadOffsets, recordBytes } from "./record.ts";
import { isReadable, scanSegment, segmentNumber, type Segment } from "./segment.ts";
import { SegmentLog } from "./segment-log.ts";

export interface DiskTierOptions {
  readonly directory: string;
  /** At least 1 MiB. */
  readonly capacityBytes: number;
  /** 64 MiB, or an eighth of the capacity if that is less, unless given. A record that is larger gets a segment of its size. */
  readonly segmentBytes?: number;
  /** How long written records may stay in the system's cache before they are forced to the disk; 1 s unless given. */
  readonly flushMs?: number;
  readonly log?: Log;
  readonly files?: DiskFiles;
}

export interface DiskTierStats extends TierStats {
  readonly segments: number;
  /** Bytes of segments of another format version, given back when room is needed. */
  readonly foreignBytes: number;
}

interface Entry {
  readonly segment: Segment;
  readonly offset: number;
  readonly totalBytes: number;
  readonly firstToken: number;
  readonly payloads: readonly { readonly offset: number; readonly bytes: number; readonly checksum: bigint }[];
}

interface QueuedWrite {
  readonly record: ChunkRecord;
  readonly checksums: readonly bigint[];
  readonly pieces: readonly Uint8Array[];
  readonly totalBytes: number;
  readonly resolve: (id: RecordId | "rejected") => void;
  readonly reject: (error: Error) => void;
}

const minimumCapacity = 1024 * 1024;
const largestSegment = 64 * 1024 * 1024;
/** One write call takes at most so much, and at least one record. */
const groupBytes = 16 * 1024 * 1024;
const groupRecords = 64;
const zeros = Buffer.alloc(pageBytes);

export class DiskTier implements Tier {
  readonly name = "disk";
  readonly #capacityBytes: number;
  readonly #segmentBytes: number;
  readonly #flushMs: number;
  readonly #log: Log;
  readonly #lock: DirectoryLock;
  readonly #segments: SegmentLog;
  readonly #entries = new Map<RecordId, Entry>();
  readonly #queue: QueuedWrite[] = [];
  #owner: TierOwner | undefined;
  #lastId = 0;
  #corrupt = 0;
  #pump: Promise<void> | undefined;
  #flushTimer: NodeJS.Timeout | undefined;
  #closed = false;

  private constructor(options: DiskTierOptions, lock: DirectoryLock) {
    const wanted = options.segmentBytes ?? Math.min(largestSegment, options.capacityBytes / 8);
    this.#capacityBytes = options.capacityBytes;
    this.#segmentBytes = Math.floor(wanted / pageBytes) * pageBytes;
    this.#flushMs = options.flushMs ?? 1000;
    this.#log = options.log ?? silentLog;
    this.#lock = lock;
    this.#segments = new SegmentLog(options.directory, options.files ?? nodeFiles);
  }

  /**
   * Takes the directory, which is made if it is missing, and looks which segments there are.
   *
   * @throws RepriseError DATA_DIRECTORY_IN_USE, BAD_CONFIG (a capacity too small), TIER_UNAVAILABLE.
   */
  static async open(options: DiskTierOptions): Promise<DiskTier> {
    if (options.capacityBytes < minimumCapacity)
      throw new RepriseError(
        "BAD_CONFIG",
        `a disk tier of ${options.capacityBytes} bytes is too small: give it ${minimumCapacity} or more`,
      );
    mkdirSync(options.directory, { recursive: true, mode: 0o700 });
    const tier = new DiskTier(options, DirectoryLock.take(options.directory));
    try {
      await tier.#segments.open(segmentNumber, isReadable);
      return tier;
    } catch (error) {
      await tier[Symbol.asyncDispose]();
      throw unavailable(`open ${options.directory}`, error);
    }
  }

  async *recover(owner: TierOwner): AsyncGenerator<StoredRecord, void, void> {
    assert(this.#owner === undefined, "a tier is recovered once");
    this.#owner = owner;
    // The capacity may be less than last time.
    for (const oldest of this.#segments.inEvictionOrder()) {
      if (this.#segments.bytes + this.#segmentBytes <= this.#capacityBytes) break;
      await this.#segments.remove(oldest);
    }
    for (const segment of this.#segments.all()) {
      if (segment.foreign) continue;
      try {
        yield* this.#recoverSegment(segment);
      } catch (error) {
        // One bad file costs what lies behind the bad place, not the cache.
        this.#corrupt += 1;
        this.#log.warn(`cannot read all of ${segment.path}: ${describe(error)}; going on with the next`);
      }
    }
  }

  async write(
    record: ChunkRecord,
    payloads: readonly Uint8Array[],
    signal: AbortSignal,
  ): Promise<RecordId | "rejected"> {
    assert(this.#owner !== undefined, "a tier is recovered before it is written");
    const totalBytes = recordBytes(record);
    if (totalBytes > this.#capacityBytes / 4) return "rejected";
    const checksums: bigint[] = [];
    for (const payload of payloads) checksums.push(await payloadChecksum(payload));
    if (signal.aborted || this.#closed) throw new RepriseError("TIER_UNAVAILABLE", "the disk tier is closing");
    const pieces: Uint8Array[] = [encodeHeader(record, checksums)];
    for (const payload of payloads) {
      pieces.push(payload);
      const padding = padded(payload.length) - payload.length;
      if (padding > 0) pieces.push(zeros.subarray(0, padding));
    }
    return new Promise((resolve, reject) => {
      this.#queue.push({ record, checksums, pieces, totalBytes, resolve, reject });
      this.#pump ??= this.#writeQueued();
    });
  }

  async read(id: RecordId, into: readonly Uint8Array[], signal: AbortSignal): Promise<"read" | "gone"> {
    const entry = this.#entries.get(id);
    if (entry === undefined) return "gone";
    for (const [rank, payload] of entry.payloads.entries()) {
      const target = into[rank];
      assert(target?.length === payload.bytes, "a buffer is as long as its payload");
      let bytes: number;
      try {
        bytes = await entry.segment.file.read(target, entry.offset + payload.offset);
      } catch (error) {
        if (this.#entries.get(id) !== entry) return "gone"; // evicted while it was read
        throw unavailable(`read ${entry.segment.path}`, error);
      }
      signal.throwIfAborted();
      if (bytes === payload.bytes && (await payloadChecksum(target)) === payload.checksum) continue;
      if (this.#entries.get(id) !== entry) return "gone";
      this.#corrupt += 1;
      this.drop(id);
      throw new RepriseError(
        "RECORD_CORRUPT",
        `a record in ${entry.segment.path} at ${entry.offset} does not match its checksum; it is dropped`,
      );
    }
    return "read";
  }

  checksums(id: RecordId): readonly bigint[] | undefined {
    return this.#entries.get(id)?.payloads.map(({ checksum }) => checksum);
  }

  drop(id: RecordId): void {
    const entry = this.#entries.get(id);
    if (entry === undefined) return;
    this.#entries.delete(id);
    entry.segment.records.delete(id);
    if (entry.segment.records.size > 0 || entry.segment === this.#segments.active) return;
    // Nothing in it is needed: its room comes back now. A failure shows at the next write.
    this.#segments
      .remove(entry.segment)
      .catch((error: unknown) => this.#log.warn(`cannot remove ${entry.segment.path}: ${describe(error)}`));
  }

  async clear(): Promise<void> {
    while (this.#pump !== undefined) await this.#pump;
    const cleared = this.#segments.seal().then(() => this.#shrinkTo(0, { rewrite: false }));
    // Writes that come meanwhile wait, and go into a new segment.
    this.#pump = cleared
      .catch(() => {}) // told below
      .then(() => this.#writeQueued());
    try {
      await cleared;
    } catch (error) {
      throw unavailable("clear the disk tier", error);
    }
  }

  async flush(): Promise<void> {
    clearTimeout(this.#flushTimer);
    this.#flushTimer = undefined;
    try {
      await this.#segments.sync();
    } catch (error) {
      throw unavailable("flush the disk tier", error);
    }
  }

  stats(): DiskTierStats {
    const segments = this.#segments.all();
    return {
      records: this.#entries.size,
      usedBytes: this.#segments.bytes,
      capacityBytes: this.#capacityBytes,
      corruptRecords: this.#corrupt,
      segments: segments.length,
      foreignBytes: segments.reduce((sum, { foreign, bytes }) => sum + (foreign ? bytes : 0), 0),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#pump;
    clearTimeout(this.#flushTimer);
    try {
      await this.#segments.close();
    } finally {
      this.#lock[Symbol.dispose]();
    }
  }

  async *#recoverSegment(segment: Segment): AsyncGenerator<StoredRecord, void, void> {
    let end = pageBytes;
    for await (const step of scanSegment(segment.file, segment.bytes)) {
      if (step.kind === "damage") {
        this.#corrupt += 1;
        this.#log.warn(`${segment.path} is damaged; going on at the next record`);
        continue;
      }
      const { record, checksums } = step.decoded;
      end = step.offset + step.decoded.totalBytes;
      yield { ...record, id: this.#enter(segment, step.offset, record, checksums) };
    }
    if (end < segment.bytes) await this.#segments.cut(segment, end);
    if (segment.records.size === 0) await this.#segments.remove(segment);
  }

  /** Writes what is queued, group after group. Never throws: each write learns its own fate. */
  async #writeQueued(): Promise<void> {
    for (let first = this.#queue[0]; first !== undefined; first = this.#queue[0]) {
      let group = [first];
      try {
        const segment = await this.#roomFor(first.totalBytes);
        group = this.#groupFor(segment);
        await this.#append(segment, group);
      } catch (error) {
        for (const write of group) {
          if (codeOf(error) === "ENOSPC" || codeOf(error) === "EDQUOT") write.resolve("rejected");
          else write.reject(unavailable("write to the disk tier", error));
        }
      }
      this.#queue.splice(0, group.length);
    }
    // In the same step that saw the queue empty: a write that comes a moment later must find no pump that has ended.
    this.#pump = undefined;
  }

  #groupFor(segment: Segment): QueuedWrite[] {
    const room = Math.min(segment.limitBytes - segment.bytes, Math.max(groupBytes, this.#queue[0]!.totalBytes)); // asked by writeQueued
    const group: QueuedWrite[] = [];
    let bytes = 0;
    for (const write of this.#queue.slice(0, groupRecords)) {
      bytes += write.totalBytes;
      if (bytes > room) break;
      group.push(write);
    }
    return group;
  }

  async #append(segment: Segment, group: readonly QueuedWrite[]): Promise<void> {
    let offset = await this.#segments.append(
      segment,
      group.flatMap((write) => write.pieces),
    );
    for (const write of group) {
      write.resolve(this.#enter(segment, offset, write.record, write.checksums));
      offset += write.totalBytes;
    }
    this.#flushTimer ??= setTimeout(() => {
      this.flush().catch((error: unknown) => this.#log.warn(describe(error)));
    }, this.#flushMs).unref();
  }

  #enter(segment: Segment, offset: number, record: ChunkRecord, checksums: readonly bigint[]): RecordId {
    const id = (this.#lastId += 1) as RecordId;
    const offsets = payloadOffsets(record);
    const payloads = record.payloadBytes.map((bytes, rank) => ({
      bytes,
      offset: offsets[rank]!,
      checksum: checksums[rank]!,
    })); // one per rank
    this.#entries.set(id, {
      segment,
      offset,
      totalBytes: recordBytes(record),
      firstToken: record.firstToken,
      payloads,
    });
    segment.records.add(id);
    return id;
  }

  /** The active segment with room for a record; a new one is begun, and old ones go, when it has none. */
  async #roomFor(totalBytes: number): Promise<Segment> {
    for (let rewrite = true; ; rewrite = false) {
      const { active } = this.#segments;
      if (active !== undefined && active.bytes + totalBytes <= active.limitBytes) return active;
      const limitBytes = Math.max(this.#segmentBytes, pageBytes + totalBytes);
      await this.#segments.seal();
      // What was rewritten last time must not fill the new segment again: the second time nothing is.
      await this.#shrinkTo(this.#capacityBytes - limitBytes, { rewrite: false });
      await this.#segments.begin(limitBytes);
      // One segment's room stays free, so that next time what is wanted can be copied before it goes.
      await this.#shrinkTo(this.#capacityBytes - this.#segmentBytes - limitBytes, { rewrite });
    }
  }

  /** Evicts the oldest segments until all but the active one together have at most `bytes`. */
  async #shrinkTo(bytes: number, { rewrite }: { rewrite: boolean }): Promise<void> {
    for (const segment of this.#segments.inEvictionOrder()) {
      if (this.#segments.sealedBytes <= bytes) return;
      if (segment === this.#segments.active) continue;
      if (rewrite) await this.#rewriteWanted(segment);
      const ids = [...segment.records];
      for (const id of ids) this.#entries.delete(id);
      segment.records.clear();
      this.#owner?.onEvicted(ids);
      await this.#segments.remove(segment);
    }
  }

  /** Copies what the owner wants of a segment to the active one: parents first, half a segment at most. */
  async #rewriteWanted(segment: Segment): Promise<void> {
    const { active } = this.#segments;
    const owner = this.#owner;
    if (active === undefined || owner === undefined) return;
    const room = Math.min(this.#segmentBytes, active.limitBytes) / 2;
    const wanted = [...segment.records]
      .filter((id) => owner.isWanted(id))
      .map((id) => ({ id, entry: this.#entries.get(id)! })) // a segment's records are entered
      .sort((a, b) => a.entry.firstToken - b.entry.firstToken);
    for (const { id, entry } of wanted) {
      if (active.bytes + entry.totalBytes > room || this.#entries.get(id) !== entry) continue;
      const bytes = Buffer.allocUnsafe(entry.totalBytes);
      if ((await segment.file.read(bytes, entry.offset)) < bytes.length) continue;
      const offset = await this.#segments.append(active, [bytes]);
      if (this.#entries.get(id) !== entry) continue; // dropped meanwhile: its copy is garbage
      const moved = (this.#lastId += 1) as RecordId;
      this.#entries.set(moved, { ...entry, segment: active, offset });
      active.records.add(moved);
      this.#entries.delete(id);
      segment.records.delete(id);
      owner.onMoved(id, moved);
    }
    await this.#segments.sync();
  }
}

function unavailable(what: string, cause: unknown): RepriseError {
  return new RepriseError("TIER_UNAVAILABLE", `cannot ${what}`, { cause });
}
