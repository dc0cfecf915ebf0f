/**
 * A tier below the pool: a place where chunks are kept as records (disk now; shared stores later).
 *
 * A record is one chunk: its identity, its tokens and the payloads of all ranks, protected by checksums that are verified
 * on every read. Tiers move bytes between their medium and pool slots and decide nothing: the cache decides what is
 * written, read and dropped. Every tier passes src/tiers/tier-suite.ts.
 */
import type { ChunkKey, RootKey, Tokens } from "./cache/chunk.ts";
import type { SpaceId } from "./cache/space.ts";

/** Where a token's KV may be found; "resident" is inside the engine itself. */
export type TierName = "resident" | "memory" | "disk";

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
  /** Payload length of each rank. */
  readonly payloadBytes: readonly number[];
}

export interface StoredRecord extends ChunkRecord {
  readonly id: RecordId;
}

/** Some records of one space that a tier kept. */
export interface RecordBatch {
  readonly space: SpaceId;
  readonly count: number;
  /** Reads the records, those that are still there; when nobody asks for the space nothing is read. Each parent before its children where the tier can tell. */
  records(): AsyncIterable<StoredRecord>;
  /**
   * The record of a key, ahead of the others, where the tier can find it without reading them. @returns how to read it, or
   * undefined when it is not here; reading gives undefined when it is damaged or gone.
   */
  find?(key: ChunkKey): (() => Promise<StoredRecord | undefined>) | undefined;
}

export interface TierStats {
  readonly records: number;
  readonly usedBytes: number;
  readonly capacityBytes: number;
  /** Records dropped because a checksum did not match, since the tier was opened. */
  readonly corruptRecords: number;
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

  /**
   * Every record that survived, the older first. Called once, before any write, and read to its end; writes and reads of what
   * was given may go on meanwhile.
   */
  recover(owner: TierOwner): AsyncIterable<RecordBatch>;

  /**
   * Stores a chunk; makes room first, so that the capacity is never exceeded. Each view is as long as its payload, or as the
   * payload padded to whole pages of 4 KiB: what lies between the two is the tier's to overwrite, and page-aligned memory of
   * whole pages is written without a copy.
   *
   * @returns the record, or `"rejected"` when there is no room (full disk, record larger than the capacity).
   * @throws RepriseError TIER_UNAVAILABLE when the medium fails.
   */
  write(record: ChunkRecord, payloads: readonly Uint8Array[], signal: AbortSignal): Promise<RecordId | "rejected">;

  /**
   * Reads all ranks' payloads into `into` (each as long as its payload, or padded as for {@link write}) and verifies them, and
   * that they are the payloads of `key`.
   *
   * @throws RepriseError RECORD_CORRUPT (the record is dropped) or TIER_UNAVAILABLE.
   */
  read(id: RecordId, key: ChunkKey, into: readonly Uint8Array[], signal: AbortSignal): Promise<"read" | "gone">;

  /**
   * The checksums of a record's payloads, by rank, for the pool to note ({@link ./cache/slot-pool.ts}; both compute
   * ./tiers/payload-checksum.ts). Known right after the record was written or read; undefined when it is gone, and a tier
   * need not remember those of all that it holds.
   */
  checksums(id: RecordId): readonly bigint[] | undefined;

  /** The chunk of a record was given to an engine, from this tier or one above. The count outlives the tier, give or take a minute. */
  countHit(id: RecordId): void;

  /** Forgets a record; its room comes back when its region does. */
  drop(id: RecordId): void;

  /** Forgets every record and gives its room back, for good: none is there when the tier is opened again. Tells the owner. */
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

  stats(): TierStats;
}
