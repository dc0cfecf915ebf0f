/**
 * A shared tier over a store of values: records as heads and pieces, checked when they are read, sealed when there are keys.
 *
 *     chunk ──► PREFIX NAME            its head (head.ts), small
 *               PREFIX RECORD PART i   a payload's pieces, named after the head's random id
 *
 *     find    heads of the first chunks, then of all others: two round trips, however long the text
 *     read    the head again unless it was seen lately, then all pieces at once, each into its place in the slot
 *     write   pieces first, the head last: what has a head is whole
 *
 * Others write there too: a record is what was asked for, token by token and byte by byte, or it is none.
 */
import { assert, RepriseError } from "../../errors.ts";
import type { ChunkKey, RootKey } from "../../identity/keys.ts";
import type { SpaceId } from "../../identity/space.ts";
import type {
  AskedKeys,
  ChunkRecord,
  FoundRecord,
  PartMemory,
  RecordId,
  Tier,
  TierName,
  TierStats,
} from "../../tier.ts";
import { allEnded } from "./all-ended.ts";
import { decodeHead, longestHead, maxHeadBytes, type Head } from "./head.ts";
import type { PayloadPacker } from "./packing.ts";
import { arrivalOf, type Compression, fits, prepared, restored } from "./payloads.ts";
import { Remembered } from "./remembered.ts";
import type { TierKey } from "./tier-keys.ts";
import type { NamedValue, ValueStore } from "./value-store.ts";

export interface ValueTierOptions {
  readonly store: ValueStore;
  /** The first one seals. None: nothing is sealed. */
  readonly keys: readonly TierKey[];
  /** Begins every name; hosts that share have the same. */
  readonly prefix: string;
  /** Of payloads: larger ones are rejected. */
  readonly maxRecordBytes: number;
  /** Reads what others have packed; without one that is not ours to read. */
  readonly packer?: PayloadPacker | undefined;
  /** What is written; "lossless" needs the packer. "none" unless given. */
  readonly compress?: Compression;
}

export interface ValueTierStats extends TierStats {
  /** What has travelled since the tier was opened: less than the KV where something was packed. */
  readonly writtenStoredBytes: number;
  readonly readStoredBytes: number;
}

/** Heads asked for first: a text that nobody has costs no more. */
const firstHeads = 16;
/** A whole number of pages, and a little less than 4 MiB: stores that give memory out in powers of two waste none. */
const pieceBytes = 4 * 1024 * 1024 - 4096;

export class ValueTier implements Tier {
  readonly name: TierName;
  readonly #options: ValueTierOptions;
  /** Between find and read. */
  readonly #heads = new Remembered<RecordId, Head>((head) => head);
  readonly #counts = { records: 0, writtenStoredBytes: 0, readStoredBytes: 0, corruptRecords: 0 };
  #lastId = 0;

  constructor(options: ValueTierOptions) {
    this.#options = options;
    this.name = options.store.tier;
  }

