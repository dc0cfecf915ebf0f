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
import type { RecordId, Tier } from "../tier.ts";
import { noChunk, type ChunkId } from "./chunk-id.ts";
import { field, flag } from "./chunk-table.ts";
import type { Counters } from "./counters.ts";
import type { EvictionPolicy } from "./eviction.ts";
import type { LeaseTable } from "./lease.ts";
import { LinkedIndex } from "./linked-index.ts";
import { longestPinSeconds, PinnedChunks } from "./pinned-chunks.ts";
import type { SlotPool } from "./slot-pool.ts";
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
  readonly #policy: EvictionPolicy;
  readonly #leases: LeaseTable<ChunkId>;
  readonly #counters: Counters;
  readonly #now: () => number;
  /** By rank, made when first needed. */
  readonly #bySlot: LinkedIndex[] = [];
  /** By tier. */
  readonly #byRecord: readonly LinkedIndex[];
  readonly #tenants: Tenants;
  readonly #pinned: PinnedChunks;
  #lastTick = 0;

  constructor(options: ChunkStoreOptions) {
    this.chunks = options.chunks;
    this.pool = options.pool;
    this.#policy = options.policy;
    this.#leases = options.leases;
    this.#counters = options.counters;
    this.#now = options.now;
    this.#tenants = new Tenants(options.pool.bytes);
    this.#pinned = new PinnedChunks({
      poolBytes: options.pool.bytes,
      pin: (chunk) => this.pin(chunk),
      unpin: (chunk) => this.unpin(chunk),
      bytesInPool: (chunk) => this.chunks.bytesInPool(chunk),
    });
    const { table, tiers } = options.chunks;
    this.#byRecord = tiers.map(
      (_, tier) =>
        new LinkedIndex({
          keyOf: (chunk) => table.record(chunk, tier),
          next: (chunk) => table.nextByRecord(chunk, tier),
          setNext: (chunk, next) => table.setNextByRecord(chunk, tier, next),
        }),
    );
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

  /** Bytes of slots that {@link keep} holds. */
  get keptBytes(): number {
    this.#pinned.expire(this.#tick());
    return this.#pinned.bytes;
  }

  /** Keeps a chunk that is in the pool there for so long, or ends that; bounded as {@link PinnedChunks} says. */
  keep(chunk: ChunkId, seconds: number): "pinned" | "full" {
    const now = this.#tick();
    this.#pinned.expire(now);
    if (seconds > 0) return this.#pinned.pin(chunk, now + Math.min(seconds, longestPinSeconds) * 1000);
    this.#pinned.unpin(chunk);
    return "pinned";
  }

  /**
   * Gives `chunk` a slot for `rank`, evicting others where needed.
   *
   * @returns `"full"` when everything in the pool is in use.
   */
  giveSlot(chunk: ChunkId, rank: number, slotBytes: number): "given" | "full" {
    const { chunks } = this;
    const { table } = chunks;
    assert(chunks.slot(chunk, rank) === undefined, "a rank has one slot");
    this.#tenants.seen(chunks.tenantOf(chunk), this.#tick());
    this.pin(chunk);
    const offset = this.#roomFor(slotBytes, chunks.tenantOf(chunk));
    if (offset === undefined) {
      this.unpin(chunk);
      return "full";
    }
    if (!chunks.hasSlots(chunk)) this.#countInPool(chunks.parentOf(chunk), 1);
    table.setSlot(chunk, rank, offset);
    table.set(chunk, field.slotBytes, slotBytes);
    this.#tenants.changed(chunks.tenantOf(chunk), slotBytes);
    this.#slots(rank).add(chunk);
    this.unpin(chunk);
    return "given";
  }

  /** Takes the slot of one rank back. */
  takeSlot(chunk: ChunkId, rank: number): void {
    const offset = this.chunks.slot(chunk, rank);
    if (offset === undefined) return;
    this.#slots(rank).remove(chunk);
    this.chunks.table.setSlot(chunk, rank, undefined);
    this.pool.free(offset);
    this.#tenants.changed(this.chunks.tenantOf(chunk), -this.chunks.table.get(chunk, field.slotBytes));
    if (!this.chunks.hasSlots(chunk)) this.#countInPool(this.chunks.parentOf(chunk), -1);
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
      const id = this.record(chunk, tier);
      if (id === undefined) continue;
      this.forgetRecord(tier, id);
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

  /** The chunk's record in a tier. */
  record(chunk: ChunkId, tier: Tier): RecordId | undefined {
    return this.chunks.table.record(chunk, this.#numberOf(tier)) as RecordId | undefined; // only records are set
  }

  addRecord(chunk: ChunkId, tier: Tier, id: RecordId): void {
    const { table } = this.chunks;
    const number = this.#numberOf(tier);
    assert(table.record(chunk, number) === undefined, "a chunk has one record in a tier");
    table.setRecord(chunk, number, id);
    this.#byRecord[number]!.add(chunk); // one per tier
    table.mark(chunk, flag.usedSinceRecorded, false);
  }

  /** The record was rewritten under another name. */
  moveRecord(chunk: ChunkId, tier: Tier, to: RecordId): void {
    this.#takeRecord(chunk, this.#numberOf(tier));
    this.addRecord(chunk, tier, to);
  }

  /** The record is gone from its tier. */
  forgetRecord(tier: Tier, id: RecordId): ChunkId | undefined {
    const chunk = this.recordOwner(tier, id);
    if (chunk === undefined) return undefined;
    this.#takeRecord(chunk, this.#numberOf(tier));
    if (!this.chunks.hasRecords(chunk) && !this.chunks.isInMemory(chunk))
      this.chunks.table.mark(chunk, flag.visible, false);
    return chunk;
  }

  recordOwner(tier: Tier, id: RecordId): ChunkId | undefined {
    return this.#byRecord[this.#numberOf(tier)]!.find(id); // one per tier
  }

  /** Used since its record was written: worth rewriting when the record's region goes. */
  isWanted(chunk: ChunkId): boolean {
    return this.chunks.table.is(chunk, flag.usedSinceRecorded);
  }

  /** Asserts that slots, leases, the policy and the index tell the same story. */
  check(trees: Iterable<RootIndex>): void {
    this.pool.check();
    this.#leases.check();
    this.#policy.check();
    let slots = 0;
    let records = 0;
    let rows = 0;
    const held = new Map<number, number>();
    for (const { tree, tenant } of trees) {
      tree.check();
      rows += tree.size + 1;
      for (const chunk of tree.nodes()) {
        slots += this.#checkChunk(chunk);
        const bytes = this.chunks.bytesInPool(chunk);
        if (bytes > 0) held.set(tenant, (held.get(tenant) ?? 0) + bytes);
        records += this.chunks.tiers.filter((tier) => this.record(chunk, tier) !== undefined).length;
      }
    }
    const sum = (indexes: readonly LinkedIndex[]) => indexes.reduce((total, { size }) => total + size, 0);
    this.#tenants.check(held);
    assert(slots === sum(this.#bySlot), "slots in the index and slots known differ");
    assert(slots === this.pool.stats().usedSlots, "slots in the index and slots of the pool differ");
    assert(records === sum(this.#byRecord), "records in the index and records known differ");
    assert(rows === this.chunks.table.size, "rows in use and chunks in the trees differ");
    for (const lease of this.#leases.all())
      assert(this.chunks.table.is(lease.chunk, flag.filled), "a leased chunk is not indexed");
  }

  #checkChunk(chunk: ChunkId): number {
    const { chunks } = this;
    const { table, tiers } = chunks;
    let slots = 0;
    for (let rank = 0; rank < chunks.ranksOf(chunk); rank += 1) {
      const offset = chunks.slot(chunk, rank);
      if (offset === undefined) continue;
      slots += 1;
      assert(this.#slots(rank).find(offset) === chunk, "a slot belongs to the chunk that has it");
    }
    const children = [...chunks.rootOf(chunk).tree.children(chunk)].filter((child) => chunks.hasSlots(child)).length;
    assert(children === table.get(chunk, field.childrenInPool), "children in the pool are miscounted");
    const idle = this.#isIdle(chunk);
    const records = tiers.filter((tier) => this.record(chunk, tier) !== undefined);
    assert(this.#policy.isOffered(chunk) === (idle && slots > 0 && children === 0), "the policy has what may go");
    if (chunks.isVisible(chunk)) assert(chunks.isWritten(chunk), "a visible chunk is whole");
    assert(!chunks.isVisible(chunk) || records.length > 0 || chunks.isInMemory(chunk), "a visible chunk can be read");
    const needed = slots > 0 || records.length > 0 || !idle;
    assert(needed === table.is(chunk, flag.filled), "a chunk is hollow when it has no bytes, and only then");
    for (const tier of records)
      assert(this.recordOwner(tier, this.record(chunk, tier)!) === chunk, "a record knows its chunk"); // it has one
    return slots;
  }

  #roomFor(slotBytes: number, asker: number): number | undefined {
    for (;;) {
      const offset = this.pool.allocate(slotBytes);
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
    const others = new Set(this.pool.neighbours(offsets[0]!).map((offset) => this.#ownerOf(offset))); // evictable: it has a slot
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

  #ownerOf(offset: number): ChunkId {
    for (const index of this.#bySlot) {
      const chunk = index.find(offset);
      if (chunk !== undefined) return chunk;
    }
    throw new Error("Bug: a slot is in use that no chunk has");
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

  #takeRecord(chunk: ChunkId, tier: number): void {
    assert(this.chunks.table.record(chunk, tier) !== undefined, "a record that nobody has was moved");
    this.#byRecord[tier]!.remove(chunk); // one per tier
    this.chunks.table.setRecord(chunk, tier, undefined);
  }

  #numberOf(tier: Tier): number {
    const number = this.chunks.tiers.indexOf(tier);
    assert(number !== -1, "a tier was named that the cache does not have");
    return number;
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
