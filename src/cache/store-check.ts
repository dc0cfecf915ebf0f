/** What must hold between the index, the pool's slots, the tiers' records, leases and the eviction policy. For tests. */
import { assert } from "../errors.ts";
import type { ChunkId } from "./chunk-id.ts";
import type { ChunkStore } from "./chunk-store.ts";
import { field, flag } from "./chunk-table.ts";
import type { EvictionPolicy } from "./eviction.ts";
import type { LeaseTable } from "./lease.ts";
import type { LinkedIndex } from "./linked-index.ts";
import type { RootIndex } from "./stored-chunk.ts";
import type { Tenants } from "./tenants.ts";

/** The store, and what it keeps to itself. */
export interface StoreParts {
  readonly store: ChunkStore;
  readonly policy: EvictionPolicy;
  readonly leases: LeaseTable<ChunkId>;
  readonly tenants: Tenants;
  /** By rank. */
  readonly bySlot: readonly LinkedIndex[];
}

/** Asserts that all parts tell the same story. */
export function checkStore(trees: Iterable<RootIndex>, parts: StoreParts): void {
  const { store, policy, leases, tenants } = parts;
  const { chunks, pool } = store;
  pool.check();
  leases.check();
  policy.check();
  let slots = 0;
  let records = 0;
  let rows = 0;
  const held = new Map<number, number>();
  for (const { tree, tenant } of trees) {
    tree.check();
    rows += tree.size + 1;
    for (const chunk of tree.nodes()) {
      checkChunk(chunk, parts);
      slots += chunks.slotsOf(chunk);
      const bytes = chunks.bytesInPool(chunk);
      if (bytes > 0) held.set(tenant, (held.get(tenant) ?? 0) + bytes);
      records += chunks.tiers.filter((tier) => store.records.of(chunk, tier) !== undefined).length;
    }
  }
  tenants.check(held);
  const { usedSlots, unclaimedSlots } = pool.stats();
  assert(slots === sizeOf(parts.bySlot), "slots in the index and slots known differ");
  assert(slots + unclaimedSlots === usedSlots, "slots in the index and slots of the pool differ");
  assert(records === store.records.size, "records in the index and records known differ");
  assert(rows === chunks.table.size, "rows in use and chunks in the trees differ");
  for (const lease of leases.all()) assert(chunks.table.is(lease.chunk, flag.filled), "a leased chunk is not indexed");
}

function checkChunk(chunk: ChunkId, { store, policy, leases, bySlot }: StoreParts): void {
  const { chunks } = store;
  const { table, tiers } = chunks;
  for (let rank = 0; rank < chunks.ranksOf(chunk); rank += 1) {
    const offset = chunks.slot(chunk, rank);
    if (offset !== undefined) assert(bySlot[rank]?.find(offset) === chunk, "a slot belongs to the chunk that has it");
  }
  const children = [...chunks.rootOf(chunk).tree.children(chunk)].filter((child) => chunks.hasSlots(child)).length;
  assert(children === table.get(chunk, field.childrenInPool), "children in the pool are miscounted");
  const hasSlots = chunks.hasSlots(chunk);
  const isIdle = table.get(chunk, field.pins) === 0 && leases.leasesOf(chunk) === 0;
  const records = tiers.filter((tier) => store.records.of(chunk, tier) !== undefined);
  assert(policy.isOffered(chunk) === (isIdle && hasSlots && children === 0), "the policy has what may go");
  if (chunks.isVisible(chunk)) assert(chunks.isWritten(chunk), "a visible chunk is whole");
  assert(!chunks.isVisible(chunk) || records.length > 0 || chunks.isInMemory(chunk), "a visible chunk can be read");
  const needed = hasSlots || records.length > 0 || !isIdle;
  assert(needed === table.is(chunk, flag.filled), "a chunk is hollow when it has no bytes, and only then");
  for (const tier of records)
    assert(store.records.ownerOf(tier, store.records.of(chunk, tier)!) === chunk, "a record knows its chunk"); // it has one
}

function sizeOf(indexes: readonly LinkedIndex[]): number {
  return indexes.reduce((total, { size }) => total + size, 0);
}
