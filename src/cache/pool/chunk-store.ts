/**
 * The chunks in the pool: gives them slots, and takes slots back when others need them.
 *
 * A chunk may go when nobody leases or holds it and no child of it is in the pool; then it stands with the eviction
 * policy. Every change to one of these facts ends in {@link reconcile}, the one place that decides.
 *
 * Room is taken where the policy says, but not from a tenant that holds no more than its fair share while others hold
 * more (victims.ts). When the policy's choice lies in an extent of another size class, the whole extent is cleared, so
 * that a space that is in use takes room from one that no longer is.
 */
import { assert } from "../../errors.ts";
import { noChunk, type ChunkId } from "../index/chunk-id.ts";
import { ChunkRecords } from "../index/chunk-records.ts";
import { field, flag } from "../index/chunk-table.ts";
import type { TenantName } from "../../identity/keys.ts";
import type { ChunkEvents } from "../events.ts";
import type { EvictionPolicy } from "../eviction/policy.ts";
import type { LeaseTable } from "./leases.ts";
import { setOwner } from "../eviction/ownership.ts";
import { longestPinSeconds, PinnedChunks } from "./pinned-chunks.ts";
import { SlotOwners } from "./slot-owners.ts";
import type { KeptSlot, SlotPool } from "./slot-pool.ts";
import { checkStore } from "./store-check.ts";
import type { RootIndex, StoredChunks, Wanted } from "../index/stored-chunk.ts";
import { Tenants } from "../eviction/tenants.ts";
import { victimFor } from "../eviction/victims.ts";

export interface ChunkStoreOptions {
  readonly chunks: StoredChunks;
  readonly pool: SlotPool;
  readonly policy: EvictionPolicy;
  readonly leases: LeaseTable<ChunkId>;
  /** Told of what comes into the pool and leaves it, and of records. */
  readonly events: ChunkEvents;
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
  readonly #events: ChunkEvents;
  readonly #now: () => number;
  readonly #owners: SlotOwners;
  readonly #tenants: Tenants;
  readonly #pinned: PinnedChunks;
  #lastTick = 0;

