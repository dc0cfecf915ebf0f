/**
 * A shared tier in S3 or what speaks the same: stretches of texts as objects, found by few requests that go out together.
 *
 *     PREFIX/i/CHUNK     index: the chunks of a text's run up to this one, and where they lie      index-object.ts
 *     PREFIX/d/RANDOM    data: payloads of a stretch of a text                                      never changes
 *
 *     find    the indexes of all ends of runs (run-ends.ts) and of the last chunk; then, of the first run that has none, those of all
 *             its chunks: a text may end inside it. Two round trips, however long the text
 *     read    ranges of data objects, neighbours in one request (range-reader.ts)
 *     write   chunks are gathered (gathering.ts), payloads go before the indexes (stretch-writer.ts)
 *
 * Others write there too: a chunk is what was asked for, byte by byte, or it is none. An index outlives data and data an index: what is
 * not where it should be is looked for once more under its own name, and is else a miss.
 */
import { RepriseError } from "../../errors.ts";
import type { ChunkKey, RootKey } from "../../identity/keys.ts";
import type { SpaceId } from "../../identity/space.ts";
import type { AskedKeys, ChunkRecord, FoundRecord, PartMemory, RecordId, Tier, TierStats } from "../../tier.ts";
import { allEnded } from "../shared/all-ended.ts";
import type { PayloadPacker } from "../shared/packing.ts";
import { arrivalOf, type Compression, fits, restored } from "../shared/payloads.ts";
import type { TierKey } from "../shared/tier-keys.ts";
import { Gathering, type Stretch, type StoredStretch } from "./gathering.ts";
import { longestIndex } from "./index-object.ts";
import { Indexes } from "./indexes.ts";
import type { LocatedChunk } from "./located-chunks.ts";
import { bytesOf } from "./outgoing.ts";
import { RangeReader, type Span } from "./range-reader.ts";
import { isRunEnd, maxRunChunks } from "./run-ends.ts";
import { StretchWriter } from "./stretch-writer.ts";
import type { RequestCounts, S3Client } from "./s3-client.ts";
import { Touches } from "./touches.ts";
import { UploadRate } from "./upload-rate.ts";

export interface S3TierOptions {
  readonly client: S3Client;
  /** The first one seals. None: nothing is sealed. */
  readonly keys: readonly TierKey[];
  /** Of payloads: larger ones are rejected. */
  readonly maxRecordBytes: number;
  readonly ttlSeconds: number;
  /** "read": nothing is written, nor touched. */
  readonly access: "read" | "all";
  /** What its collector leaves. */
  readonly maxBytes?: number | undefined;
  /** Reads what others have packed; without one that is not ours to read. */
  readonly packer?: PayloadPacker | undefined;
  /** What is written; "lossless" needs the packer. "none" unless given. */
  readonly compress?: Compression;
  /** Of a data object; one chunk may be larger. */
  readonly targetBytes?: number;
  /** How long a text's last run waits for its next chunk. */
  readonly idleMs?: number;
}

export interface S3TierStats extends TierStats {
  /** What has travelled since the tier was opened: less than the KV where something was packed. */
  readonly writtenStoredBytes: number;
  readonly readStoredBytes: number;
  readonly requests: RequestCounts;
}

/** Large enough that requests cost little and are few, small enough that what was computed is soon there. */
const usualTargetBytes = 16 * 1024 * 1024;
const usualIdleMs = 2000;
/** Ends asked for at a time: of some hundred thousand tokens. */
const mostEnds = 128;
/** Single chunks asked for. */
const mostInside = 256;
/** Unwanted bytes between wanted ones that are read along. */
const mostSkippedBytes = 256 * 1024;
/** How long a store that refused a write is not written to. */
const refusedMs = 60_000;
const rememberedRejected = 4096;

export class S3Tier implements Tier {
  readonly name = "s3";
  readonly #options: S3TierOptions;
  readonly #touches: Touches;
  readonly #indexes: Indexes;
  readonly #reader: RangeReader;
  readonly #gathering: Gathering;
  readonly #rate = new UploadRate();
  readonly #counts = { records: 0, writtenStoredBytes: 0, readStoredBytes: 0, corruptRecords: 0 };
  /** Chunks that were not taken: what follows them would not be found. */
  readonly #rejected = new Set<ChunkKey | RootKey>();
  #pendingBytes = 0;
  #refusedUntil = 0;

