/**
 * What a guest sees of the cache: the same verbs in the cache's own process ({@link ../cache/cache.ts}) and over the
 * wire ({@link ./wire/guest/link.ts}), so that engines, the library and the tests are written once.
 *
 * The life of a chunk:
 *
 *     reserve ──► (guest writes the slot) ──► commit ──► visible ──► load ──► (guest reads the slot) ──► release
 *        └──────────────► abandon, or the session ends: it never was
 *
 * What is stored of a chunk is its parts: one for each group of each rank ({@link ./identity/space.ts}), and each has a slot and
 * leases of its own. With tensor parallelism each rank has a session, and a chunk is visible when all ranks have committed its
 * rows; where one abandons some, what the others wrote or commit later is given back as well.
 *
 *     text              │ chunk 0 │ chunk 1 │ chunk 2 │ tail │
 *     group 0, rows     │    ▤    │    ▤    │    ▤    │  ▤   │     each chunk's, and all of them are loaded
 *     group 1, snapshot │         │         ●         │      ●     at some ends; of a load the last chunk's only
 *
 * A snapshot says what all the text before it has left in a model's recurrent layers. A guest has it just where it stands, so
 * it saves it there: what it reserves are the missing rows of a text, and the snapshot at that text's end. In a space with
 * snapshots a stored prefix ends where there is one: no part of a chunk is found, and no chunk without a snapshot after it.
 *
 * A session belongs to one connection; its leases fall when it closes. Every verb has a deadline, and none of them throws
 * on a cache that is slow, full or gone: lookups and loads then answer with fewer tokens, reservations with fewer chunks.
 * The memory of the tokens is the caller's again at a verb's first await (a load begins when its first batch is asked for).
 */
import type { Root } from "./identity/keys.ts";
import type { Tokens } from "./identity/tokens.ts";
import type { SpaceDescription, SpaceId } from "./identity/space.ts";
import type { TierName } from "./tier.ts";

declare const brand: unique symbol;
/** One lease of one session. */
export type LeaseId = number & { readonly [brand]: "LeaseId" };

/** Groups that a space may have. */
export const maxGroups = 64;

export interface SessionOptions {
  readonly space: SpaceDescription;
  /** This guest's tensor-parallel rank, below `space.tensorParallel`. */
  readonly rank: number;
  /** By group: bytes of a full chunk's payload of one rank, the size of that group's slots. */
  readonly slotBytes: readonly number[];
  /** What people call the model, for lists of what is stored. It identifies nothing; "" unless given. */
  readonly model?: string;
}

/** A place in the pool. `bytes` is the payload's length, at most the slot's. */
export interface Slot {
  readonly offset: number;
  readonly bytes: number;
}

/**
 * How stored KV fits the asked text. *exact*: the same tokens from the text's start on, so it is what computing would give.
 * *moved*: the same run of tokens after another text or at another position; positions must be rewritten, and what is
 * computed after it is approximate.
 */
export type SegmentKind = "exact" | "moved";

/**
 * A run of the asked text whose KV is stored in one tier. A stored prefix is exact segments that follow each other from 0 on,
 * one for each run of chunks in one tier:
 *
 *     stored text            │      source ─────────► …   │
 *                                     ╲          ╲             source = from when it is exact
 *     asked text     │ …               from ──────► to       │
 */
export interface Segment {
  readonly kind: SegmentKind;
  /** Where it begins in the text it was stored with. */
  readonly source: number;
  /** Where it begins and ends in the asked text, in tokens. */
  readonly from: number;
  readonly to: number;
  readonly tier: TierName;
}

export interface Lookup {
  /** What is stored of the text, in its order, counted token by token. */
  readonly segments: readonly Segment[];
  /** Tokens of the stored prefix: where the exact segments that follow each other from the text's start on end. */
  readonly hitTokens: number;
  /**
   * Of the text, from the start, those that a load brings: beyond them computing is expected to be faster than loading.
   * All of them where {@link ReadOptions.computeMsPerToken} was not given.
   */
  readonly worthTokens: number;
}

/** A lookup names no more of them: what comes after them is not found. */
export const maxSegments = 65_536;

export function lookupOf(segments: readonly Segment[], worthTokens: number): Lookup {
  let hitTokens = 0;
  for (const { kind, from, to } of segments) {
    if (kind !== "exact" || from !== hitTokens) break;
    hitTokens = to;
  }
  return { segments, hitTokens, worthTokens };
}

export interface ReadOptions extends WaitOptions {
  /** What computing a token of a prompt costs this guest, as it has measured it. Not given: everything is loaded. */
  readonly computeMsPerToken?: number | undefined;
}

export interface LookupOptions extends ReadOptions {
  /** Called where others are asked for more of the text, with what is known of it before they have answered. */
  readonly onAsk?: ((known: Lookup) => void) | undefined;
  /** Somebody has just stored the text elsewhere: others are asked until they have all of it, or the deadline is over. */
  readonly awaited?: boolean | undefined;
}

/** What a load begins with. */
export interface Found extends Lookup {
  /** Where it is {@link LoadOptions.onlyReady}: others may have more of the text, and a lookup would ask them. */
  readonly more: boolean;
}