  constructor(options: ChunkStoreOptions) {
    this.chunks = options.chunks;
    this.pool = options.pool;
    this.records = new ChunkRecords({
      chunks: options.chunks,
      events: options.events,
      onForgotten: (chunk) => this.removeIfEmpty(chunk),
    });
    this.#owners = new SlotOwners(options.chunks.table);
    this.#policy = options.policy;
    this.#leases = options.leases;
    this.#events = options.events;
    this.#now = options.now;
    const capacityBytes = () => options.pool.stats().capacityBytes;
    this.#tenants = new Tenants(capacityBytes);
    this.#pinned = new PinnedChunks({
      capacityBytes,
      hold: (chunk) => this.hold(chunk),
      letGo: (chunk) => this.letGo(chunk),
      bytesInPool: (chunk) => this.chunks.bytesInPool(chunk),
      tenantOf: (chunk) => this.chunks.tenantOf(chunk),
    });
  }

  /** Bytes of a chunk are to come: it is no placeholder any more. */
  fill(chunk: ChunkId): void {
    this.chunks.table.mark(chunk, flag.filled, true);
  }

  /** Keeps a chunk in its place, whatever happens to its slots, until it is let go as often. */
  hold(chunk: ChunkId): void {
    const { table } = this.chunks;
    table.set(chunk, field.holds, table.get(chunk, field.holds) + 1);
    this.reconcile(chunk);
  }

  letGo(chunk: ChunkId): void {
    const { table } = this.chunks;
    const holds = table.get(chunk, field.holds);
    assert(holds > 0, "a chunk was let go that nobody held");
    table.set(chunk, field.holds, holds - 1);
    this.reconcile(chunk);
  }

  /** Says whose a root is. What it has in the pool, from before anybody asked for it, is the tenant's from now on. */
  setOwner(index: RootIndex, name: TenantName | undefined): void {
    setOwner(index, name, { chunks: this.chunks, policy: this.#policy, tenants: this.#tenants });
  }

  /** A slot of the chunk is being written by a guest from now on, or (-1) no longer is. */
  reserved(chunk: ChunkId, slots: 1 | -1): void {
    this.#tenants.reserved(this.chunks.tenantOf(chunk), slots);
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
   * Gives a part of `chunk` a slot, evicting others where needed.
   *
   * @returns `"full"` when everything in the pool is in use.
   */
  giveSlot(chunk: ChunkId, part: number, slotBytes: number): "given" | "full" {
    const { chunks } = this;
    assert(chunks.slot(chunk, part) === undefined, "a part has one slot");
    this.#tenants.seen(chunks.tenantOf(chunk), this.#tick());
    this.hold(chunk);
    const offset = this.#roomFor(chunk, slotBytes);
    if (offset !== undefined) this.#putSlot(chunk, part, { offset, slotBytes });
    this.letGo(chunk);
    return offset === undefined ? "full" : "given";
  }

  /** Notes in the pool what these parts' slots hold: a process that comes after a crash finds it there. */
  keep(chunk: ChunkId, written: readonly number[]): void {
    const { chunks } = this;
    const identity = chunks.identityOf(chunk);
    const parts = chunks.partsOf(chunk);
    for (const part of written) {
      const offset = chunks.slot(chunk, part);
      const [payloadBytes, slotBytes] = [chunks.bytes(chunk, part), chunks.table.slotBytes(chunk, part)];
      assert(offset !== undefined && payloadBytes > 0, "a part was kept that is not written in the pool");
      this.pool.keep(offset, { ...identity, part, parts, payloadBytes, slotBytes }, chunks.rootOf(chunk).description);
    }
  }

  /** Notes the checksums of the payloads of a kept chunk, by part. */
  seal(chunk: ChunkId, checksums: readonly bigint[]): void {
    for (const [part, checksum] of checksums.entries()) {
      const offset = this.chunks.slot(chunk, part);
      if (offset !== undefined) this.pool.seal(offset, checksum);
    }
  }

  /** Gives a chunk without slots those that a dead process kept for it. */
  adopt(chunk: ChunkId, slots: readonly KeptSlot[]): void {
    assert(!this.chunks.hasSlots(chunk), "a chunk with slots was given more");
    for (const { offset, note } of slots) {
      this.pool.claim(offset);
      this.chunks.setBytes(chunk, note.part, note.payloadBytes);
      this.#putSlot(chunk, note.part, { offset, slotBytes: note.slotBytes });
    }
    if (this.chunks.isInMemory(chunk)) this.#events.stored(chunk, "recovered"); // a tier's record made it visible before
  }

  /** Moves the pool's capacity; what shrinks goes where least is likely to be read. {@link clearLeaving} does the rest. */
  resize(capacityBytes: number): void {
    const now = this.#tick();
    this.pool.resize(capacityBytes, (slots) => {
      let worth = 0;
      for (const offset of slots) {
        const chunk = this.#owners.of(offset);
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
      const chunk = this.#owners.of(offset);
      if (chunk === undefined) continue; // evicted with another part's, or left by a dead process
      this.#pinned.unpin(chunk);
      if (this.chunks.table.has(chunk) && this.#isIdle(chunk)) this.#evict(chunk);
    }
    return this.pool.leavingSlots().length;
  }

  /** Takes the slot of one part back. */
  takeSlot(chunk: ChunkId, part: number, why: "room" | "dropped" = "dropped"): void {
    const { chunks } = this;
    const offset = chunks.slot(chunk, part);
    if (offset === undefined) return;
    const wasInMemory = chunks.isInMemory(chunk);
    this.#owners.remove(chunk, part);
    chunks.table.setSlot(chunk, part, undefined);
    this.pool.free(offset);
    this.#tenants.changed(chunks.tenantOf(chunk), -chunks.table.slotBytes(chunk, part), -1);
    if (wasInMemory && !chunks.isInMemory(chunk)) this.#events.evicted(chunk, why);
    if (chunks.isSnapshot(chunk, part)) chunks.forgetUnreadable(chunk);
    if (!chunks.hasSlots(chunk)) this.#countInPool(chunks.parentOf(chunk), -1);
    this.#pinned.changed(chunk);
    this.reconcile(chunk);
  }

  takeSlots(chunk: ChunkId, why: "room" | "dropped" = "dropped"): void {
    const parts = this.chunks.partsOf(chunk);
    for (let part = 0; part < parts; part += 1) this.takeSlot(chunk, part, why);
  }

  /** Parts of a chunk are read from below from now on: they are in no slot that may be read. */
  beginPromotion(chunk: ChunkId, what: Wanted): void {
    const { chunks } = this;
    this.hold(chunk);
    if (!chunks.isInMemory(chunk)) chunks.table.mark(chunk, flag.promoting, true);
    if (what === "all") chunks.setReadingSnapshots(chunk, true);
  }

  /** That has ended, for these parts, which have slots. The chunk's records may have come or gone meanwhile. */
  endPromotion(chunk: ChunkId, parts: readonly number[], outcome: "read" | "failed"): void {
    const { chunks } = this;
    const { table } = chunks;
    const ofRows = table.is(chunk, flag.promoting);
    if (outcome === "failed") for (const part of parts) this.takeSlot(chunk, part);
    chunks.setReadingSnapshots(chunk, false);
    table.mark(chunk, flag.promoting, false);
    if (ofRows) chunks.setVisible(chunk, outcome === "read" || chunks.hasRecords(chunk));
    if (ofRows && outcome === "read") this.#events.stored(chunk, "promoted");
    chunks.forgetUnreadable(chunk);
    this.letGo(chunk);
    this.removeIfEmpty(chunk);
  }

  /** All bytes of the chunk are there, in the pool or below it, for the first time or again. */
  stored(chunk: ChunkId, how: "saved" | "recovered"): void {
    this.chunks.setVisible(chunk, true);
    if (how === "saved" || this.chunks.isInMemory(chunk)) this.#events.stored(chunk, how);
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
  reconcile(chunk: ChunkId): void {
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
    this.records.drop(chunk);
    this.removeIfEmpty(chunk);
  }

  /** Makes the node a placeholder, and removes it if it is a leaf, when no bytes of the chunk are left and none are to come. */
  removeIfEmpty(chunk: ChunkId): void {
    const { chunks } = this;
    const { table } = chunks;
    if (!table.has(chunk) || !table.is(chunk, flag.filled)) return;
    if (chunks.hasSlots(chunk) || chunks.hasRecords(chunk) || !this.#isIdle(chunk)) return;
    this.#policy.withdraw(chunk, chunks.tenantOf(chunk));
    if (chunks.isWritten(chunk)) this.#policy.forgotten(chunk, chunks.traits(chunk));
    chunks.setVisible(chunk, false);
    for (const one of [flag.filled, flag.superseded]) table.mark(chunk, one, false);
    for (let part = 0; part < chunks.partsOf(chunk); part += 1) table.setBytes(chunk, part, 0);
    chunks.rootOf(chunk).tree.prune(chunk);
  }

  /**
   * Drops the tails that `chunk` makes needless. One that survives a restart waits until `chunk` does too. In a space with
   * snapshots none is: its end is where a stored prefix may end.
   */
  supersede(chunk: ChunkId): void {
    const { chunks } = this;
    if (chunks.table.shapeOf(chunk).hasSnapshots) return;
    for (const tail of chunks.rootOf(chunk).tree.shorterSiblings(chunk)) {
      if (!chunks.isVisible(tail)) continue;
      if (chunks.hasRecords(tail) && !chunks.hasRecords(chunk)) continue;
      chunks.table.mark(tail, flag.superseded, true);
      this.reconcile(tail);
    }
  }

  /** Asserts that slots, leases, the policy and the index tell the same story. */
  check(trees: Iterable<RootIndex>): void {
    const { chunks, pool, records } = this;
    const [policy, leases, tenants, owners] = [this.#policy, this.#leases, this.#tenants, this.#owners];
    checkStore(trees, { chunks, pool, records, policy, leases, tenants, owners });
    this.#events.check();
  }

  #putSlot(chunk: ChunkId, part: number, { offset, slotBytes }: { offset: number; slotBytes: number }): void {
    const { chunks } = this;
    if (!chunks.hasSlots(chunk)) this.#countInPool(chunks.parentOf(chunk), 1);
    chunks.table.setSlot(chunk, part, offset);
    chunks.table.setSlotBytes(chunk, part, slotBytes);
    this.#tenants.changed(chunks.tenantOf(chunk), slotBytes, 1);
    this.#owners.add(chunk, part);
    this.#pinned.changed(chunk);
    this.reconcile(chunk);
  }

  #roomFor(chunk: ChunkId, slotBytes: number): number | undefined {
    const asker = this.chunks.tenantOf(chunk);
    const { chunkTokens } = this.chunks.table.shapeOf(chunk);
    for (;;) {
      const offset = this.pool.allocate(slotBytes, chunkTokens);
      if (offset !== "full") return offset;
      const now = this.#tick();
      this.#pinned.expire(now);
      const victim = victimFor(asker, now, { policy: this.#policy, tenants: this.#tenants, chunks: this.chunks });
      if (victim === undefined) return undefined;
      this.#evictFor(slotBytes, victim);
    }
  }

  #evictFor(slotBytes: number, victim: ChunkId): void {
    const parts = Array.from({ length: this.chunks.partsOf(victim) }, (_, part) => part);
    const offsets = parts.map((part) => this.chunks.slot(victim, part)).filter((slot) => slot !== undefined);
    if (offsets.some((offset) => this.pool.sameClass(slotBytes, offset))) {
      this.#evict(victim);
      return;
    }
    const others = new Set(this.pool.neighbours(offsets[0]!).map((offset) => this.#owners.of(offset)!)); // evictable: it has a slot
    const inUse = [...others].some((chunk) => !this.#isIdle(chunk));
    for (const chunk of inUse ? [victim] : others) this.#evict(chunk);
  }

  #evict(chunk: ChunkId): void {
    this.takeSlots(chunk, "room");
    this.removeIfEmpty(chunk);
  }

  #isIdle(chunk: ChunkId): boolean {
    return this.chunks.table.get(chunk, field.holds) === 0 && this.#leases.leasesOf(chunk) === 0;
  }

  /** One child of `parent` more or less is in the pool. */
  #countInPool(parent: ChunkId, change: 1 | -1): void {
    const { table } = this.chunks;
    table.set(parent, field.childrenInPool, table.get(parent, field.childrenInPool) + change);
    this.reconcile(parent);
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
