/**
 * The chunks in the pool: gives them slots, and takes slots back when others need them.
 *
 * A chunk may go when nobody leases or pins it and no child of it is in the pool; then it stands with the eviction
 * policy. Every change to one of these facts ends in {@link settle}, the one place that decides.
 *
 * Room is taken where the policy says, but not from a tenant that holds no more than its fair share while others hold
 * more (tenants.ts). When the policy's choice lies in an extent of another size class, the whole extent is cleared, so
 * that a space that is in use takes room from one that no longer is.
 */
import { assert } from "../errors.ts";
import { noChunk, type ChunkId } from "./chunk-id.ts";
import { ChunkRecords } from "./chunk-records.ts";
import { field, flag } from "./chunk-table.ts";
import type { Counters } from "./counters.ts";
import type { EvictionPolicy } from "./eviction.ts";
import type { LeaseTable } from "./lease.ts";
import { LinkedIndex } from "./linked-index.ts";
import { longestPinSeconds, PinnedChunks } from "./pinned-chunks.ts";
import type { KeptSlot, SlotPool } from "./slot-pool.ts";
import { checkStore } from "./store-check.ts";
import type { RootIndex, StoredChunks } from "./stored-chunk.ts";
import { Tenants } from "./tenants.ts";

export interface ChunkStoreOptions {
  readonly chunks: StoredChunks;
  readonly pool: SlotPool;
  readonly policy: EvictionPolicy;
  readonly leases: LeaseTable<ChunkId>;
  readonly counters: Counters;
  /** Milliseconds since any moment; never goes back. */
  readonly now: () => number;
}

export class ChunkStore {
  readonly chunks: StoredChunks;
  readonly pool: SlotPool;
  /** What of the chunks lies in tiers below the pool. */
  readonly records: ChunkRecords;
  readonly #policy: EvictionPolicy;
  readonly #leases: LeaseTable<ChunkId>;
  readonly #counters: Counters;
  readonly #now: () => number;
  /** By rank, made when first needed. */
  readonly #bySlot: LinkedIndex[] = [];
  readonly #tenants: Tenants;
  readonly #pinned: PinnedChunks;
  #lastTick = 0;