export interface LoadOptions extends ReadOptions {
  /**
   * Only the chunks that are in memory now, up to the first that is not: nothing is read from below and nothing waited
   * for. For guests that ask in the middle of a step and load the rest later; such a load counts as a lookup too.
   */
  readonly onlyReady?: boolean;
  /** Called once, before the first batch: what {@link CacheSession.lookup} would have answered at that moment. */
  readonly onFound?: (found: Found) => void;
  /** As in {@link BringOptions}. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * A part of a chunk ready to be read from its slot, and which of the chunk's tokens are the asked text's:
 *
 *     payload        │ skip │ take │ rest │        tokenCount tokens, from `firstToken` of the stored text on
 *     asked text         … │ take │ …              from `target` on; firstToken + skip when it is exact
 *
 * A snapshot is the state after the last of them; of its chunk all tokens are the text's.
 */
export interface LoadedPart {
  readonly lease: LeaseId;
  /** Whose part of the chunk it is, by number. */
  readonly group: number;
  readonly kind: SegmentKind;
  /** Position of the chunk's first token in the text it was stored with: the one that its payload is written for. */
  readonly firstToken: number;
  /** Tokens in the payload. */
  readonly tokenCount: number;
  /** Tokens of the payload before the first that is the text's: none in a stored prefix. */
  readonly skip: number;
  /** How many after those are the text's: smaller than the rest in the last chunk of a partial match. */
  readonly take: number;
  /** Position of the first of them in the asked text. */
  readonly target: number;
  /** Where the chunk was found. */
  readonly tier: TierName;
  readonly slot: Slot;
}

/** A part of a chunk whose slot the guest may write now. `slot.bytes` is the room there is. */
export interface ReservedPart {
  readonly lease: LeaseId;
  readonly group: number;
  readonly firstToken: number;
  readonly tokenCount: number;
  readonly slot: Slot;
}

export interface Reservation {
  /** What of the text nobody has stored or is storing: rows chunk by chunk, in order, then the snapshot at its end. Empty when all is there. */
  readonly parts: readonly ReservedPart[];
  /** True when the pool had no room for some of it: what comes after the last part given is not stored. */
  readonly full: boolean;
}

/** What was written into a reserved slot. */
export interface WrittenPart {
  readonly lease: LeaseId;
  readonly bytes: number;
}

/** What clearing the cache has done. */
export interface Cleared {
  /** Bytes that became free, by tier. */
  readonly bytesByTier: Readonly<Record<string, number>>;
  /** Chunks that somebody is reading or writing: they go when nobody does. */
  readonly chunksInUse: number;
}

export interface WaitOptions {
  /** The answer is wanted within this time; what is not there by then counts as a miss. */
  readonly deadlineMs: number;
}

export interface BringOptions extends WaitOptions {
  /**
   * Nobody wants the answer any more: nothing more is read, and every lease is given back at once. What has been read stays in the pool. In
   * the cache's own process the verb ends when the reads that had begun have, 16 MiB of the text at most.
   */
  readonly signal?: AbortSignal | undefined;
}

export interface CacheSession {
  readonly spaceId: SpaceId;
  readonly chunkTokens: number;
  /** The pool's file; slots are offsets into it. Guests on this host map it. */
  readonly pool: { readonly path: string; readonly bytes: number };

  /** How much of `tokens` is stored, and where. Changes nothing. */
  lookup(root: Root, tokens: Tokens, options: LookupOptions): Promise<Lookup>;

  /**
   * Leases the chunks that hold the longest stored prefix of `tokens`, from the one that contains position `from`, and
   * yields their parts in order: at once all that are in the pool already, later those that have come meanwhile, never an
   * empty batch. The caller releases each lease it was given. Ends where loading no longer beats computing, and early, without
   * throwing, at the first chunk that fails or is late; in a space with snapshots what came is of use only with the last
   * chunk's. Nothing happens before the first batch is asked for.
   */
  load(root: Root, tokens: Tokens, from: number, options: LoadOptions): AsyncIterable<readonly LoadedPart[]>;

  /**
   * True while the lease stands. Ask after copying out of or into a slot: once a lease has fallen (the cache's process
   * ended, the connection broke), the slot may hold another chunk's bytes, and the copy counts for nothing.
   */
  holds(lease: LeaseId): boolean;

  /** Gives leases of {@link load} back. Unknown or fallen ones are ignored. */
  release(leases: readonly LeaseId[]): void;

  /**
   * Says that `tokens` will be wanted again, without reading them: what is stored of them counts as used now.
   *
   * @returns tokens that are stored.
   */
  touch(root: Root, tokens: Tokens, wait: WaitOptions): Promise<number>;

  /**
   * Brings what is stored of `tokens`, here or in a shared store, into the pool, for a request that will come: for a router or an
   * agent that knows of it before the engine does. What comes may be evicted again, the oldest first, as all else.
   *
   * @returns tokens that are in the pool, from the start of the text.
   */
  prefetch(root: Root, tokens: Tokens, options: BringOptions): Promise<number>;

  /**
   * Brings what is stored of `tokens` into the pool and keeps it there for `seconds` (an hour at most), for a session that
   * will come back. A further pin can only lengthen the time; 0 ends it. Pins may take a quarter of the pool together. What
   * was pinned when the signal fires stays so.
   *
   * @returns tokens that are kept (or no longer are), from the start of the text.
   */
  pin(root: Root, tokens: Tokens, seconds: number, options: BringOptions): Promise<number>;

  /** Asks for slots for the rows of `tokens` that are not stored, tail included, and for the snapshot at their end. */
  reserve(root: Root, tokens: Tokens, wait: WaitOptions): Promise<Reservation>;

  /** Makes what was written visible; resolves when it is. */
  commit(parts: readonly WrittenPart[], wait: WaitOptions): Promise<void>;

  /** Gives reserved slots back unwritten. Unknown or fallen ones are ignored. */
  abandon(leases: readonly LeaseId[]): void;

  /** Ends the session: every lease falls. */
  close(): Promise<void>;
}
