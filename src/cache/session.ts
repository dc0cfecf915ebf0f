/**
 * What a guest sees of the cache: the same verbs in the cache's own process ({@link ../cache/cache.ts}) and over the
 * wire ({@link ../wire/client.ts}), so that engines, the library and the tests are written once.
 *
 * The life of a chunk:
 *
 *     reserve ──► (guest writes the slot) ──► commit ──► visible ──► load ──► (guest reads the slot) ──► release
 *        └──────────────► abandon, or the session ends: it never was
 *
 * With tensor parallelism each rank has a session and a slot of its own for every chunk. A chunk is visible when all ranks
 * have committed it; where one abandons it, what the others wrote or commit later is given back as well.
 *
 * A session belongs to one connection; its leases fall when it closes. Every verb has a deadline, and none of them throws
 * on a cache that is slow, full or gone: lookups and loads then answer with fewer tokens, reservations with fewer chunks.
 * The memory of the tokens is the caller's again at a verb's first await (a load begins when its first batch is asked for).
 */
import type { Root, Tokens } from "./chunk.ts";
import type { SpaceDescription, SpaceId } from "./space.ts";
import type { TierName } from "../tier.ts";

declare const brand: unique symbol;
/** One lease of one session. */
export type LeaseId = number & { readonly [brand]: "LeaseId" };

export interface SessionOptions {
  readonly space: SpaceDescription;
  /** This guest's tensor-parallel rank, below `space.tensorParallel`. */
  readonly rank: number;
  /** Bytes of a full chunk's payload of one rank: the size of the slots of this space. */
  readonly slotBytes: number;
}

/** A place in the pool. `bytes` is the payload's length, at most the slot's. */
export interface Slot {
  readonly offset: number;
  readonly bytes: number;
}

export interface Lookup {
  /** Tokens from the start of the text whose KV is stored, counted token by token. */
  readonly hitTokens: number;
  /** The same tokens by the tier they would come from. */
  readonly tokensByTier: Partial<Record<TierName, number>>;
  /**
   * Of `hitTokens`, from the start, those that a load brings: beyond them computing is expected to be faster than loading.
   * All of them where {@link ReadOptions.computeMsPerToken} was not given.
   */
  readonly worthTokens: number;
}

export interface ReadOptions extends WaitOptions {
  /** What computing a token of a prompt costs this guest, as it has measured it. Not given: everything is loaded. */
  readonly computeMsPerToken?: number | undefined;
}

export interface LoadOptions extends ReadOptions {
  /**
   * Only the chunks that are in memory now, up to the first that is not: nothing is read from below and nothing waited
   * for. For guests that ask in the middle of a step and load the rest later; such a load counts as a lookup too.
   */
  readonly onlyReady?: boolean;
  /** Called once, before the first batch: what {@link CacheSession.lookup} would have answered at that moment. */
  readonly onFound?: (found: Lookup) => void;
}

/** A chunk ready to be read from its slot. */
export interface LoadedChunk {
  readonly lease: LeaseId;
  /** Position of the chunk's first token in the text. */
  readonly firstToken: number;
  /** Tokens in the payload. */
  readonly tokenCount: number;
  /** How many of them, from the first, are the text's: smaller than `tokenCount` in the last chunk of a partial match. */
  readonly matchedTokens: number;
  /** Where the chunk was found. */
  readonly tier: TierName;
  readonly slot: Slot;
}

/** A chunk whose slot the guest may write now. `slot.bytes` is the room there is. */
export interface ReservedChunk {
  readonly lease: LeaseId;
  readonly firstToken: number;
  readonly tokenCount: number;
  readonly slot: Slot;
}

export interface Reservation {
  /** Chunks of the text that nobody has stored or is storing, in order. Empty when all are there. */
  readonly chunks: readonly ReservedChunk[];
  /** True when the pool had no room for some of the missing ones: those after the last one given are not stored. */
  readonly full: boolean;
}

/** What was written into a reserved slot. */
export interface WrittenChunk {
  readonly lease: LeaseId;
  readonly bytes: number;
}

export interface WaitOptions {
  /** The answer is wanted within this time; what is not there by then counts as a miss. */
  readonly deadlineMs: number;
}

export interface CacheSession {
  readonly spaceId: SpaceId;
  readonly chunkTokens: number;
  /** The pool's file; slots are offsets into it. Guests on this host map it. */
  readonly pool: { readonly path: string; readonly bytes: number };

  /** How much of `tokens` is stored, and where. Changes nothing. */
  lookup(root: Root, tokens: Tokens, options: ReadOptions): Promise<Lookup>;

  /**
   * Leases the chunks that hold the longest stored prefix of `tokens`, from the one that contains position `from`, and
   * yields them in order: at once all that are in the pool already, later those that have come meanwhile, never an empty
   * batch. The caller releases each lease it was given. Ends where loading no longer beats computing, and early, without
   * throwing, at the first chunk that fails or is late. Nothing happens before the first batch is asked for.
   */
  load(root: Root, tokens: Tokens, from: number, options: LoadOptions): AsyncIterable<readonly LoadedChunk[]>;

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
   * Brings what is stored of `tokens` into the pool and keeps it there for `seconds` (an hour at most), for a session that
   * will come back. A further pin can only lengthen the time; 0 ends it. Pins may take a quarter of the pool together.
   *
   * @returns tokens that are kept (or no longer are), from the start of the text.
   */
  pin(root: Root, tokens: Tokens, seconds: number, wait: WaitOptions): Promise<number>;

  /** Asks for slots for the chunks of `tokens` that are not stored, tail included. */
  reserve(root: Root, tokens: Tokens, wait: WaitOptions): Promise<Reservation>;

  /** Makes written chunks visible; resolves when they are. */
  commit(chunks: readonly WrittenChunk[], wait: WaitOptions): Promise<void>;

  /** Gives reserved slots back unwritten. Unknown or fallen ones are ignored. */
  abandon(leases: readonly LeaseId[]): void;

  /** Ends the session: every lease falls. */
  close(): Promise<void>;
}
