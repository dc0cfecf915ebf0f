/** What the cache counts, and the figures it shows. All counters run from the cache's start and never go down. */
import type { TierName, TierStats } from "../tier.ts";
import type { ReadFigures } from "./read-speed.ts";
import type { PoolStats } from "./slot-pool.ts";

export interface Counters {
  lookups: number;
  lookedUpTokens: number;
  hitTokens: Partial<Record<TierName, number>>;
  loadedTokens: Partial<Record<TierName, number>>;
  /** Tokens that lookups found and that engines were told to compute, because loading them would take longer. */
  leftTokens: Partial<Record<TierName, number>>;
  /** Chunks below memory that were read only to see how fast their tier is now. */
  probedChunks: number;
  /** Chunks brought into memory behind a request that was told to compute a stored text a second time. */
  broughtChunks: number;
  loadedBytes: number;
  savedChunks: number;
  savedBytes: number;
  /** Chunks that left the pool to make room. */
  evictedChunks: number;
  /** Of these, chunks that no tier below had: they are gone. */
  lostChunks: number;
  /** Chunks that were not given a slot: the pool was full of leased chunks, or a limit was reached. */
  rejectedChunks: number;
  /** Reserved and then given back or left unwritten. */
  abandonedChunks: number;
  /** Records that did not match their checksum or key. */
  corruptRecords: number;
  /** Reads and writes below the pool that failed. */
  tierFailures: number;
  /** Chunks a tier below refused for want of room. */
  refusedWrites: number;
  /** Loads that ended early because a chunk was late. */
  lateLoads: number;
}

export function newCounters(): Counters {
  return {
    lookups: 0,
    lookedUpTokens: 0,
    hitTokens: {},
    loadedTokens: {},
    leftTokens: {},
    probedChunks: 0,
    broughtChunks: 0,
    loadedBytes: 0,
    savedChunks: 0,
    savedBytes: 0,
    evictedChunks: 0,
    lostChunks: 0,
    rejectedChunks: 0,
    abandonedChunks: 0,
    corruptRecords: 0,
    tierFailures: 0,
    refusedWrites: 0,
    lateLoads: 0,
  };
}

export function addTokens(counter: Partial<Record<TierName, number>>, tier: TierName, tokens: number): void {
  counter[tier] = (counter[tier] ?? 0) + tokens;
}

export interface EngineFigures {
  readonly space: string;
  readonly prefillTokensPerSecond: number;
}

/** A plain object that JSON and msgpack carry as it is. */
export interface CacheStats extends Counters {
  readonly sessions: number;
  readonly leases: number;
  readonly spaces: number;
  readonly roots: number;
  /** Chunks in the index, hollow ones included. */
  readonly chunks: number;
  readonly memory: PoolStats;
  /** Bytes of the pool that pins keep in place. */
  readonly pinnedBytes: number;
  readonly tiers: Partial<Record<TierName, TierStats & ReadFigures>>;
  /** Of the engines that are connected, those that say how fast they compute prompts. */
  readonly engines: readonly EngineFigures[];
  readonly writeBehind: { readonly chunks: number; readonly bytes: number; readonly waitingChunks: number };
}
