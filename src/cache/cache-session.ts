/**
 * One guest's session in the cache's own process: the verbs of session.ts over index, store and placement.
 *
 * Between two awaits everything here is one step, so the index cannot change under it. After an await a session asks
 * again whether it is still open and still holds its lease.
 */
import type { TierName } from "../tier.ts";
import { chunksOf, type ChunkStore } from "./chunk-store.ts";
import type { Root, Tokens } from "./chunk.ts";
import { addTokens, type Counters } from "./counters.ts";
import { within } from "./deadline.ts";
import type { HolderId, Lease, LeaseTable } from "./lease.ts";
import type { Placement } from "./placement.ts";
import type { MatchedNode } from "./radix.ts";
import type {
  CacheSession,
  LeaseId,
  LoadedChunk,
  LoadOptions,
  Lookup,
  Reservation,
  ReservedChunk,
  SessionOptions,
  WaitOptions,
  WrittenChunk,
} from "./session.ts";
import { rootKey } from "./chunk.ts";
import type { SpaceId } from "./space.ts";
import type { Space, Spaces } from "./spaces.ts";
import type { StoredChunk } from "./stored-chunk.ts";

/** What one session may take. */
export interface SessionLimits {
  /** Tokens of a text that are looked at; what comes after them is neither found nor stored. */
  readonly tokensPerRequest: number;
  /** Chunks per reservation; those after them are not stored, as if the pool were full. */
  readonly chunksPerReservation: number;
  /** Leases held at once: a load ends early there, a reservation is full. */
  readonly openLeases: number;
}

/** What a session works on: the cache's parts. */
export interface SessionParts {
  readonly spaces: Spaces;
  readonly store: ChunkStore;
  readonly leases: LeaseTable<StoredChunk>;
  readonly placement: Placement;
  readonly counters: Counters;
  readonly limits: SessionLimits;
  /** Chunks that one rank gave up while others were still writing them: what those commit is given up too. */
  readonly broken: WeakSet<StoredChunk>;
}

/**
 * Of a load, read from below ahead of the chunk that the guest waits for: what keeps eight reads of a drive busy, whatever
 * the size of a chunk. Less where that would be much of the pool, which other loads want too.
 */
const readAheadBytes = 16 * 1024 * 1024;
const readAheadShare = 1 / 16;

export class LocalSession implements CacheSession {
  readonly #parts: SessionParts;
  readonly #space: Space;
  readonly #options: SessionOptions;
  readonly #holder: HolderId;
  readonly #onClose: () => void;
  #closed = false;