  constructor(options: ChunkStoreOptions) {
    this.chunks = options.chunks;
    this.pool = options.pool;
    this.records = new ChunkRecords(options.chunks);
    this.#policy = options.policy;
    this.#leases = options.leases;
    this.#counters = options.counters;
    this.#now = options.now;
    const capacityBytes = () => options.pool.stats().capacityBytes;
    this.#tenants = new Tenants(capacityBytes);
    this.#pinned = new PinnedChunks({
      capacityBytes,
      pin: (chunk) => this.pin(chunk),
      unpin: (chunk) => this.unpin(chunk),
      bytesInPool: (chunk) => this.chunks.bytesInPool(chunk),
    });
  }

  /** Bytes of a chunk are to come: it is not hollow any more. */
  fill(chunk: ChunkId): void {
    this.chunks.table.mark(chunk, flag.filled, true);
  }

  /** Keeps a chunk in its place, whatever happens to its slots, until it is unpinned as often. */
  pin(chunk: ChunkId): void {
    const { table } = this.chunks;
    table.set(chunk, field.pins, table.get(chunk, field.pins) + 1);
    this.settle(chunk);
  }

  unpin(chunk: ChunkId): void {
    const { table } = this.chunks;
    const pins = table.get(chunk, field.pins);
    assert(pins > 0, "a chunk was unpinned that nobody had pinned");
    table.set(chunk, field.pins, pins - 1);
    this.settle(chunk);
  }

  /** Bytes of slots that {@link pinFor} holds. */
  get pinnedBytes(): number {
    this.#pinned.expire(this.#tick());
    return this.#pinned.bytes;
  }

  /** Keeps a chunk that is in the pool there for so long, or ends that; bounded as {@link PinnedChunks} says. */
  pinFor(chunk: ChunkId, seconds: number): "pinned" | "full" {
    const now = this.#tick();
    this.#pinned.expire(now);
    if (seconds > 0) return this.#pinned.pin(chunk, now + Math.min(seconds, longestPinSeconds) * 1000);
    this.#pinned.unpin(chunk);
    return "pinned";
  }

  /** Ends what {@link pinFor} keeps. */
  unpinAll(): void {
    this.#pinned.expire(Infinity);
  }

  /**
   * Gives `chunk` a slot for `rank`, evicting others where needed.
   *
   * @returns `"full"` when everything in the pool is in use.
   */
  giveSlot(chunk: ChunkId, rank: number, slotBytes: number): "given" | "full" {
    const { chunks } = this;
    assert(chunks.slot(chunk, rank) === undefined, "a rank has one slot");
    this.#tenants.seen(chunks.tenantOf(chunk), this.#tick());
    this.pin(chunk);
    const offset = this.#roomFor(chunk, slotBytes);
    if (offset !== undefined) this.#putSlot(chunk, rank, { offset, slotBytes });
    this.unpin(chunk);
    return offset === undefined ? "full" : "given";
  }

  /** Notes in the pool what the chunk's slots hold: a process that comes after a crash finds it there. */
  keep(chunk: ChunkId): void {
    const { chunks } = this;
    const { space, description, key: root, ranks } = chunks.rootOf(chunk);
    const [key, parent] = [chunks.key(chunk), chunks.parentKey(chunk)];
    const [firstToken, tokens] = [chunks.firstToken(chunk), chunks.tokens(chunk)];
    const slotBytes = chunks.table.get(chunk, field.slotBytes);
    for (let rank = 0; rank < ranks; rank += 1) {
      const offset = chunks.slot(chunk, rank);
      if (offset === undefined) continue;
      const payloadBytes = chunks.bytes(chunk, rank);
      const note = { space, root, key, parent, firstToken, tokens, rank, ranks, payloadBytes, slotBytes };
      this.pool.keep(offset, note, description);
    }
  }

  /** Notes the checksums of the payloads of a kept chunk, by rank. */
  seal(chunk: ChunkId, checksums: readonly bigint[]): void {
    for (const [rank, checksum] of checksums.entries()) {
      const offset = this.chunks.slot(chunk, rank);
      if (offset !== undefined) this.pool.seal(offset, checksum);
    }
  }

  /** Gives a chunk without slots those that a dead process kept for it, one per rank. */
  adopt(chunk: ChunkId, slots: readonly KeptSlot[]): void {
    assert(!this.chunks.hasSlots(chunk), "a chunk with slots was given more");
    for (const { offset, note } of slots) {
      this.pool.claim(offset);
      this.chunks.setBytes(chunk, note.rank, note.payloadBytes);
      this.#putSlot(chunk, note.rank, { offset, slotBytes: note.slotBytes });
    }
  }

  /** Moves the pool's capacity; what shrinks goes where least is likely to be read. {@link clearLeaving} does the rest. */
  resize(capacityBytes: number): void {
    const now = this.#tick();
    this.pool.resize(capacityBytes, (slots) => {
      let worth = 0;
      for (const offset of slots) {
        const chunk = this.#ownerOf(offset);
        worth += chunk === undefined || !this.#isIdle(chunk) ? Infinity : this.#policy.score(chunk, now);
      }
      return worth;
    });
  }

  /**
   * Evicts what lies where the capacity shrinks, and ends the pins of {@link pinFor} there.
   *
   * @returns how many slots have to wait, since they are in use
   */
  clearLeaving(): number {
    for (const offset of this.pool.leavingSlots()) {
      const chunk = this.#ownerOf(offset);
      if (chunk === undefined) continue; // evicted with another rank's, or left by a dead process
      this.#pinned.unpin(chunk);
      if (this.chunks.table.has(chunk) && this.#isIdle(chunk)) this.#evict(chunk);
    }
    return this.pool.leavingSlots().length;
  }

  /** Takes the slot of one rank back. */
  takeSlot(chunk: ChunkId, rank: number): void {
    const { chunks } = this;
    const offset = chunks.slot(chunk, rank);
    if (offset === undefined) return;
    const before = chunks.bytesInPool(chunk);
    this.#slots(rank).remove(chunk);
    chunks.table.setSlot(chunk, rank, undefined);
    this.pool.free(offset);
    this.#tenants.changed(chunks.tenantOf(chunk), chunks.bytesInPool(chunk) - before);
    if (!chunks.hasSlots(chunk)) this.#countInPool(chunks.parentOf(chunk), -1);
    this.settle(chunk);
  }

  takeSlots(chunk: ChunkId): void {
    const ranks = this.chunks.ranksOf(chunk);
    for (let rank = 0; rank < ranks; rank += 1) this.takeSlot(chunk, rank);
  }

  /** All bytes of the chunk are there, for the first time or again. */
  stored(chunk: ChunkId): void {
    this.chunks.table.mark(chunk, flag.visible, true);
    this.#tell(chunk, () => this.#policy.stored(chunk, this.chunks.traits(chunk), this.#tick()));
  }

  /**
   * Marks the chunk and all before it as touched now, the last first: a chunk is never older than its children.
   *
   * @param how `used`: somebody reads them; `refreshed`: a text that begins with them is being stored.
   */
  touch(chunk: ChunkId, how: "used" | "refreshed"): void {
    const { table } = this.chunks;
    if (!table.has(chunk)) return; // replaced by a longer sibling
    this.#tenants.seen(this.chunks.tenantOf(chunk), this.#tick());
    for (let at = chunk; this.chunks.parentOf(at) !== noChunk; at = this.chunks.parentOf(at)) {
      if (!table.is(at, flag.filled)) continue;
      table.mark(at, flag.usedSinceRecorded, true);
      this.#tell(at, () => this.#policy[how](at, this.#tick()));
    }
  }

  /** Decides anew whether the chunk may be evicted, and forgets one that is of no more use: its name is stale then. */
  settle(chunk: ChunkId): void {
    const { table } = this.chunks;
    if (!table.has(chunk)) return;
    const idle = this.#isIdle(chunk);
    if (idle && table.is(chunk, flag.superseded)) {
      table.mark(chunk, flag.superseded, false);
      this.forget(chunk);
      return;
    }
    const evictable = idle && this.chunks.hasSlots(chunk) && table.get(chunk, field.childrenInPool) === 0;
    if (!evictable) this.#policy.withdraw(chunk, this.chunks.tenantOf(chunk));
    else if (!this.#policy.isOffered(chunk)) this.#policy.offer(chunk, this.chunks.tenantOf(chunk));
  }

  /** Removes a chunk that nobody uses from the pool, the tiers and the index. */
  forget(chunk: ChunkId): void {
    assert(this.#isIdle(chunk), "a chunk in use was forgotten");
    this.takeSlots(chunk);
    for (const tier of this.chunks.tiers) {
      const id = this.records.of(chunk, tier);
      if (id === undefined) continue;
      this.records.forget(tier, id);
      tier.drop(id);
    }
    this.removeIfEmpty(chunk);
  }

  /** Makes the node hollow, and removes it if it is a leaf, when no bytes of the chunk are left and none are to come. */
  removeIfEmpty(chunk: ChunkId): void {
    const { chunks } = this;
    const { table } = chunks;
    if (!table.has(chunk) || !table.is(chunk, flag.filled)) return;
    if (chunks.hasSlots(chunk) || chunks.hasRecords(chunk) || !this.#isIdle(chunk)) return;
    this.#policy.withdraw(chunk, chunks.tenantOf(chunk));
    if (chunks.isWritten(chunk)) this.#policy.forgotten(chunk, chunks.traits(chunk));
    for (const one of [flag.filled, flag.visible, flag.superseded]) table.mark(chunk, one, false);
    for (let rank = 0; rank < chunks.ranksOf(chunk); rank += 1) table.setBytes(chunk, rank, 0);
    chunks.rootOf(chunk).tree.prune(chunk);
  }

  /** Drops the tails that `chunk` makes needless. One that survives a restart waits until `chunk` does too. */
  supersede(chunk: ChunkId): void {
    const { chunks } = this;
    for (const tail of chunks.rootOf(chunk).tree.shorterSiblings(chunk)) {
      if (!chunks.isVisible(tail)) continue;
      if (chunks.hasRecords(tail) && !chunks.hasRecords(chunk)) continue;
      chunks.table.mark(tail, flag.superseded, true);
      this.settle(tail);
    }
  }

  /** Asserts that slots, leases, the policy and the index tell the same story. */
  check(trees: Iterable<RootIndex>): void {
    checkStore(trees, {
      store: this,
      policy: this.#policy,
      leases: this.#leases,
      tenants: this.#tenants,
      bySlot: this.#bySlot,
    });
  }

  #putSlot(chunk: ChunkId, rank: number, { offset, slotBytes }: { offset: number; slotBytes: number }): void {
    const { chunks } = this;
    const before = chunks.bytesInPool(chunk);
    if (before === 0) this.#countInPool(chunks.parentOf(chunk), 1);
    chunks.table.setSlot(chunk, rank, offset);
    chunks.table.set(chunk, field.slotBytes, slotBytes);
    // Ranks may ask for slots of different sizes; the last one's size is the chunk's.
    this.#tenants.changed(chunks.tenantOf(chunk), chunks.bytesInPool(chunk) - before);
    this.#slots(rank).add(chunk);
    this.settle(chunk);
  }

  #roomFor(chunk: ChunkId, slotBytes: number): number | undefined {
    const asker = this.chunks.tenantOf(chunk);
    const { chunkTokens } = this.chunks.table.shapeOf(chunk);
    for (;;) {
      const offset = this.pool.allocate(slotBytes, chunkTokens);
      if (offset !== "full") return offset;
      const victim = this.#victimFor(asker);
      if (victim === undefined) return undefined;
      this.#evictFor(slotBytes, victim);
    }
  }

  /** Whom the policy would evict first, unless its tenant is protected: then one whose tenant is not. */
  #victimFor(asker: number): ChunkId | undefined {
    const now = this.#tick();
    this.#pinned.expire(now);
    const best = this.#policy.next(now);
    if (best === undefined) return undefined;
    const owner = this.chunks.tenantOf(best);
    if (!this.#tenants.isProtected(owner, now)) return best;
    const giver = this.#tenants.giver(now);
    const given = giver === undefined ? undefined : this.#policy.next(now, giver);
    if (given !== undefined) return given;
    // Nobody can give. Who holds more than its share takes nothing from those who do not.
    const own = owner === asker ? best : this.#policy.next(now, asker);
    return own ?? (this.#tenants.isProtected(asker, now) ? best : undefined);
  }

  #evictFor(slotBytes: number, victim: ChunkId): void {
    const ranks = Array.from({ length: this.chunks.ranksOf(victim) }, (_, rank) => rank);
    const offsets = ranks.map((rank) => this.chunks.slot(victim, rank)).filter((slot) => slot !== undefined);
    if (offsets.some((offset) => this.pool.sameClass(slotBytes, offset))) {
      this.#evict(victim);
      return;
    }
    const others = new Set(this.pool.neighbours(offsets[0]!).map((offset) => this.#ownerOf(offset)!)); // evictable: it has a slot
    const inUse = [...others].some((chunk) => !this.#isIdle(chunk));
    for (const chunk of inUse ? [victim] : others) this.#evict(chunk);
  }

  #evict(chunk: ChunkId): void {
    if (this.chunks.isVisible(chunk)) {
      this.#counters.evictedChunks += 1;
      if (!this.chunks.hasRecords(chunk)) this.#counters.lostChunks += 1;
    }
    this.takeSlots(chunk);
    this.removeIfEmpty(chunk);
  }

  #isIdle(chunk: ChunkId): boolean {
    return this.chunks.table.get(chunk, field.pins) === 0 && this.#leases.leasesOf(chunk) === 0;
  }

  /** One child of `parent` more or less is in the pool. */
  #countInPool(parent: ChunkId, change: 1 | -1): void {
    const { table } = this.chunks;
    table.set(parent, field.childrenInPool, table.get(parent, field.childrenInPool) + change);
    this.settle(parent);
  }

  /** The chunk whose slot this is; undefined when a dead process left it there. */
  #ownerOf(offset: number): ChunkId | undefined {
    for (const index of this.#bySlot) {
      const chunk = index.find(offset);
      if (chunk !== undefined) return chunk;
    }
    return undefined;
  }

  #slots(rank: number): LinkedIndex {
    const { table } = this.chunks;
    while (this.#bySlot.length <= rank) {
      const number = this.#bySlot.length;
      const index = new LinkedIndex({
        keyOf: (chunk) => table.slot(chunk, number),
        next: (chunk) => table.nextBySlot(chunk, number),
        setNext: (chunk, next) => table.setNextBySlot(chunk, number, next),
      });
      this.#bySlot.push(index);
    }
    return this.#bySlot[rank]!; // made above
  }

  /** What happens to a chunk is told to the policy while it is not offered. */
  #tell(chunk: ChunkId, what: () => void): void {
    const tenant = this.chunks.tenantOf(chunk);
    const offered = this.#policy.isOffered(chunk);
    if (offered) this.#policy.withdraw(chunk, tenant);
    what();
    if (offered) this.#policy.offer(chunk, tenant);
  }

  /** Now, later than any moment before. */
  #tick(): number {
    return (this.#lastTick = Math.max(this.#now(), this.#lastTick + 0.001));
  }
}
