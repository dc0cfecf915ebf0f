/**
 * The chunks in the pool: gives them slots, and takes slots back when others need them.
 *
 * A chunk may go when nobody leases or pins it and no child of it is in the pool; then it stands with the eviction
 * policy. Every change to one of these facts ends in {@link settle}, the one place that decides.
 *
 * When room is needed and the policy's choice lies in an extent of another size class, the whole extent is cleared, so
 * that a space that is in use takes room from one that no longer is.
 */
import { assert } from "../errors.ts";
import type { RecordId, Tier } from "../tier.ts";
import type { Tokens } from "./chunk.ts";
import type { Counters } from "./counters.ts";
import type { EvictionPolicy } from "./eviction.ts";
import type { LeaseTable } from "./lease.ts";
import type { KeptSlot, SlotPool } from "./slot-pool.ts";
import { StoredChunk, type ChunkNode, type RootIndex } from "./stored-chunk.ts";

export interface ChunkStoreOptions {
  readonly pool: SlotPool;
  readonly policy: EvictionPolicy<StoredChunk>;
  readonly leases: LeaseTable<StoredChunk>;
  readonly counters: Counters;
}

export class ChunkStore {
  readonly pool: SlotPool;
  readonly #policy: EvictionPolicy<StoredChunk>;
  readonly #leases: LeaseTable<StoredChunk>;
  readonly #counters: Counters;
  readonly #bySlot = new Map<number, StoredChunk>();
  readonly #byRecord = new Map<Tier, Map<RecordId, StoredChunk>>();
  #clock = 0;

  constructor(options: ChunkStoreOptions) {
    this.pool = options.pool;
    this.#policy = options.policy;
    this.#leases = options.leases;
    this.#counters = options.counters;
  }

  /** The payload of `node`, made when it is hollow. */
  chunkAt(index: RootIndex, node: ChunkNode): StoredChunk {
    if (node.payload !== undefined) return node.payload;
    const chunk = new StoredChunk(index, node);
    for (const child of node.children) if (child.payload?.hasSlots === true) chunk.childrenInPool += 1;
    node.payload = chunk;
    return chunk;
  }

  /**
   * Gives `chunk` a slot for `rank`, evicting others where needed.
   *
   * @returns `"full"` when everything in the pool is in use.
   */
  giveSlot(chunk: StoredChunk, rank: number, slotBytes: number): "given" | "full" {
    assert(chunk.slots[rank] === undefined, "a rank has one slot");
    chunk.pins += 1;
    this.settle(chunk);
    const offset = this.#roomFor(slotBytes, chunk.index.tree.chunkTokens);
    chunk.pins -= 1;
    if (offset === undefined) {
      this.settle(chunk);
      return "full";
    }
    this.#putSlot(chunk, rank, offset, slotBytes);
    return "given";
  }

  /** Notes in the pool what the chunk's slots hold: a process that comes after a crash finds it there. */
  keep(chunk: StoredChunk): void {
    const { index, node, key, parentKey: parent, slotBytes } = chunk;
    const { space, key: root, ranks } = index;
    const { firstToken, tokens } = node;
    for (const [rank, offset] of chunk.slots.entries()) {
      if (offset === undefined) continue;
      const payloadBytes = chunk.bytes[rank]!; // one per rank
      const note = { space, root, key, parent, firstToken, tokens, rank, ranks, payloadBytes, slotBytes };
      this.pool.keep(offset, note, index.description);
    }
  }

  /** Notes the checksums of the payloads of a kept chunk, by rank. */
  seal(chunk: StoredChunk, checksums: readonly bigint[]): void {
    for (const [rank, offset] of chunk.slots.entries())
      if (offset !== undefined) this.pool.seal(offset, checksums[rank]!); // one per rank
  }

  /** Gives a chunk without slots those that a dead process kept for it, one per rank. */
  adopt(chunk: StoredChunk, slots: readonly KeptSlot[]): void {
    assert(!chunk.hasSlots, "a chunk with slots was given more");
    for (const { offset, note } of slots) {
      this.pool.claim(offset);
      chunk.bytes[note.rank] = note.payloadBytes;
      chunk.written[note.rank] = true;
      this.#putSlot(chunk, note.rank, offset, note.slotBytes);
    }
  }

