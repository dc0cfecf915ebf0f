/**
 * What a load has leased of a match, and what of it the guest can be given.
 *
 * All leases are taken before the first await, so that no chunk goes while others are read. A guest has one for each part that
 * it is to be given: rows of every chunk, and of the last one the snapshots, without which it could not go on from there.
 */
import { groupsOf } from "../../identity/space.ts";
import type { LeaseId, LoadedPart, SessionOptions } from "../../session.ts";
import type { TierName } from "../../tier.ts";
import { addTokens } from "../counters.ts";
import type { ChunkId } from "../index/chunk-id.ts";
import type { ChunkPath } from "../index/radix.ts";
import type { Space } from "../index/spaces.ts";
import type { StoredChunks, Wanted } from "../index/stored-chunk.ts";
import type { GroupBytes, HolderId } from "../pool/leases.ts";
import type { SessionContext } from "./session-context.ts";

/** A chunk of a match, as a load holds it. */
export interface LeasedMatch {
  readonly chunk: ChunkId;
  readonly matchedTokens: number;
  readonly tier: TierName;
  /** Snapshots too where the load ends. */
  readonly wanted: Wanted;
  /** One for each part that the guest is given, as {@link Loading} numbers them. */
  readonly leases: readonly LeaseId[];
}

/** Bytes of all ranks before each chunk, and before what would follow the last. */
export function bytesBefore(chunks: StoredChunks, held: readonly LeasedMatch[]): Float64Array {
  const before = new Float64Array(held.length + 1);
  for (const [i, { chunk, wanted }] of held.entries()) before[i + 1] = before[i]! + chunks.bytesToLoad(chunk, wanted); // set the step before
  return before;
}

export class Loading {
  readonly #context: SessionContext;
  readonly #space: Space;
  readonly #holder: HolderId;
  readonly #rank: number;
  /** Groups that the guest is given of a chunk. */
  readonly #given: Readonly<Record<Wanted, readonly GroupBytes[]>>;

  constructor(context: SessionContext, space: Space, { slotBytes, rank }: SessionOptions, holder: HolderId) {
    this.#context = context;
    this.#space = space;
    this.#holder = holder;
    this.#rank = rank;
    const kinds = groupsOf(space.description);
    const all = slotBytes.map((bytes, group) => ({ group, bytes: space.description.tensorParallel * bytes }));
    this.#given = { rows: all.filter(({ group }) => kinds[group] === "rows"), all };
  }