  async find(space: SpaceId, root: RootKey, keys: AskedKeys, signal: AbortSignal): Promise<readonly FoundRecord[]> {
    const headBytes = keys.bounds === undefined ? maxHeadBytes : longestHead(keys.bounds);
    const found: FoundRecord[] = [];
    const iterator = keys[Symbol.iterator]();
    for (let most = firstHeads; ; most = Number.POSITIVE_INFINITY) {
      const asked: ChunkKey[] = [];
      while (asked.length < most) {
        const next = iterator.next();
        if (next.done === true) break;
        asked.push(next.value);
      }
      if (asked.length === 0) return found;
      for (const [i, head] of (await this.#headsOf(asked, headBytes, signal)).entries()) {
        const { record } = head ?? {};
        if (record === undefined || record.space !== space || record.root !== root || record.key !== asked[i])
          return found;
        found.push({ id: this.#remember(head!), payloadBytes: record.payloadBytes }); // it has a record
      }
    }
  }

  async read(id: RecordId, key: ChunkKey, into: PartMemory, signal: AbortSignal): Promise<"read" | "gone"> {
    const head = this.#heads.get(id) ?? (await this.#headsOf([key], maxHeadBytes, signal))[0];
    if (head === undefined || head.record.key !== key || !fits(head, into)) return "gone";
    const wanted = into.flatMap((view, part) => {
      const bytes = head.record.payloadBytes[part]!; // it fits
      return view === undefined || bytes === 0 ? [] : [{ part, view, bytes }];
    });
    const outcomes = await allEnded(wanted.map((each) => this.#readPart(head, each, signal)));
    if (outcomes.includes("gone")) {
      this.#heads.delete(id);
      return "gone";
    }
    if (outcomes.includes("corrupt")) {
      this.#heads.delete(id);
      this.#counts.corruptRecords += 1;
      throw new RepriseError("RECORD_CORRUPT", `a record of chunk ${key} is not what its head says`);
    }
    this.#counts.readStoredBytes += wanted.reduce((sum, { part }) => sum + head.storedBytes[part]!, 0); // it fits
    return "read";
  }

  async write(
    record: ChunkRecord,
    payloads: readonly Uint8Array[],
    signal: AbortSignal,
  ): Promise<RecordId | "rejected"> {
    const { store, keys, maxRecordBytes, packer, compress } = this.#options;
    const total = record.payloadBytes.reduce((sum, bytes) => sum + bytes, 0);
    if (total > maxRecordBytes) return "rejected";
    const made = await prepared(record, payloads, {
      key: keys[0],
      packer: compress === "lossless" ? packer : undefined,
    });
    const values: NamedValue[] = made.payloads.flatMap((payload, part) =>
      piecesOf(payload).map((bytes, i) => ({ name: this.#pieceName(made.id, part, i), bytes })),
    );
    values.push({ name: this.#headName(record.key, keys[0]), bytes: made.head });
    if ((await store.write(values, this.#tenantOf(record), signal)) === "full") return "rejected";
    this.#counts.records += 1;
    this.#counts.writtenStoredBytes += made.storedBytes;
    const decoded = this.#decode(made.head);
    assert(typeof decoded === "object", "a head that was written can be read");
    return this.#remember(decoded);
  }

  stats(): ValueTierStats {
    const { store } = this.#options;
    const quota = store.quota?.();
    return {
      ...this.#counts,
      // What others have written, and what has gone, only the store knows.
      usedBytes: this.#counts.writtenStoredBytes,
      capacityBytes: 0,
      ...(store.where !== undefined && { where: store.where }),
      ...(quota !== undefined && { quota }),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#options.store[Symbol.asyncDispose]();
  }

  /** Of each chunk; undefined where there is none that is whole and ours to read. Names of older keys are tried where it lacks. */
  async #headsOf(keys: readonly ChunkKey[], headBytes: number, signal: AbortSignal): Promise<(Head | undefined)[]> {
    const { store, keys: tierKeys } = this.#options;
    const heads: (Head | undefined)[] = keys.map(() => undefined);
    for (const tierKey of tierKeys.length === 0 ? [undefined] : tierKeys) {
      const missing = keys.flatMap((key, i) => (heads[i] === undefined ? [{ key, i }] : []));
      if (missing.length === 0) break;
      const names = missing.map(({ key }) => this.#headName(key, tierKey));
      for (const [j, bytes] of (await store.getAll(names, headBytes, signal)).entries()) {
        if (bytes === undefined) continue;
        const head = this.#decode(bytes);
        if (head === "damaged") this.#counts.corruptRecords += 1;
        else if (head !== "foreign") heads[missing[j]!.i] = head; // as many as names
      }
    }
    return heads;
  }

  #decode(bytes: Buffer): Head | "foreign" | "damaged" {
    const { keys, packer } = this.#options;
    return decodeHead(bytes, { keys, unpacks: packer !== undefined });
  }

  async #readPart(
    head: Head,
    { part, view }: { part: number; view: Uint8Array },
    signal: AbortSignal,
  ): Promise<"read" | "gone" | "corrupt"> {
    const { store, packer } = this.#options;
    const outcomes = await allEnded(
      piecesOf(arrivalOf(head, part, view)).map((piece, i) =>
        store.read(this.#pieceName(head.id, part, i), piece, signal),
      ),
    );
    if (outcomes.includes("gone")) return "gone";
    return (await restored(head, part, view, packer)) ? "read" : "corrupt";
  }

  #remember(head: Head): RecordId {
    const id = (this.#lastId += 1) as RecordId;
    this.#heads.set(id, head);
    return id;
  }

  #headName(key: ChunkKey, tierKey: TierKey | undefined): string {
    return `${this.#options.prefix}${tierKey?.nameOf(key) ?? key}`;
  }

  /** A tenant has many roots where it has salts of its own. */
  #tenantOf({ tenant, root }: ChunkRecord): string {
    const name = tenant ?? root;
    return this.#options.keys[0]?.nameOf(name) ?? name;
  }

  #pieceName(recordId: string, part: number, piece: number): string {
    return `${this.#options.prefix}${recordId}:${part}:${piece}`;
  }
}

function piecesOf(bytes: Uint8Array): Uint8Array[] {
  const count = Math.ceil(bytes.length / pieceBytes);
  return Array.from({ length: count }, (_, i) => bytes.subarray(i * pieceBytes, (i + 1) * pieceBytes));
}
