/** What must hold between the index, the pool's slots, the tiers' records, leases and the eviction policy. For tests. */
import { assert } from "../../errors.ts";
import type { ChunkId } from "../index/chunk-id.ts";
import type { ChunkRecords } from "../index/chunk-records.ts";
import type { SlotPool } from "./slot-pool.ts";
import { field, flag } from "../index/chunk-table.ts";
import type { EvictionPolicy } from "../eviction/policy.ts";
import type { LeaseTable } from "./leases.ts";
import type { SlotOwners } from "./slot-owners.ts";
import type { RootIndex, StoredChunks } from "../index/stored-chunk.ts";
import type { Tenants } from "../eviction/tenants.ts";

/** What the chunk store is made of. */
export interface StoreParts {
  readonly chunks: StoredChunks;
  readonly pool: SlotPool;
  readonly records: ChunkRecords;
  readonly policy: EvictionPolicy;
  readonly leases: LeaseTable<ChunkId>;
  readonly tenants: Tenants;
  readonly owners: SlotOwners;
}

/** Asserts that all parts tell the same story. */
export function checkStore(trees: Iterable<RootIndex>, parts: StoreParts): void {
  const { chunks, pool, records: known, policy, leases, tenants } = parts;
  pool.check();
  leases.check();
  policy.check();
  let slots = 0;
  let records = 0;
  let rows = 0;
  const held = new Map<number, { bytes: number; reserved: number }>();
  for (const { tree, owner } of trees) {
    tree.check();
    rows += tree.size + 1;
    for (const chunk of tree.nodes()) {
      checkChunk(chunk, parts);
      slots += chunks.slotsOf(chunk);
      const bytes = chunks.bytesInPool(chunk);
      if (bytes > 0) held.set(owner.tenant, { bytes: bytes + (held.get(owner.tenant)?.bytes ?? 0), reserved: 0 });
      records += chunks.tiers.filter((tier) => known.of(chunk, tier) !== undefined).length;
    }
  }
  for (const { kind, chunk } of leases.all()) if (kind === "writing") held.get(chunks.tenantOf(chunk))!.reserved += 1; // it has a slot
  tenants.check(held);
  const { usedSlots, unclaimedSlots } = pool.stats();
  assert(slots === parts.owners.size, "slots in the index and slots known differ");
  assert(slots + unclaimedSlots === usedSlots, "slots in the index and slots of the pool differ");
  assert(records === known.size, "records in the index and records known differ");
  assert(rows === chunks.table.size, "rows in use and chunks in the trees differ");
  for (const lease of leases.all()) assert(chunks.table.is(lease.chunk, flag.filled), "a leased chunk is not indexed");
}

function checkChunk(chunk: ChunkId, parts: StoreParts): void {
  const { chunks, records: known, policy, leases, owners } = parts;
  const { table, tiers } = chunks;
  const records = tiers.filter((tier) => known.of(chunk, tier) !== undefined);
  for (let part = 0; part < chunks.partsOf(chunk); part += 1) {
    const offset = chunks.slot(chunk, part);
    if (chunks.isSnapshot(chunk, part) && chunks.bytes(chunk, part) > 0)
      assert(offset !== undefined || records.some((tier) => !known.isLacking(chunk, tier)), "a snapshot can be read");
    if (offset !== undefined) assert(owners.of(offset) === chunk, "a slot belongs to the chunk that has it");
  }
  const children = [...chunks.rootOf(chunk).tree.children(chunk)].filter((child) => chunks.hasSlots(child)).length;
  assert(children === table.get(chunk, field.childrenInPool), "children in the pool are miscounted");
  const hasSlots = chunks.hasSlots(chunk);
  const isIdle = table.get(chunk, field.holds) === 0 && leases.leasesOf(chunk) === 0;
  assert(policy.isOffered(chunk) === (isIdle && hasSlots && children === 0), "the policy has what may go");
  if (chunks.isVisible(chunk)) assert(chunks.isWritten(chunk), "a visible chunk is whole");
  assert(!chunks.isVisible(chunk) || records.length > 0 || chunks.isInMemory(chunk), "a visible chunk can be read");
  const needed = hasSlots || records.length > 0 || !isIdle;
  assert(needed === table.is(chunk, flag.filled), "a chunk is a placeholder when it has no bytes, and only then");
  for (const tier of records) assert(known.ownerOf(tier, known.of(chunk, tier)!) === chunk, "a record knows its chunk"); // it has one
}