  /** Leases the chunks of a match from the one at `from` on, as far as it is worth loading and there is room for. */
  lease(
    path: ChunkPath,
    { from, worthTokens, onlyReady }: { from: number; worthTokens: number; onlyReady: boolean },
  ): LeasedMatch[] {
    const { store } = this.#context;
    const { chunkTokens } = this.#space.shape;
    const first = Math.floor(from / chunkTokens);
    const end = this.#endOf(path, { first, end: Math.ceil(worthTokens / chunkTokens), onlyReady });
    const held: LeasedMatch[] = [];
    for (let i = first; i < end; i += 1) {
      const match = this.#leaseOne(path, i, i === end - 1 ? "all" : "rows");
      if (match === undefined) break;
      held.push(match);
    }
    if (held.length < end - first && this.#space.shape.hasSnapshots)
      this.#cutToSnapshot(held, path, { first, onlyReady });
    const last = held.at(-1);
    if (last !== undefined) store.touch(last.chunk, "used");
    return held;
  }

  /** The parts of a load that are in memory now, from chunk number `first` to the first that is not, and of how many chunks. */
  readyFrom(held: readonly LeasedMatch[], first: number): { parts: LoadedPart[]; chunks: number } {
    const { counters, store } = this.#context;
    const parts: LoadedPart[] = [];
    let at = first;
    for (; at < held.length; at += 1) {
      const match = held[at]!; // below its length
      if (!this.holds(match) || !store.chunks.isReady(match.chunk, match.wanted)) break;
      this.#give(match, parts);
      addTokens(counters.loadedTokens, match.tier, match.matchedTokens);
      if (this.#rank === 0) store.records.countHit(match.chunk);
    }
    return { parts, chunks: at - first };
  }

  /** Whether the chunk may take its room in the pool now, beside what else the guest keeps there. */
  mayBring({ chunk, wanted }: LeasedMatch): boolean {
    const { leases, store } = this.#context;
    return leases.mayBring(this.#holder, chunk, this.#given[wanted], store.pool.stats().capacityBytes);
  }

  holds({ leases }: LeasedMatch): boolean {
    return leases.every((lease) => this.#context.leases.get(this.#holder, lease) !== undefined);
  }

  #give({ chunk, matchedTokens, tier, wanted, leases }: LeasedMatch, into: LoadedPart[]): void {
    const { counters, store } = this.#context;
    const { chunks } = store;
    const [firstToken, tokenCount] = [chunks.firstToken(chunk), chunks.tokenCount(chunk)];
    const firstPart = this.#rank * this.#given.all.length;
    for (const [i, lease] of leases.entries()) {
      const { group } = this.#given[wanted][i]!; // one lease each
      const part = firstPart + group;
      const slot = { offset: chunks.slot(chunk, part)!, bytes: chunks.bytes(chunk, part) }; // it is ready
      counters.loadedBytes += slot.bytes;
      const place = { kind: "exact", firstToken, skip: 0, take: matchedTokens, target: firstToken } as const;
      into.push({ lease, group, tokenCount, ...place, tier, slot });
    }
  }

  /** Where a load may end: before what is nowhere, or not in memory when only that is wanted; in a space with snapshots at one. */
  #endOf(path: ChunkPath, { first, end, onlyReady }: { first: number; end: number; onlyReady: boolean }): number {
    const { chunks } = this.#context.store;
    let reachable = first;
    while (reachable < end) {
      const chunk = path.at(reachable);
      if (onlyReady ? !chunks.isInMemory(chunk) : chunks.tierOf(chunk) === undefined) break;
      reachable += 1;
    }
    while (reachable > first && !this.#isEnd(path.at(reachable - 1), onlyReady)) reachable -= 1;
    return reachable;
  }

  #isEnd(chunk: ChunkId, onlyReady: boolean): boolean {
    const tier = this.#context.store.chunks.snapshotTierOf(chunk);
    return onlyReady ? tier === "memory" : tier !== undefined;
  }

  #leaseOne(path: ChunkPath, i: number, wanted: Wanted): LeasedMatch | undefined {
    const { leases, store, limits, now } = this.#context;
    const chunk = path.at(i);
    const given = this.#given[wanted];
    // Nothing yet, when the bytes have still to come from below: {@link mayBring} counts them then.
    const groups = store.chunks.isInMemory(chunk) ? given : given.map(({ group }) => ({ group, bytes: 0 }));
    if (leases.heldBy(this.#holder) + groups.length > limits.openLeases) return undefined;
    if (!leases.mayRead(this.#holder, chunk, groups, store.pool.stats().capacityBytes)) return undefined;
    const tier = store.chunks.tierOf(chunk)!; // it is reachable
    const matchedTokens = i === path.length - 1 ? path.matchedInLast : this.#space.shape.chunkTokens;
    const hold = { kind: "reading", chunk, since: now() } as const;
    const taken = groups.map((group) => leases.acquire(this.#holder, { ...hold, ...group }));
    store.reconcile(chunk);
    return { chunk, matchedTokens, tier, wanted, leases: taken };
  }

  /** There was no room for all of it: what follows the last snapshot is of no use, and that one is wanted now. */
  #cutToSnapshot(
    held: LeasedMatch[],
    path: ChunkPath,
    { first, onlyReady }: { first: number; onlyReady: boolean },
  ): void {
    for (let last = held.pop(); last !== undefined; last = held.pop()) {
      for (const lease of last.leases) this.#context.leases.release(this.#holder, lease);
      this.#context.store.reconcile(last.chunk);
      if (!this.#isEnd(last.chunk, onlyReady)) continue;
      const match = this.#leaseOne(path, first + held.length, "all");
      if (match === undefined) continue;
      held.push(match);
      return;
    }
  }
}
