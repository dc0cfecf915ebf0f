/**
 * A tier below the pool: a place where chunks are kept as records (disk now; shared stores later).
 *
 *     Tier       find, read, write, stats        every tier
 *     OwnedLog   recover, drop, clear, …         one that nobody else writes, and that can list what it has
 *
 * A record is one chunk: its identity, its tokens and the payloads of all parts, protected by checksums that are verified
 * on every read. Tiers move bytes between their medium and pool slots and decide nothing: the cache decides what is
 * written, read and dropped. A log lists what it kept once, at the start. A tier without one is shared: it is asked for a
 * text's keys when the text is looked up, and what it has may go at any time. Every tier passes src/tiers/tier-suite.ts,
 * a log src/tiers/log-suite.ts too.
 */
import type { ChunkKey, RootKey, TenantName } from "./identity/keys.ts";
import type { Tokens } from "./identity/tokens.ts";
import type { SpaceId } from "./identity/space.ts";

/**
 * Where a token's KV may be found: the one list of tiers, and a new tier is a line of it. `number` names the tier on the wire
 * (docs in wire/protocol.ts; `TIER_NAMES` in Python) and is never given to another; `where` is for people.
 */
export const tierTable = {
  /** Inside the engine itself. */
  resident: { number: 0, where: "in the engine" },
  memory: { number: 1, where: "in memory" },
  disk: { number: 2, where: "on disk" },
  valkey: { number: 3, where: "in Valkey" },
  s3: { number: 4, where: "in S3" },
  peer: { number: 5, where: "on another host" },
  nixl: { number: 6, where: "where NIXL keeps it" },
  mooncake: { number: 7, where: "in Mooncake" },
} as const satisfies Readonly<Record<string, { readonly number: number; readonly where: string }>>;
export type TierName = keyof typeof tierTable;

export const tierNames = Object.keys(tierTable) as readonly TierName[]; // its keys

/** For people: "on disk". A cache of another version may name tiers that this one does not know. */
export function whereIs(name: string): string {
  const known = tierNames.find((tier) => tier === name);
  return known === undefined ? `in ${name}` : tierTable[known].where;
}

/** The numbers by name, as the wire has them. */
export function tierNumbers(): Readonly<Record<TierName, number>> {
  return Object.fromEntries(tierNames.map((name) => [name, tierTable[name].number])) as Record<TierName, number>; // all names
}

declare const brand: unique symbol;
/** Names a record within one tier, for as long as the tier is open. */
export type RecordId = number & { readonly [brand]: "RecordId" };

/** The identity and shape of a chunk, as stored beside its payloads. */
export interface ChunkRecord {
  readonly space: SpaceId;
  readonly root: RootKey;
  readonly key: ChunkKey;
  /** The chunk before it, or the root. */
  readonly parent: ChunkKey | RootKey;
  /** Position of the first token in the text. */
  readonly firstToken: number;
  readonly tokens: Tokens;
  /** Payload lengths by part (identity/space.ts); 0: the chunk has none of it. */
  readonly payloadBytes: readonly number[];
  /** Whose share of a store it takes: of the root's own unless somebody has said so. Not stored. */
  readonly tenant?: TenantName;
}

export interface StoredRecord extends ChunkRecord {
  readonly id: RecordId;
}

/** A record that was asked for by its key: whoever asked knows the rest. */
export interface FoundRecord {
  readonly id: RecordId;
  /** Payload lengths by part (identity/space.ts); 0: the chunk has none of it. */
  readonly payloadBytes: readonly number[];
}

/** The most that a record of a space has. */
export interface RecordBounds {
  readonly parts: number;
  readonly tokens: number;
}

/** Keys of consecutive chunks of a text, which a tier is asked for. */
export interface AskedKeys extends Iterable<ChunkKey> {
  /** Of their records: nothing longer is taken from a store. Not given: the most that any record has. */
  readonly bounds?: RecordBounds;
}

/**
 * Where the payloads of a record go, by part. Undefined: that part is not wanted, and is neither read nor verified. One of
 * 0 bytes may have an empty view.
 */
export type PartMemory = readonly (Uint8Array | undefined)[];

/** Some records of one space that a log kept. */
export interface RecordBatch {
  readonly space: SpaceId;
  readonly count: number;
  /** Reads the records, those that are still there; when nobody asks for the space nothing is read. Each parent before its children where the log can tell. */
  records(): AsyncIterable<StoredRecord>;
}

export interface TierStats {
  readonly records: number;
  readonly usedBytes: number;
  readonly capacityBytes: number;
  /** Records dropped because a checksum did not match, since the tier was opened. */
  readonly corruptRecords: number;
  /** Where a shared tier is, for people: without secrets. */
  readonly where?: string;
  /** What hosts may keep there together, and what they do as far as the tier knows now. */
  readonly quota?: TierQuota;
}