  /** Moves the pool's capacity; what shrinks goes where it was used longest ago. {@link clearLeaving} does the rest. */
  resize(capacityBytes: number): void {
    this.pool.resize(capacityBytes, (slots) => {
      const chunks = slots.map((offset) => this.#bySlot.get(offset));
      return Math.max(
        ...chunks.map((chunk) => (chunk === undefined || this.#isInUse(chunk) ? Infinity : chunk.lastUsed)),
      );
    });
  }

  /** Evicts what lies where the capacity shrinks. @returns how many slots have to wait, since they are in use */
  clearLeaving(): number {
    const leaving = new Set(this.pool.leavingSlots().map((offset) => this.#bySlot.get(offset)));
    for (const chunk of leaving) if (chunk !== undefined && !this.#isInUse(chunk)) this.#evict(chunk);
    return this.pool.leavingSlots().length;
  }

  /** Takes the slot of one rank back. */
  takeSlot(chunk: StoredChunk, rank: number): void {
    const offset = chunk.slots[rank];
    if (offset === undefined) return;
    chunk.slots[rank] = undefined;
    this.#bySlot.delete(offset);
    this.pool.free(offset);
    const parent = chunk.node.parent?.payload;
    if (!chunk.hasSlots && parent !== undefined) {
      parent.childrenInPool -= 1;
      this.settle(parent);
    }
    this.settle(chunk);
  }

  takeSlots(chunk: StoredChunk): void {
    for (const rank of chunk.slots.keys()) this.takeSlot(chunk, rank);
  }

  /** Marks the chunk and all before it as used now, the last first: a chunk is never older than its children. */
  touch(node: ChunkNode): void {
    for (let at: ChunkNode | undefined = node; at !== undefined; at = at.parent) {
      const chunk = at.payload;
      if (chunk === undefined) continue;
      chunk.lastUsed = this.#clock += 1;
      if (!this.#policy.isOffered(chunk)) continue;
      this.#policy.withdraw(chunk);
      this.#policy.offer(chunk, chunk.lastUsed);
    }
  }

  /** Decides anew whether the chunk may be evicted, and forgets one that is of no more use. */
  settle(chunk: StoredChunk): void {
    const idle = chunk.pins === 0 && this.#leases.leasesOf(chunk) === 0;
    if (chunk.superseded && idle && chunk.node.payload === chunk) {
      chunk.superseded = false;
      this.forget(chunk);
      return;
    }
    const evictable = idle && chunk.hasSlots && chunk.childrenInPool === 0;
    if (!evictable) this.#policy.withdraw(chunk);
    else if (!this.#policy.isOffered(chunk)) this.#policy.offer(chunk, chunk.lastUsed);
  }

  /** Removes a chunk that nobody uses from the pool, the tiers and the index. */
  forget(chunk: StoredChunk): void {
    assert(chunk.pins === 0 && this.#leases.leasesOf(chunk) === 0, "a chunk in use was forgotten");
    this.takeSlots(chunk);
    for (const [tier, id] of chunk.records) {
      this.forgetRecord(tier, id);
      tier.drop(id);
    }
    this.removeIfEmpty(chunk);
  }

  /** Makes the node hollow, and removes it if it is a leaf, when no bytes of the chunk are left and none are to come. */
  removeIfEmpty(chunk: StoredChunk): void {
    const needed = chunk.hasSlots || chunk.records.size > 0 || chunk.pins > 0 || this.#leases.leasesOf(chunk) > 0;
    if (needed || chunk.node.payload !== chunk) return;
    this.#policy.withdraw(chunk);
    chunk.visible = false;
    chunk.node.payload = undefined;
    chunk.index.tree.prune(chunk.node);
  }

  /** Drops the tails that `chunk` makes needless. One that survives a restart waits until `chunk` does too. */
  supersede(chunk: StoredChunk): void {
    for (const node of chunk.index.tree.shorterSiblings(chunk.node)) {
      const tail = node.payload;
      if (tail === undefined || !tail.visible) continue;
      if (tail.records.size > 0 && chunk.records.size === 0) continue;
      tail.superseded = true;
      this.settle(tail);
    }
  }

  addRecord(chunk: StoredChunk, tier: Tier, id: RecordId): void {
    chunk.records.set(tier, id);
    chunk.recordedAt = this.#clock;
    this.#records(tier).set(id, chunk);
  }

  /** The record was rewritten under another name. */
  moveRecord(chunk: StoredChunk, tier: Tier, to: RecordId): void {
    const from = chunk.records.get(tier);
    assert(from !== undefined, "a record that nobody has was moved");
    this.#records(tier).delete(from);
    this.addRecord(chunk, tier, to);
  }

  /** The record is gone from its tier. */
  forgetRecord(tier: Tier, id: RecordId): StoredChunk | undefined {
    const chunk = this.#records(tier).get(id);
    if (chunk === undefined) return undefined;
    this.#records(tier).delete(id);
    chunk.records.delete(tier);
    if (chunk.records.size === 0 && !chunk.isInMemory) chunk.visible = false;
    return chunk;
  }

  recordOwner(tier: Tier, id: RecordId): StoredChunk | undefined {
    return this.#records(tier).get(id);
  }

  /** Asserts that slots, leases, the policy and the index tell the same story. */
  check(trees: Iterable<RootIndex>): void {
    this.pool.check();
    this.#leases.check();
    let slots = 0;
    let records = 0;
    for (const { tree } of trees) {
      tree.check();
      for (const node of tree.nodes()) {
        const chunk = node.payload;
        if (chunk === undefined) continue;
        slots += this.#checkChunk(chunk, node);
        records += chunk.records.size;
      }
    }
    assert(slots === this.#bySlot.size, "slots in the index and slots known differ");
    const { usedSlots, unclaimedSlots } = this.pool.stats();
    assert(slots + unclaimedSlots === usedSlots, "slots in the index and slots of the pool differ");
    let known = 0;
    for (const byId of this.#byRecord.values()) known += byId.size;
    assert(records === known, "records in the index and records known differ");
    for (const lease of this.#leases.all())
      assert(lease.chunk.node.payload === lease.chunk, "a leased chunk is not indexed");
  }

  #checkChunk(chunk: StoredChunk, node: ChunkNode): number {
    assert(chunk.node === node, "a chunk knows its node");
    let slots = 0;
    for (const offset of chunk.slots) {
      if (offset === undefined) continue;
      slots += 1;
      assert(this.#bySlot.get(offset) === chunk, "a slot belongs to the chunk that has it");
    }
    const children = node.children.filter((child) => child.payload?.hasSlots === true).length;
    assert(children === chunk.childrenInPool, "children in the pool are miscounted");
    const idle = chunk.pins === 0 && this.#leases.leasesOf(chunk) === 0;
    assert(this.#policy.isOffered(chunk) === (idle && chunk.hasSlots && children === 0), "the policy has what may go");
    if (chunk.visible) assert(chunk.written.every(Boolean), "a visible chunk is whole");
    assert(!chunk.visible || chunk.records.size > 0 || chunk.isInMemory, "a visible chunk can be read");
    assert(chunk.hasSlots || chunk.records.size > 0 || !idle, "a chunk without bytes was left in the index");
    for (const [tier, id] of chunk.records) assert(this.recordOwner(tier, id) === chunk, "a record knows its chunk");
    return slots;
  }

  #putSlot(chunk: StoredChunk, rank: number, offset: number, slotBytes: number): void {
    const parent = chunk.node.parent?.payload;
    if (!chunk.hasSlots && parent !== undefined) {
      parent.childrenInPool += 1;
      this.settle(parent);
    }
    chunk.slots[rank] = offset;
    chunk.slotBytes = slotBytes;
    this.#bySlot.set(offset, chunk);
    this.settle(chunk);
  }

  #isInUse(chunk: StoredChunk): boolean {
    return chunk.pins > 0 || this.#leases.leasesOf(chunk) > 0;
  }

  #roomFor(slotBytes: number, noteTokens: number): number | undefined {
    for (;;) {
      const offset = this.pool.allocate(slotBytes, noteTokens);
      if (offset !== "full") return offset;
      const victim = this.#policy.next();
      if (victim === undefined) return undefined;
      this.#evictFor(slotBytes, victim);
    }
  }

  #evictFor(slotBytes: number, victim: StoredChunk): void {
    const offsets = victim.slots.filter((slot) => slot !== undefined);
    if (offsets.some((offset) => this.pool.sameClass(slotBytes, offset))) {
      this.#evict(victim);
      return;
    }
    const others = new Set(this.pool.neighbours(offsets[0]!).map((offset) => this.#bySlot.get(offset)!)); // evictable: it has a slot
    const inUse = [...others].some((chunk) => this.#isInUse(chunk));
    for (const chunk of inUse ? [victim] : others) this.#evict(chunk);
  }

  #evict(chunk: StoredChunk): void {
    if (chunk.visible) {
      this.#counters.evictedChunks += 1;
      if (chunk.records.size === 0) this.#counters.lostChunks += 1;
    }
    this.takeSlots(chunk);
    this.removeIfEmpty(chunk);
  }

  #records(tier: Tier): Map<RecordId, StoredChunk> {
    let records = this.#byRecord.get(tier);
    if (records === undefined) this.#byRecord.set(tier, (records = new Map()));
    return records;
  }
}

/** Slices of a text as chunks, the tail last. */
export function chunksOf(tokens: Tokens, chunkTokens: number): Tokens[] {
  const chunks: Tokens[] = [];
  for (let first = 0; first < tokens.length; first += chunkTokens)
    chunks.push(tokens.subarray(first, first + chunkTokens));
  return chunks;
}
