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
import type { ChunkRecord, FoundRecord, PartMemory, RecordId, Tier, TierName, TierStats } from "../../tier.ts";
import { payloadChecksum } from "../payload-checksum.ts";
import { decodeHead, HeadWriter, maxHeadBytes, type Head } from "./head.ts";
import { allEnded, fits, unseal } from "./payloads.ts";
import { type TierKey, tagBytes } from "./tier-keys.ts";
import type { NamedValue, ValueStore } from "./value-store.ts";

export interface ValueTierOptions {
  readonly store: ValueStore;
  /** The first one seals. None: nothing is sealed. */
  readonly keys: readonly TierKey[];
  /** Begins every name; hosts that share have the same. */
  readonly prefix: string;
  /** Of payloads: larger ones are rejected. */
  readonly maxRecordBytes: number;
}

export interface ValueTierStats extends TierStats {
  /** Since the tier was opened, by this host. */
  readonly writtenBytes: number;
  readonly readBytes: number;
}

/** Heads asked for first: a text that nobody has costs no more. */
const firstHeads = 16;
/** Heads remembered between find and read, the oldest go first: of some million tokens. */
const rememberedHeads = 16_384;
/** A whole number of pages, and a little less than 4 MiB: stores that give memory out in powers of two waste none. */
const pieceBytes = 4 * 1024 * 1024 - 4096;
const noTag = new Uint8Array(tagBytes);

export class ValueTier implements Tier {
  readonly name: TierName;
  readonly #options: ValueTierOptions;
  readonly #heads = new Map<RecordId, Head>();
  readonly #counts = { records: 0, writtenBytes: 0, readBytes: 0, corruptRecords: 0 };
  #lastId = 0;

  constructor(options: ValueTierOptions) {
    this.#options = options;
    this.name = options.store.tier;
  }

  async find(
    space: SpaceId,
    root: RootKey,
    keys: Iterable<ChunkKey>,
    signal: AbortSignal,
  ): Promise<readonly FoundRecord[]> {
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
      for (const [i, head] of (await this.#headsOf(asked, signal)).entries()) {
        const { record } = head ?? {};
        if (record === undefined || record.space !== space || record.root !== root || record.key !== asked[i])
          return found;
        found.push({ id: this.#remember(head!), payloadBytes: record.payloadBytes }); // it has a record
      }
    }
  }

  async read(id: RecordId, key: ChunkKey, into: PartMemory, signal: AbortSignal): Promise<"read" | "gone"> {
    const head = this.#heads.get(id) ?? (await this.#headsOf([key], signal))[0];
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
    this.#counts.readBytes += wanted.reduce((sum, { bytes }) => sum + bytes, 0);
    return "read";
  }

  async write(
    record: ChunkRecord,
    payloads: readonly Uint8Array[],
    signal: AbortSignal,
  ): Promise<RecordId | "rejected"> {
    const { store, keys, maxRecordBytes } = this.#options;
    const total = record.payloadBytes.reduce((sum, bytes) => sum + bytes, 0);
    if (total > maxRecordBytes) return "rejected";
    const writer = new HeadWriter(keys[0]);
    const id = writer.id.toString("hex");
    const values: NamedValue[] = [];
    const parts: { checksum: bigint; tag: Uint8Array }[] = [];
    for (const [part, bytes] of record.payloadBytes.entries()) {
      const payload = payloads[part]!.subarray(0, bytes); // one for each part
      const { sealed, tag } = writer.sealing?.seal(part + 1, payload, writer.id) ?? { sealed: payload, tag: noTag };
      for (const [i, piece] of piecesOf(sealed).entries())
        values.push({ name: this.#pieceName(id, part, i), bytes: piece });
      parts.push({ checksum: await payloadChecksum(payload), tag });
    }
    const head = writer.encode(record, parts);
    values.push({ name: this.#headName(record.key, keys[0]), bytes: head });
    if ((await store.write(values, this.#tenantName(record.root), signal)) === "full") return "rejected";
    this.#counts.records += 1;
    this.#counts.writtenBytes += total;
    const decoded = decodeHead(head, keys);
    assert(typeof decoded === "object", "a head that was written can be read");
    return this.#remember(decoded);
  }

  stats(): ValueTierStats {
    const { records, writtenBytes } = this.#counts;
    // What others have written, and what has gone, only the store knows.
    return { ...this.#counts, records, usedBytes: writtenBytes, capacityBytes: 0 };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#options.store[Symbol.asyncDispose]();
  }

  /** Of each chunk; undefined where there is none that is whole and ours to read. Names of older keys are tried where it lacks. */
  async #headsOf(keys: readonly ChunkKey[], signal: AbortSignal): Promise<(Head | undefined)[]> {
    const { store, keys: tierKeys } = this.#options;
    const heads: (Head | undefined)[] = keys.map(() => undefined);
    for (const tierKey of tierKeys.length === 0 ? [undefined] : tierKeys) {
      const missing = keys.flatMap((key, i) => (heads[i] === undefined ? [{ key, i }] : []));
      if (missing.length === 0) break;
      const names = missing.map(({ key }) => this.#headName(key, tierKey));
      for (const [j, bytes] of (await store.getAll(names, maxHeadBytes, signal)).entries()) {
        if (bytes === undefined) continue;
        const head = decodeHead(bytes, tierKeys);
        if (head === "damaged") this.#counts.corruptRecords += 1;
        else if (head !== "foreign") heads[missing[j]!.i] = head; // as many as names
      }
    }
    return heads;
  }

  async #readPart(
    head: Head,
    { part, view, bytes }: { part: number; view: Uint8Array; bytes: number },
    signal: AbortSignal,
  ): Promise<"read" | "gone" | "corrupt"> {
    const { store } = this.#options;
    const payload = view.subarray(0, bytes);
    const pieces = piecesOf(payload);
    const outcomes = await allEnded(
      pieces.map((piece, i) => store.read(this.#pieceName(head.id, part, i), piece, signal)),
    );
    if (outcomes.includes("gone")) return "gone";
    if (head.sealed !== undefined && !unseal(head, part, payload, pieces)) return "corrupt";
    view.fill(0, bytes);
    return (await payloadChecksum(payload)) === head.checksums[part] ? "read" : "corrupt";
  }

  #remember(head: Head): RecordId {
    const id = (this.#lastId += 1) as RecordId;
    this.#heads.set(id, head);
    for (const oldest of this.#heads.keys()) {
      if (this.#heads.size <= rememberedHeads) break;
      this.#heads.delete(oldest);
    }
    return id;
  }

  #headName(key: ChunkKey, tierKey: TierKey | undefined): string {
    return `${this.#options.prefix}${tierKey?.nameOf(key) ?? key}`;
  }

  /** Every root is a tenant here: hosts know each other's by nothing else. */
  #tenantName(root: RootKey): string {
    return this.#options.keys[0]?.nameOf(root) ?? root;
  }

  #pieceName(recordId: string, part: number, piece: number): string {
    return `${this.#options.prefix}${recordId}:${part}:${piece}`;
  }
}

function piecesOf(bytes: Uint8Array): Uint8Array[] {
  const count = Math.ceil(bytes.length / pieceBytes);
  return Array.from({ length: count }, (_, i) => bytes.subarray(i * pieceBytes, (i + 1) * pieceBytes));
}