export interface TierQuota {
  readonly limitBytes: number;
  readonly usedBytes?: number;
}

/** What the cache tells a tier that has to make room. */
export interface TierOwner {
  /** True when the record is worth rewriting instead of losing it with its region. */
  isWanted(id: RecordId): boolean;
  /** The records are gone. */
  onEvicted(ids: readonly RecordId[]): void;
  /** The record was rewritten elsewhere. */
  onMoved(from: RecordId, to: RecordId): void;
}

/** What compacting did, by the place (a drive's directory). */
export interface Compacted {
  /** Bytes given back. */
  readonly freedBytes: Readonly<Record<string, number>>;
  /** Bytes of records that were written anew. */
  readonly movedBytes: Readonly<Record<string, number>>;
}

export interface Tier extends AsyncDisposable {
  readonly name: TierName;
  /** What it has is written elsewhere: nobody calls {@link write}, which rejects all, and no chunk waits for it. */
  readonly isReadOnly?: true;

  /**
   * What it has of consecutive chunks of a text: the leading ones of `keys`, up to the first that it lacks. Keys are hashed
   * as they are taken, so one that looks them up one by one should stop there. An
   * {@link OwnedLog} may leave out what its owner knows: what it wrote since, and what a batch has given.
   *
   * Whoever asks waits no longer than the signal, and takes what comes later for absent.
   *
   * @throws RepriseError TIER_UNAVAILABLE when the medium fails.
   */
  find(space: SpaceId, root: RootKey, keys: AskedKeys, signal: AbortSignal): Promise<readonly FoundRecord[]>;

  /**
   * Reads payloads into `into` (each as long as its payload, or padded as for {@link write}) and verifies them, and that they
   * are the payloads of `key`.
   *
   * @param id as {@link find} or {@link write} gave it. A tier that reads by the key may ignore it: then a record that
   *   somebody has written anew with other parts is gone for those who know the old one's.
   * @param signal ends it early. However it ends, nothing touches `into` any more; the same holds for what {@link write} is given.
   * @throws RepriseError RECORD_CORRUPT (the record is dropped) or TIER_UNAVAILABLE.
   */
  read(id: RecordId, key: ChunkKey, into: PartMemory, signal: AbortSignal): Promise<"read" | "gone">;

  /**
   * Stores a chunk; makes room first, so that the capacity is never exceeded. Each view is as long as its payload, or as the
   * payload padded to whole pages of 4 KiB: what lies between the two is the tier's to overwrite, and page-aligned memory of
   * whole pages is written without a copy.
   *
   * @param payloads by part; of one that the chunk does not have an empty view
   * @returns the record, under a number that no other has, or `"rejected"` when there is no room (full disk, record larger
   *   than the capacity).
   * @throws RepriseError TIER_UNAVAILABLE when the medium fails.
   */
  write(record: ChunkRecord, payloads: readonly Uint8Array[], signal: AbortSignal): Promise<RecordId | "rejected">;

  stats(): TierStats;
}

/** What a tier can do whose records are its owner's alone. Either all of it or nothing: {@link ownedLog} asks. */
export interface OwnedLog {
  /**
   * Every record that survived, the older first. Called once, before any write, and read to its end; writes and reads of what
   * was given may go on meanwhile.
   */
  recover(owner: TierOwner): AsyncIterable<RecordBatch>;

  /** The record is still there. */
  has(id: RecordId): boolean;

  /**
   * The checksums of a record's payloads, by part, for the pool to note ({@link ./cache/pool/slot-pool.ts}; both compute
   * ./tiers/payload-checksum.ts). Known right after the record was written or read; undefined when it is gone, and a log
   * need not remember those of all that it holds.
   */
  checksums(id: RecordId): readonly bigint[] | undefined;

  /** The chunk of a record was given to an engine, from this tier or one above. The count outlives the log, give or take a minute. */
  countHit(id: RecordId): void;

  /** Forgets a record; its room comes back when its region does. */
  drop(id: RecordId): void;

  /** Forgets every record and gives its room back, for good: none is there when the log is opened again. Tells the owner. */
  clear(): Promise<void>;

  /**
   * Gives back room that no record needs, at the price of writing others anew. Loses and evicts nothing. Ends early with
   * the signal; what was done until then stays done.
   *
   * @throws RepriseError TIER_UNAVAILABLE
   */
  compact(signal: AbortSignal): Promise<Compacted>;

  /** Makes what was written survive a power cut. */
  flush(): Promise<void>;
}

export interface LogTier extends Tier, OwnedLog {}

/** The tier as the log that it is; undefined for a shared one. */
export function ownedLog(tier: Tier): LogTier | undefined {
  return "recover" in tier ? (tier as LogTier) : undefined; // whoever recovers has the rest
}
