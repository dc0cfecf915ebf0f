/**
 * One guest's session in the cache's own process: the verbs of session.ts over index, store and placement.
 *
 * Between two awaits everything here is one step, so the index cannot change under it. After an await a session asks
 * again whether it is still open and still holds its lease.
 */
import type { TierName } from "../tier.ts";
import type { ChunkId } from "./chunk-id.ts";
import { flag } from "./chunk-table.ts";
import { rootKey, type Root, type Tokens } from "./chunk.ts";
import { addTokens, type EngineFigures } from "./counters.ts";
import { within } from "./deadline.ts";
import type { HolderId, Lease } from "./lease.ts";
import { Lookups } from "./lookups.ts";
import { ChunkPath, chunksOf } from "./radix.ts";
import type { SessionParts } from "./session-parts.ts";
import type {
  CacheSession,
  LeaseId,
  LoadedChunk,
  LoadOptions,
  Lookup,
  ReadOptions,
  Reservation,
  ReservedChunk,
  SessionOptions,
  WaitOptions,
  WrittenChunk,
} from "./session.ts";
import type { SpaceId } from "./space.ts";
import type { Space } from "./spaces.ts";
import type { StoredChunks } from "./stored-chunk.ts";

/** What is known of texts under a root that nobody stored anything under. */
const emptyPath = new ChunkPath();

export class LocalSession implements CacheSession {
  readonly #parts: SessionParts;
  readonly #space: Space;
  readonly #options: SessionOptions;
  readonly #holder: HolderId;
  readonly #onClose: () => void;
  readonly #lookups: Lookups;
  #closed = false;

  constructor(parts: SessionParts, options: SessionOptions, identity: { holder: HolderId; onClose: () => void }) {
    this.#parts = parts;
    this.#options = options;
    this.#space = parts.spaces.open(options.space);
    this.#holder = identity.holder;
    this.#onClose = identity.onClose;
    this.#lookups = new Lookups(parts, { chunkTokens: this.chunkTokens, slotBytes: options.slotBytes });
  }

  get spaceId(): SpaceId {
    return this.#space.id;
  }

  get chunkTokens(): number {
    return this.#space.description.chunkTokens;
  }

  get pool(): { readonly path: string; readonly bytes: number } {
    return this.#parts.store.pool;
  }

  async lookup(root: Root, asked: Tokens, { computeMsPerToken, deadlineMs }: ReadOptions): Promise<Lookup> {
    const brought = this.#broughtBack(root, asked, deadlineMs);
    const tokens = brought === undefined ? asked : await brought;
    const path = this.#match(root, tokens);
    const found = this.#lookups.found(path, computeMsPerToken);
    this.#lookups.count(tokens, found);
    this.#lookups.leave(path, found);
    return found;
  }