  constructor(parts: SessionParts, options: SessionOptions, identity: { holder: HolderId; onClose: () => void }) {
    this.#parts = parts;
    this.#options = options;
    this.#space = parts.spaces.open(options.space);
    this.#holder = identity.holder;
    this.#onClose = identity.onClose;
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

  lookup(root: Root, tokens: Tokens, _wait: WaitOptions): Promise<Lookup> {
    const found = foundIn(this.#match(root, tokens));
    this.#countLookup(tokens, found);
    return Promise.resolve(found);
  }

  async *load(
    root: Root,
    tokens: Tokens,
    from: number,
    { deadlineMs, onlyReady = false, onFound }: LoadOptions,
  ): AsyncGenerator<readonly LoadedChunk[], void, void> {
    const deadline = performance.now() + deadlineMs;
    const matched = this.#match(root, tokens);
    const found = foundIn(matched);
    if (onlyReady) this.#countLookup(tokens, found);
    const held = this.#leaseAll(matched.slice(Math.floor(from / this.chunkTokens)), { onlyReady });
    const reads: Promise<boolean>[] = [];
    const before = bytesBefore(held);
    const aheadBytes = Math.min(readAheadBytes, this.#parts.store.pool.stats().capacityBytes * readAheadShare);
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

  reserve(root: Root, tokens: Tokens, _wait: WaitOptions): Promise<Reservation> {
    const chunks: ReservedChunk[] = [];
    if (this.#closed || tokens.length === 0) return Promise.resolve({ chunks, full: false });
    const { spaces, store, limits } = this.#parts;
    const index = spaces.makeRoot(this.#space, rootKey(this.#space.id, root));
    const path: StoredChunk[] = [];
    let full = tokens.length > limits.tokensPerRequest;
    let parent = index.tree.top;
    for (const slice of chunksOf(tokens.subarray(0, limits.tokensPerRequest), this.chunkTokens)) {
      if (slice.length < this.chunkTokens && index.tree.visibleExtension(parent, slice) !== undefined) break;
      const node = index.tree.insert(parent, slice);
      const chunk = store.chunkAt(index, node);
      // The path stays while room is made for what follows it.
      chunk.pins += 1;
      path.push(chunk);
      store.settle(chunk);
      if (!this.#isTaken(chunk)) {
        const reserved = chunks.length < limits.chunksPerReservation ? this.#reserveOne(chunk) : undefined;
        if (reserved === undefined) {
          full = true;
          this.#parts.counters.rejectedChunks += 1;
          break;
        }
        chunks.push(reserved);
      }
      parent = node;
    }
    if (path.length > 0) store.touch(path.at(-1)!.node);
    for (const chunk of path.toReversed()) {
      chunk.pins -= 1;
      store.settle(chunk);
      store.removeIfEmpty(chunk);
    }
    return Promise.resolve({ chunks, full });
  }

  commit(chunks: readonly WrittenChunk[], _wait: WaitOptions): Promise<void> {
    const { leases, store, placement, counters, broken } = this.#parts;
    const slotBytes = this.#options.slotBytes;
    for (const { lease: id, bytes } of chunks) {
      const lease = leases.get(this.#holder, id);
      if (lease?.kind !== "writing") continue;
      if (!Number.isSafeInteger(bytes) || bytes <= 0 || bytes > slotBytes) {
        this.abandon([id]);
        continue;
      }
      const { chunk, rank } = lease;
      if (broken.has(chunk)) {
        this.abandon([id]);
        continue;
      }
      leases.release(this.#holder, id);
      chunk.bytes[rank] = bytes;
      chunk.written[rank] = true;
      counters.savedBytes += bytes;
      if (chunk.written.every(Boolean)) {
        chunk.visible = true;
        counters.savedChunks += 1;
        store.keep(chunk);
        store.touch(chunk.node);
        store.supersede(chunk);
        placement.saved(chunk);
      }
      store.settle(chunk);
    }
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

  #match(root: Root, tokens: Tokens): MatchedNode<StoredChunk>[] {
    if (this.#closed) return [];
    const index = this.#parts.spaces.root(this.#space, root);
    return index?.tree.match(tokens.subarray(0, this.#parts.limits.tokensPerRequest)) ?? [];
  }

  #countLookup(tokens: Tokens, { tokensByTier }: Lookup): void {
    const { counters } = this.#parts;
    counters.lookups += 1;
    counters.lookedUpTokens += tokens.length;
    for (const [tier, count] of Object.entries(tokensByTier)) addTokens(counters.hitTokens, tier as TierName, count); // as foundIn made it
  }

  #promote(chunk: StoredChunk): Promise<boolean> {
    return this.#parts.placement.promote(chunk, this.#options.slotBytes);
  }

  /** The chunks of a load that are in memory now, from number `first` to the first that is not. */
  #readyFrom(held: readonly LeasedMatch[], first: number): LoadedChunk[] {
    const { counters } = this.#parts;
    const { rank } = this.#options;
    const ready: LoadedChunk[] = [];
    for (let i = first; i < held.length; i += 1) {
      const { lease, chunk, matchedTokens, tier } = held[i]!; // below its length
      if (!chunk.isInMemory || !this.holds(lease)) break;
      const bytes = chunk.bytes[rank]!; // one per rank
      const offset = chunk.slots[rank]!; // in memory
      addTokens(counters.loadedTokens, tier, matchedTokens);
      counters.loadedBytes += bytes;
      const { firstToken, tokens } = chunk.node;
      ready.push({ lease, firstToken, tokenCount: tokens.length, matchedTokens, tier, slot: { offset, bytes } });
    }
    return ready;
  }

  /** Leases the chunks of a match before the first await, so that none of them goes while others are read. */
  #leaseAll(matched: readonly MatchedNode<StoredChunk>[], { onlyReady }: { onlyReady: boolean }): LeasedMatch[] {
    const { leases, store, limits } = this.#parts;
    const held: LeasedMatch[] = [];
    const room = limits.openLeases - leases.heldBy(this.#holder);
    for (const { node, matchedTokens } of matched.slice(0, Math.max(0, room))) {
      const chunk = node.payload;
      const tier = tierOf(chunk);
      if (chunk === undefined || tier === undefined || (onlyReady && !chunk.isInMemory)) break;
      held.push({ lease: leases.acquire(this.#holder, { kind: "reading", chunk }), chunk, matchedTokens, tier });
      store.settle(chunk);
    }
    const last = held.at(-1);
    if (last !== undefined) store.touch(last.chunk.node);
    return held;
  }

  /** Stored, or this rank's slot is written or being written, or others have yet to end what a rank gave up. */
  #isTaken(chunk: StoredChunk): boolean {
    const { rank } = this.#options;
    if (this.#parts.broken.has(chunk)) return true;
    return chunk.visible || chunk.written[rank] === true || chunk.slots[rank] !== undefined;
  }

  #reserveOne(chunk: StoredChunk): ReservedChunk | undefined {
    const { leases, store, limits } = this.#parts;
    const { rank, slotBytes } = this.#options;
    if (leases.heldBy(this.#holder) >= limits.openLeases) return undefined;
    if (store.giveSlot(chunk, rank, slotBytes) === "full") return undefined;
    const lease = leases.acquire(this.#holder, { kind: "writing", chunk, rank });
    store.settle(chunk);
    const { firstToken, tokens } = chunk.node;
    return { lease, firstToken, tokenCount: tokens.length, slot: { offset: chunk.slots[rank]!, bytes: slotBytes } }; // just given
  }

  /** What follows the end of a lease, except by commit. */
  #fell(lease: Lease<StoredChunk>): void {
    const { store, counters } = this.#parts;
    const { chunk } = lease;
    if (lease.kind === "writing") {
      counters.abandonedChunks += 1;
      store.takeSlot(chunk, lease.rank);
      this.#breakUp(chunk);
    }
    store.settle(chunk);
    store.removeIfEmpty(chunk);
  }

  /** A chunk is saved by all ranks or by none: where one gives up, the slots that the others have written go back too. */
  #breakUp(chunk: StoredChunk): void {
    const { store, broken } = this.#parts;
    for (const [rank, written] of chunk.written.entries()) {
      if (!written) continue;
      chunk.written[rank] = false;
      chunk.bytes[rank] = 0;
      store.takeSlot(chunk, rank);
    }
    if (chunk.hasSlots) broken.add(chunk);
    else broken.delete(chunk);
  }
}

interface LeasedMatch {
  readonly lease: LeaseId;
  readonly chunk: StoredChunk;
  readonly matchedTokens: number;
  readonly tier: TierName;
}

/** Bytes of all ranks before each chunk, and before what would follow the last. */
function bytesBefore(held: readonly LeasedMatch[]): Float64Array {
  const before = new Float64Array(held.length + 1);
  for (const [i, { chunk }] of held.entries())
    before[i + 1] = before[i]! + chunk.bytes.reduce((sum, bytes) => sum + bytes, 0); // set the step before
  return before;
}

/** What a match says to whoever looks it up: it ends at the first chunk whose bytes are nowhere. */
function foundIn(matched: readonly MatchedNode<StoredChunk>[]): Lookup {
  const tokensByTier: Partial<Record<TierName, number>> = {};
  let hitTokens = 0;
  for (const { node, matchedTokens } of matched) {
    const tier = tierOf(node.payload);
    if (tier === undefined) break;
    addTokens(tokensByTier, tier, matchedTokens);
    hitTokens += matchedTokens;
  }
  return { hitTokens, tokensByTier };
}

/** The fastest place that has the chunk's bytes. */
function tierOf(chunk: StoredChunk | undefined): TierName | undefined {
  if (chunk === undefined) return undefined;
  if (chunk.isInMemory) return "memory";
  const [tier] = chunk.records.keys();
  return tier?.name;
}
