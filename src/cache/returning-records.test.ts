import { expect, test } from "vitest";
import {
  counting,
  loadAndVerify,
  openTestCache,
  save,
  slotBytes,
  temporaryFolder,
  testPool,
  testSpace,
  wait,
} from "../../test/support/cache.ts";
import type { RecordBatch, StoredRecord, Tier } from "../tier.ts";
import { DiskTier } from "../tiers/disk/disk-tier.ts";
import { bareRoot } from "./chunk.ts";

const options = { space: testSpace(), rank: 0, slotBytes };

function openTier(directory: string): Promise<DiskTier> {
  return DiskTier.open({ drives: [{ directory, capacityBytes: 16 * 2 ** 20 }] });
}

/** The tier, with what it kept given when `gate` opens, the last record first and each in a batch of its own. */
function backwards(tier: DiskTier, gate: Promise<void>): Tier {
  return {
    name: tier.name,
    async *recover(owner) {
      const records: StoredRecord[] = [];
      for await (const batch of tier.recover(owner)) for await (const record of batch.records()) records.push(record);
      await gate;
      for (const record of records.toReversed()) yield single(record);
    },
    write: (record, payloads, signal) => tier.write(record, payloads, signal),
    read: (id, key, into, signal) => tier.read(id, key, into, signal),
    drop: (id) => tier.drop(id),
    flush: () => tier.flush(),
    stats: () => tier.stats(),
    [Symbol.asyncDispose]: () => tier[Symbol.asyncDispose](),
  };
}

function single(record: StoredRecord): RecordBatch {
  return {
    space: record.space,
    count: 1,
    async *records() {
      yield record;
    },
  };
}

async function filled(directory: string): Promise<void> {
  const pool = testPool();
  await using cache = await openTestCache({ pool, tiers: [await openTier(directory)] });
  await save(cache.openSession(options), pool, counting(40));
  await cache.flush();
}

test("what a tier kept is a miss until it is back, whatever the order in which it comes", async () => {
  using folder = temporaryFolder();
  await filled(folder.path);
  const { promise, open } = gated();
  const pool = testPool();
  await using cache = await openTestCache({ pool, tiers: [backwards(await openTier(folder.path), promise)] });
  const session = cache.openSession(options);
  expect((await session.lookup(bareRoot, counting(40), wait)).hitTokens).toBe(0);
  open();
  await cache.recovered(10_000);
  expect(await session.lookup(bareRoot, counting(40), wait)).toEqual({ hitTokens: 40, tokensByTier: { disk: 40 } });
  expect(await loadAndVerify(session, pool, counting(40))).toBe(40);
  cache.check();
}, 20_000);

test("what a guest saves before it is back is stored once", async () => {
  using folder = temporaryFolder();
  await filled(folder.path);
  const { promise, open } = gated();
  const pool = testPool();
  await using cache = await openTestCache({ pool, tiers: [backwards(await openTier(folder.path), promise)] });
  const session = cache.openSession(options);
  expect(await save(session, pool, counting(20))).toBe(5);
  await cache.flush();
  open();
  await cache.recovered(10_000);
  expect((await session.lookup(bareRoot, counting(40), wait)).hitTokens).toBe(40);
  expect(cache.stats().tiers.disk?.records).toBe(10);
  cache.check();
}, 20_000);

function gated(): { readonly promise: Promise<void>; readonly open: () => void } {
  let open = () => {};
  const promise = new Promise<void>((resolve) => (open = resolve));
  return { promise, open: () => open() };
}