  async *load(
    root: Root,
    asked: Tokens,
    from: number,
    { deadlineMs, onlyReady = false, onFound, computeMsPerToken }: LoadOptions,
  ): AsyncGenerator<readonly LoadedChunk[], void, void> {
    const deadline = performance.now() + deadlineMs;
    const brought = this.#broughtBack(root, asked, deadlineMs);
    const tokens = brought === undefined ? asked : await brought;
    const path = this.#match(root, tokens);
    const found = this.#lookups.found(path, computeMsPerToken);
    if (onlyReady) this.#lookups.count(tokens, found);
    const end = Math.ceil(found.worthTokens / this.chunkTokens);
    const held = this.#leaseAll(path, { first: Math.floor(from / this.chunkTokens), end, onlyReady });
    this.#lookups.leave(path, found);
    const reads: Promise<boolean>[] = [];
    const before = bytesBefore(this.#parts.store.chunks, held);
    const aheadBytes = this.#lookups.aheadBytes();
    let given = 0;
    try {
      onFound?.(found);
      for (;;) {
        const batch = this.#readyFrom(held, given);
        given += batch.length;
        // The chunk that is waited for, the one after it, and what else has room.
        const room = (before[given + 1] ?? 0) + aheadBytes;
        while (reads.length < held.length && (reads.length < given + 2 || before[reads.length]! < room))
          reads.push(this.#promote(held[reads.length]!.chunk)); // below its length
        if (batch.length > 0) yield batch;
        const next = reads[given];
        if (next === undefined) return;
        const answer = await within(next, deadline - performance.now());
        if (answer === "late") this.#parts.counters.lateLoads += 1;
        if (answer !== true || !this.holds(held[given]!.lease)) return; // `next` stands for it
      }
    } finally {
      this.release(held.slice(given).map(({ lease }) => lease));
    }
  }

  holds(lease: LeaseId): boolean {
    return this.#parts.leases.get(this.#holder, lease) !== undefined;
  }

  release(leases: readonly LeaseId[]): void {
    for (const id of leases) {
      if (this.#parts.leases.get(this.#holder, id)?.kind !== "reading") continue;
      this.#fell(this.#parts.leases.release(this.#holder, id)!); // held: asked above
    }
  }

  touch(root: Root, tokens: Tokens, _wait: WaitOptions): Promise<number> {
    const path = this.#match(root, tokens);
    if (path.length === 0) return Promise.resolve(0);
    this.#parts.store.touch(path.at(path.length - 1), "used");
    return Promise.resolve(this.#tokensIn(path));
  }

  async pin(root: Root, tokens: Tokens, seconds: number, wait: WaitOptions): Promise<number> {
    let keptTokens = 0;
    let full = false;
    for await (const batch of this.load(root, tokens, 0, wait)) {
      for (const { lease, firstToken, matchedTokens } of batch) {
        full ||= !this.#pinLeased(lease, seconds);
        if (!full) keptTokens = firstToken + matchedTokens;
      }
      this.release(batch.map(({ lease }) => lease));
      if (full) break;
    }
    return keptTokens;
  }

  reserve(root: Root, tokens: Tokens, _wait: WaitOptions): Promise<Reservation> {
    const chunks: ReservedChunk[] = [];
    if (this.#closed || tokens.length === 0) return Promise.resolve({ chunks, full: false });
    const { spaces, store, limits, loadOrCompute } = this.#parts;
    const index = spaces.makeRoot(this.#space, rootKey(this.#space.id, root));
    if (index === undefined) return Promise.resolve({ chunks, full: true });
    const path: ChunkId[] = [];
    let full = tokens.length > limits.tokensPerRequest;
    let firstBelow: ChunkId | undefined;
    let parent = index.tree.top;
    for (const slice of chunksOf(tokens.subarray(0, limits.tokensPerRequest), this.chunkTokens)) {
      if (slice.length < this.chunkTokens && index.tree.visibleExtension(parent, slice) !== undefined) break;
      const chunk = index.tree.insert(parent, slice);
      if (chunk === undefined) {
        full = true;
        break;
      }
      store.fill(chunk);
      // The path stays while room is made for what follows it.
      store.pin(chunk);
      path.push(chunk);
      if (!this.#isTaken(chunk)) {
        const reserved = chunks.length < limits.chunksPerReservation ? this.#reserveOne(chunk) : undefined;
        if (reserved === undefined) {
          full = true;
          this.#parts.counters.rejectedChunks += 1;
          break;
        }
        chunks.push(reserved);
      } else if (firstBelow === undefined && store.chunks.isBelowMemory(chunk)) firstBelow = chunk;
      parent = chunk;
    }
    if (firstBelow !== undefined) loadOrCompute.noteRecomputed(firstBelow);
    if (path.length > 0) store.touch(path.at(-1)!, "refreshed");
    for (const chunk of path.toReversed()) {
      store.unpin(chunk);
      store.removeIfEmpty(chunk);
    }
    return Promise.resolve({ chunks, full });
  }

  commit(chunks: readonly WrittenChunk[], _wait: WaitOptions): Promise<void> {
    const { leases, store, placement, counters } = this.#parts;
    const slotBytes = this.#options.slotBytes;
    let last: ChunkId | undefined;
    for (const { lease: id, bytes } of chunks) {
      const lease = leases.get(this.#holder, id);
      if (lease?.kind !== "writing") continue;
      if (!Number.isSafeInteger(bytes) || bytes <= 0 || bytes > slotBytes) {
        this.abandon([id]);
        continue;
      }
      const { chunk, rank } = lease;
      if (store.chunks.table.is(chunk, flag.broken)) {
        this.abandon([id]);
        continue;
      }
      leases.release(this.#holder, id);
      store.chunks.setBytes(chunk, rank, bytes);
      counters.savedBytes += bytes;
      if (store.chunks.isWritten(chunk)) {
        counters.savedChunks += 1;
        store.keep(chunk);
        store.stored(chunk);
        // Once for each text: a touch goes all the way up.
        if (last !== undefined && store.chunks.parentOf(chunk) !== last) store.touch(last, "refreshed");
        last = chunk;
        store.supersede(chunk);
        placement.saved(chunk);
      }
      store.settle(chunk);
    }
    if (last !== undefined) store.touch(last, "refreshed");
    return Promise.resolve();
  }

  abandon(leases: readonly LeaseId[]): void {
    for (const id of leases) {
      if (this.#parts.leases.get(this.#holder, id)?.kind !== "writing") continue;
      this.#fell(this.#parts.leases.release(this.#holder, id)!); // held: asked above
    }
  }

  close(): Promise<void> {
    if (this.#closed) return Promise.resolve();
    this.#closed = true;
    for (const lease of this.#parts.leases.dropHolder(this.#holder)) this.#fell(lease);
    this.#onClose();
    return Promise.resolve();
  }

  /** The stored chunks of a text; to be read before the next match. */
  #match(root: Root, tokens: Tokens): ChunkPath {
    if (this.#closed) return emptyPath;
    const index = this.#parts.spaces.root(this.#space, root);
    return index?.tree.match(tokens.subarray(0, this.#parts.limits.tokensPerRequest)) ?? emptyPath;
  }

  #tokensIn(path: ChunkPath): number {
    return path.length === 0 ? 0 : (path.length - 1) * this.chunkTokens + path.matchedInLast;
  }

  /**
   * While records come back from the tiers, those of a text that is not found whole are waited for.
   *
   * @returns the text, copied: the memory of `tokens` is the caller's again while this waits (session.ts).
   */
  #broughtBack(root: Root, tokens: Tokens, deadlineMs: number): Promise<Tokens> | undefined {
    const { spaces, limits } = this.#parts;
    if (!spaces.isReturning(this.#space) || this.#closed) return undefined;
    if (this.#tokensIn(this.#match(root, tokens)) === tokens.length) return undefined;
    const text = tokens.slice();
    const work = spaces.bring(this.#space, root, text.subarray(0, limits.tokensPerRequest));
    return within(work, deadlineMs).then(() => text);
  }

  /** How fast the guest computes. Of the ranks of one engine the first tells. */
  engineFigures(): EngineFigures | undefined {
    const { computeMsPerToken } = this.#lookups;
    if (computeMsPerToken === undefined || this.#options.rank > 0) return undefined;
    return { space: this.#space.id, prefillTokensPerSecond: Math.round(1e5 / computeMsPerToken) / 100 };
  }

  #promote(chunk: ChunkId): Promise<boolean> {
    return this.#parts.placement.promote(chunk, this.#options.slotBytes);
  }

  /** The chunks of a load that are in memory now, from number `first` to the first that is not. */
  #readyFrom(held: readonly LeasedMatch[], first: number): LoadedChunk[] {
    const { counters, store } = this.#parts;
    const { chunks } = store;
    const { rank } = this.#options;
    const ready: LoadedChunk[] = [];
    for (let i = first; i < held.length; i += 1) {
      const { lease, chunk, matchedTokens, tier } = held[i]!; // below its length
      if (!this.holds(lease) || !chunks.isInMemory(chunk)) break;
      const bytes = chunks.bytes(chunk, rank);
      const offset = chunks.slot(chunk, rank)!; // in memory
      const [firstToken, tokenCount] = [chunks.firstToken(chunk), chunks.tokenCount(chunk)];
      addTokens(counters.loadedTokens, tier, matchedTokens);
      counters.loadedBytes += bytes;
      if (rank === 0) store.records.countHit(chunk);
      ready.push({ lease, firstToken, tokenCount, matchedTokens, tier, slot: { offset, bytes } });
    }
    return ready;
  }

  /** @returns false when it was not pinned: pins have all the room they may take, or the lease has fallen. */
  #pinLeased(lease: LeaseId, seconds: number): boolean {
    const leased = this.#parts.leases.get(this.#holder, lease);
    return leased !== undefined && this.#parts.store.pinFor(leased.chunk, seconds) === "pinned";
  }

  /** Leases the chunks of a match before the first await, so that none of them goes while others are read. */
  #leaseAll(
    path: ChunkPath,
    { first, end, onlyReady }: { first: number; end: number; onlyReady: boolean },
  ): LeasedMatch[] {
    const { leases, store, limits } = this.#parts;
    const held: LeasedMatch[] = [];
    const room = limits.openLeases - leases.heldBy(this.#holder);
    for (let i = first; i < end && held.length < room; i += 1) {
      const chunk = path.at(i);
      const tier = store.chunks.tierOf(chunk);
      if (tier === undefined || (onlyReady && !store.chunks.isInMemory(chunk))) break;
      const matchedTokens = i === path.length - 1 ? path.matchedInLast : this.chunkTokens;
      held.push({ lease: leases.acquire(this.#holder, { kind: "reading", chunk }), chunk, matchedTokens, tier });
      store.settle(chunk);
    }
    const last = held.at(-1);
    if (last !== undefined) store.touch(last.chunk, "used");
    return held;
  }

  /** Stored, or this rank's slot is written or being written, or others have yet to end what a rank gave up. */
  #isTaken(chunk: ChunkId): boolean {
    const { rank } = this.#options;
    const { chunks } = this.#parts.store;
    if (chunks.table.is(chunk, flag.broken)) return true;
    return chunks.isVisible(chunk) || chunks.bytes(chunk, rank) > 0 || chunks.slot(chunk, rank) !== undefined;
  }

  #reserveOne(chunk: ChunkId): ReservedChunk | undefined {
    const { leases, store, limits } = this.#parts;
    const { rank, slotBytes } = this.#options;
    if (leases.heldBy(this.#holder) >= limits.openLeases) return undefined;
    if (store.giveSlot(chunk, rank, slotBytes) === "full") return undefined;
    const lease = leases.acquire(this.#holder, { kind: "writing", chunk, rank });
    store.settle(chunk);
    const { chunks } = store;
    const offset = chunks.slot(chunk, rank)!; // just given
    const firstToken = chunks.firstToken(chunk);
    return { lease, firstToken, tokenCount: chunks.tokenCount(chunk), slot: { offset, bytes: slotBytes } };
  }

  /** What follows the end of a lease, except by commit. */
  #fell(lease: Lease<ChunkId>): void {
    const { store, counters } = this.#parts;
    const { chunk } = lease;
    if (lease.kind === "writing") {
      counters.abandonedChunks += 1;
      this.#breakUp(chunk, lease.rank);
    }
    store.settle(chunk);
    store.removeIfEmpty(chunk);
  }

  /** A chunk is saved by all ranks or by none: where one gives up, the slots that the others have written go back too. */
  #breakUp(chunk: ChunkId, gaveUp: number): void {
    const { store } = this.#parts;
    const { chunks } = store;
    store.pin(chunk); // it may be of no more use between two of its slots
    for (let rank = 0; rank < chunks.ranksOf(chunk); rank += 1) {
      if (rank !== gaveUp && chunks.bytes(chunk, rank) === 0) continue;
      chunks.setBytes(chunk, rank, 0);
      store.takeSlot(chunk, rank);
    }
    chunks.table.mark(chunk, flag.broken, chunks.hasSlots(chunk));
    store.unpin(chunk);
  }
}

interface LeasedMatch {
  readonly lease: LeaseId;
  readonly chunk: ChunkId;
  readonly matchedTokens: number;
  readonly tier: TierName;
}

/** Bytes of all ranks before each chunk, and before what would follow the last. */
function bytesBefore(chunks: StoredChunks, held: readonly LeasedMatch[]): Float64Array {
  const before = new Float64Array(held.length + 1);
  for (const [i, { chunk }] of held.entries()) before[i + 1] = before[i]! + chunks.bytesOfAllRanks(chunk); // set the step before
  return before;
}