  constructor(options: S3TierOptions) {
    this.#options = options;
    const { client, keys, ttlSeconds, access, packer, targetBytes = usualTargetBytes, idleMs = usualIdleMs } = options;
    this.#touches = new Touches(client, { ttlMs: ttlSeconds * 1000, isAllowed: access === "all" });
    this.#indexes = new Indexes({ client, keys, touches: this.#touches, unpacks: packer !== undefined });
    this.#reader = new RangeReader((name, range, signal) => client.read(name, range, signal));
    const writer = new StretchWriter({ client, indexes: this.#indexes });
    const store = (stretch: Stretch) => this.#timed(stretch, () => writer.store(stretch));
    const packs = options.compress === "lossless" ? packer : undefined;
    this.#gathering = new Gathering({ key: keys[0], packer: packs, targetBytes, idleMs, store });
  }

  async find(space: SpaceId, root: RootKey, keys: AskedKeys, signal: AbortSignal): Promise<readonly FoundRecord[]> {
    const text = [...keys];
    const numbers = new Map(text.map((key, i) => [key, i]));
    const runs = runsUpTo(text);
    const read = (key: ChunkKey) =>
      this.#indexes.read(key, signal, { mostBytes: longestIndex(runs[numbers.get(key)!]!, keys.bounds) }); // one of the text's
    const found: (LocatedChunk | undefined)[] = text.map(() => undefined);
    const ask = async (asked: readonly ChunkKey[]) => {
      for (const chunks of await Promise.all(asked.map(read)))
        for (const chunk of chunks) {
          const { record } = chunk.decoded;
          const number = numbers.get(record.key);
          if (number === undefined || record.space !== space || record.root !== root) continue;
          if (!this.#indexes.isStale(record.key)) found[number] ??= chunk;
        }
    };
    const ends = text.filter((key, i) => isRunEnd(key) || i === text.length - 1);
    for (let from = 0; from < ends.length; from += mostEnds) {
      const asked = ends.slice(from, from + mostEnds);
      await ask(asked);
      if (found[numbers.get(asked.at(-1)!)!] === undefined) break; // one of the text's
    }
    await ask(insideOf(text, found));
    const first = found.indexOf(undefined);
    const leading = found.slice(0, first === -1 ? found.length : first) as LocatedChunk[]; // none before the first that is not
    return leading.map((chunk) => ({
      id: this.#indexes.located.add(chunk),
      payloadBytes: chunk.decoded.record.payloadBytes,
    }));
  }

  async read(id: RecordId, key: ChunkKey, into: PartMemory, signal: AbortSignal): Promise<"read" | "gone"> {
    const { located } = this.#indexes;
    const known = located.byId(id) ?? (await this.#lookUp(key, signal));
    if (known === undefined || known.decoded.record.key !== key || !fits(known.decoded, into)) return "gone";
    if ((await this.#readAt(known, into, signal)) === "read") return "read";
    this.#indexes.noteStale(key);
    const anew = await this.#lookUp(key, signal);
    if (anew === undefined || anew.data === known.data || !isAlike(anew, known)) return "gone";
    if ((await this.#readAt(anew, into, signal)) === "gone") return "gone";
    this.#indexes.wasWritten(anew);
    return "read";
  }

  async write(
    record: ChunkRecord,
    payloads: readonly Uint8Array[],
    signal: AbortSignal,
  ): Promise<RecordId | "rejected"> {
    const bytes = bytesOf(record);
    if (!this.#takes(record, bytes)) return this.#reject(record.key);
    this.#rejected.delete(record.key);
    this.#pendingBytes += bytes;
    try {
      const chunk = await this.#gathering.add(record, payloads, signal);
      if (chunk === "rejected") {
        this.#refusedUntil = performance.now() + refusedMs;
        return this.#reject(record.key);
      }
      this.#counts.records += 1;
      this.#counts.writtenStoredBytes += chunk.decoded.storedBytes.reduce((sum, each) => sum + each, 0);
      return this.#indexes.located.add(chunk);
    } finally {
      this.#pendingBytes -= bytes;
    }
  }

  stats(): S3TierStats {
    const { client, maxBytes } = this.#options;
    return {
      ...this.#counts,
      // What others have written, and what has gone, only the store knows.
      usedBytes: this.#counts.writtenStoredBytes,
      capacityBytes: 0,
      corruptRecords: this.#counts.corruptRecords + this.#indexes.corruptRecords,
      where: client.where,
      ...(maxBytes !== undefined && { quota: { limitBytes: maxBytes } }),
      requests: { ...client.counts },
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#gathering.flush();
    this.#touches.close();
    this.#options.client.close();
    await Promise.resolve();
  }

  async #timed(stretch: Stretch, store: () => Promise<StoredStretch>): Promise<StoredStretch> {
    const ended = this.#rate.begin();
    let sentBytes = 0;
    try {
      const stored = await store();
      if (stored !== "rejected" && stored.chunks.some(({ data }) => data === stretch.data)) sentBytes = stretch.bytes;
      return stored;
    } finally {
      ended(sentBytes);
    }
  }

  #takes({ parent }: ChunkRecord, bytes: number): boolean {
    const { access, maxRecordBytes } = this.#options;
    if (access === "read" || bytes > maxRecordBytes || performance.now() < this.#refusedUntil) return false;
    if (this.#rejected.has(parent)) return false;
    return this.#pendingBytes === 0 || this.#pendingBytes + bytes <= this.#rate.roomBytes;
  }

  #reject(key: ChunkKey): "rejected" {
    this.#rejected.add(key);
    for (const oldest of this.#rejected) {
      if (this.#rejected.size <= rememberedRejected) break;
      this.#rejected.delete(oldest);
    }
    return "rejected";
  }

  /** By its own name. */
  async #lookUp(key: ChunkKey, signal: AbortSignal): Promise<LocatedChunk | undefined> {
    return (await this.#indexes.read(key, signal)).find(({ decoded }) => decoded.record.key === key);
  }

  async #readAt(chunk: LocatedChunk, into: PartMemory, signal: AbortSignal): Promise<"read" | "gone"> {
    const name = `d/${chunk.data}`;
    const ranges = rangesOf(chunk, into);
    const outcomes = await allEnded(ranges.map((range) => this.#reader.read({ name, ...range, signal })));
    for (const facts of outcomes) {
      if (facts === undefined || this.#touches.isDead(facts.ageMs)) return "gone";
      this.#touches.used(name, facts.ageMs);
    }
    const { decoded } = chunk;
    const verified = await allEnded(
      into.map(async (view, part) => view === undefined || (await restored(decoded, part, view, this.#options.packer))),
    );
    if (verified.includes(false)) {
      this.#counts.corruptRecords += 1;
      this.#indexes.noteStale(decoded.record.key);
      throw new RepriseError("RECORD_CORRUPT", `a record of chunk ${decoded.record.key} is not what its head says`);
    }
    this.#counts.readStoredBytes += into.reduce(
      (sum, view, part) => sum + (view === undefined ? 0 : decoded.storedBytes[part]!), // one for each part
      0,
    );
    return "read";
  }
}

/** For each chunk, how many its run may have up to it: the first run may have begun before the text that is asked for. */
function runsUpTo(text: readonly ChunkKey[]): number[] {
  let chunks = Number.POSITIVE_INFINITY;
  return text.map((key) => {
    const upTo = Math.min(chunks, maxRunChunks);
    chunks = isRunEnd(key) ? 1 : chunks + 1;
    return upTo;
  });
}

/** Chunks inside of runs that were not found whole: of those whose end is there, and of the first whose end is not. */
function insideOf(text: readonly ChunkKey[], found: readonly (LocatedChunk | undefined)[]): ChunkKey[] {
  const inside: ChunkKey[] = [];
  let run: ChunkKey[] = [];
  for (const [i, key] of text.entries()) {
    const isLast = isRunEnd(key) || i === text.length - 1;
    if (found[i] === undefined && !isLast) run.push(key);
    if (!isLast) continue;
    inside.push(...run);
    run = [];
    if (found[i] === undefined) break;
  }
  return inside.slice(0, mostInside);
}

/** What is to be read for the parts that are wanted: ranges of the data object, and where their bytes go. */
function rangesOf(
  { offset, decoded }: LocatedChunk,
  into: PartMemory,
): { readonly from: number; readonly spans: Span[] }[] {
  const ranges: { from: number; to: number; spans: Span[] }[] = [];
  let at = offset;
  for (const [part, bytes] of decoded.storedBytes.entries()) {
    const view = into[part];
    const last = ranges.at(-1);
    if (view !== undefined && bytes > 0) {
      const arrival = arrivalOf(decoded, part, view);
      if (last === undefined || at - last.to > mostSkippedBytes)
        ranges.push({ from: at, to: at + bytes, spans: [arrival] });
      else {
        if (at > last.to) last.spans.push({ skippedBytes: at - last.to });
        last.spans.push(arrival);
        last.to = at + bytes;
      }
    }
    at += bytes;
  }
  return ranges;
}

function isAlike(one: LocatedChunk, other: LocatedChunk): boolean {
  return one.decoded.record.payloadBytes.join() === other.decoded.record.payloadBytes.join();
}
