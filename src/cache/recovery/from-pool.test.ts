/** What a cache finds in the memory that a killed one left. A copy of the pool's file is as good as a kill. */
import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { renameSync } from "node:fs";
import { afterEach, expect, onTestFinished, test } from "vitest";
import {
  counting,
  loadAndVerify,
  save,
  slotBytes,
  temporaryFolder,
  testSpace,
  text,
  wait,
  prefix,
} from "../../../test/support/cache.ts";
import { hybridSlotBytes, hybridSpace, loadHybrid, saveHybrid } from "../../../test/support/hybrid-guest.ts";
import { backwards, gated } from "../../../test/support/late-tier.ts";
import type { Tier } from "../../tier.ts";
import { DiskTier } from "../../tiers/disk/disk-tier.ts";
import { MemoryPool } from "../../tiers/memory.ts";
import { rememberPool } from "../../tiers/pool/pool-file.ts";
import { Cache, type CacheOptions } from "../cache.ts";
import { bareRoot } from "../../identity/keys.ts";
import type { CacheSession, LeaseId } from "../../session.ts";
import type { SpaceDescription } from "../../identity/space.ts";

const space = testSpace();
const mebibyte = 1024 * 1024;

const open = new Set<Cache>();
afterEach(async () => {
  for (const cache of open) await cache.close();
  open.clear();
});

function folder(): string {
  const made = temporaryFolder();
  onTestFinished(() => made[Symbol.dispose]());
  return made.path;
}

async function start(dataDirectory: string, options: Partial<CacheOptions> = {}, capacityBytes = 64 * mebibyte) {
  const pool = MemoryPool.open({ dataDirectory, capacityBytes });
  const cache = await Cache.open({ pool, graceMs: 0, ...options });
  open.add(cache);
  await cache.adopted;
  return {
    directory: dataDirectory,
    pool,
    cache,
    session: (of: SpaceDescription = space) => cache.openSession({ space: of, rank: 0, slotBytes: [slotBytes] }),
  };
}

/** Leaves what a kill at this moment would leave. */
function kill({ pool, directory }: { pool: MemoryPool; directory: string }): void {
  const path = pool.path.replace(/\w{6}\.pool$/, `${randomBytes(3).toString("hex")}.pool`);
  expect(spawnSync("cp", ["--sparse=always", pool.path, `${path}.copy`]).status).toBe(0);
  rememberPool(directory, path);
  renameSync(`${path}.copy`, path); // half a pool is nobody's, and whoever sees it removes it
}

/** When the grace of 0 ms is over: its timer was set before ours. */
async function free({ pool }: { pool: MemoryPool }): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, 5));
  await expect.poll(() => pool.stats().unclaimedSlots, { interval: 2 }).toBe(0);
}

test("rows and snapshots are there, and a snapshot whose rows are not is none", async () => {
  const directory = folder();
  const hybrid = { space: hybridSpace(), rank: 0, slotBytes: hybridSlotBytes };
  const first = await start(directory, {}, 128 * mebibyte);
  const session = first.cache.openSession(hybrid);
  await saveHybrid(session, first.pool, counting(8));
  await saveHybrid(session, first.pool, counting(18));
  const { parts } = await session.reserve(bareRoot, counting(4, 500), wait);
  await session.commit([{ lease: parts[1]!.lease, bytes: 100 }], wait);
  kill(first);
  const second = await start(directory, {}, 128 * mebibyte);
  const again = second.cache.openSession(hybrid);
  await free(second);
  second.cache.check();
  expect(await loadHybrid(again, second.pool, counting(18))).toEqual({ tokens: 18, partsByGroup: [5, 1] });
  expect(await loadHybrid(again, second.pool, counting(9))).toEqual({ tokens: 8, partsByGroup: [2, 1] });
  expect(second.cache.stats().memory.usedSlots).toBe(7);
});

test("every committed chunk of every space, salt and rank is there; reserved and half-committed ones are not", async () => {
  const directory = folder();
  const two = testSpace({ tensorParallel: 2, weights: "11" });
  const first = await start(directory);
  const session = first.session();
  await save(session, first.pool, counting(11));
  await save(session, first.pool, counting(8), { root: { salt: "a", adapter: "" } });
  const ranks = [0, 1].map((rank) => first.cache.openSession({ space: two, rank, slotBytes: [slotBytes] }));
  for (const rank of [0, 1]) await save(ranks[rank]!, first.pool, counting(8), { rank });
  await save(ranks[0]!, first.pool, counting(12), { rank: 0 }); // its third chunk lacks the other rank's payload
  await session.reserve(bareRoot, text(7, 7, 7, 7), wait);
  kill(first);

  const next = await start(directory);
  next.cache.check();
  expect(await loadAndVerify(next.session(), next.pool, counting(11))).toBe(11);
  expect(await loadAndVerify(next.session(), next.pool, counting(8), { root: { salt: "a", adapter: "" } })).toBe(8);
  for (const rank of [0, 1]) {
    const again = next.cache.openSession({ space: two, rank, slotBytes: [slotBytes] });
    expect(await loadAndVerify(again, next.pool, counting(12), { rank })).toBe(8);
  }
  expect((await next.session().lookup(bareRoot, text(7, 7, 7, 7), wait)).hitTokens).toBe(0);
  await free(next);
  expect(next.pool.stats().usedSlots).toBe(3 + 2 + 4);
  next.cache.check();
});

test("until the grace is over nothing that was in use is evicted or given to anybody", async () => {
  const directory = folder();
  const large = 8 * mebibyte;
  const first = await start(directory);
  const session = first.cache.openSession({ space, rank: 0, slotBytes: [large] });
  await save(session, first.pool, counting(16));
  await session.reserve(bareRoot, text(9, 9, 9, 9), wait);
  kill(first);

  const next = await start(directory, { graceMs: 300 });
  const again = next.cache.openSession({ space, rank: 0, slotBytes: [large] });
  const more = await again.reserve(bareRoot, counting(32, 100), wait); // eight slots are wanted, three were never in use
  expect(more).toMatchObject({ full: true });
  expect(more.parts.map(({ slot }) => slot.offset / large)).toEqual([5, 6, 7]);
  again.abandon(more.parts.map(({ lease }) => lease));
  expect((await again.lookup(bareRoot, counting(16), wait)).hitTokens).toBe(16);
  next.cache.check();
  await free(next);
  const rest = await again.reserve(bareRoot, counting(32, 100), wait);
  expect(rest.parts).toHaveLength(4); // half of the pool, as one guest may reserve
  next.cache.check();
});

test("a chunk in memory and on disk is one chunk with both; one that was only in memory is written to disk", async () => {
  const directory = folder();
  const disks = [folder(), folder()];
  const tier = () => DiskTier.open({ drives: [{ directory: disks[0]!, capacityBytes: 32 * mebibyte }] });
  const first = await start(directory, { tiers: [await tier()] });
  await save(first.session(), first.pool, counting(12));
  await first.cache.flush();
  kill(first);
  await first.cache.close();
  open.delete(first.cache);

  const next = await start(directory, { tiers: [await tier()] });
  expect((await next.session().lookup(bareRoot, counting(12), wait)).segments).toEqual(prefix([12, "memory"]));
  expect(next.cache.stats()).toMatchObject({ chunks: 3, tiers: { disk: { records: 3 } }, corruptRecords: 0 });
  await next.cache.flush();
  expect(next.cache.stats().tiers.disk).toMatchObject({ records: 3 });
  next.cache.check();
  kill(next);

  // The same memory, and a disk that knows nothing of it.
  const empty = await DiskTier.open({ drives: [{ directory: disks[1]!, capacityBytes: 32 * mebibyte }] });
  const last = await start(directory, { tiers: [empty] });
  await last.cache.flush();
  expect(last.cache.stats()).toMatchObject({ chunks: 3, tiers: { disk: { records: 3 } } });
  expect(await loadAndVerify(last.session(), last.pool, counting(12))).toBe(12);
  last.cache.check();
});

test("what a disk says late belongs to the chunks that were adopted: none is written twice, none is left out", async () => {
  const directory = folder();
  const disk = folder();
  const tier = () => DiskTier.open({ drives: [{ directory: disk, capacityBytes: 32 * mebibyte }] });
  const before = await start(folder(), { tiers: [await tier()] });
  await save(before.session(), before.pool, counting(12));
  await before.cache.close();
  const first = await start(directory);
  await save(first.session(), first.pool, counting(20));
  kill(first);

  const gate = gated();
  const slow = await tier();
  let writes = 0;
  const late: Tier = {
    ...backwards(slow, gate.promise),
    write: (record, payloads, signal) => ((writes += 1), slow.write(record, payloads, signal)),
  };
  const next = await start(directory, { tiers: [late], graceMs: 5000 });
  const session = next.session();
  expect((await session.lookup(bareRoot, counting(20), wait)).segments).toEqual(prefix([20, "memory"]));
  await save(session, next.pool, counting(28));
  gate.open();
  await next.cache.flush();
  expect(slow.stats()).toMatchObject({ records: 7, corruptRecords: 0 });
  expect(writes).toBe(4);
  next.cache.check();
}, 20_000);

test("a snapshot that was not written to disk yet is there, also when the disk is heard of first", async () => {
  const directory = folder();
  const disk = folder();
  const tier = () => DiskTier.open({ drives: [{ directory: disk, capacityBytes: 32 * mebibyte }] });
  const hybrid = { space: hybridSpace(), rank: 0, slotBytes: hybridSlotBytes };
  const before = await start(folder(), { tiers: [await tier()] }, 128 * mebibyte);
  await saveHybrid(before.cache.openSession(hybrid), before.pool, counting(8));
  await before.cache.close();
  const first = await start(directory, {}, 128 * mebibyte);
  for (const length of [8, 4]) await saveHybrid(first.cache.openSession(hybrid), first.pool, counting(length));
  kill(first);

  const gate = gated();
  const pool = MemoryPool.open({ dataDirectory: directory, capacityBytes: 128 * mebibyte });
  pool.isIntact = () => gate.promise.then(() => true);
  const cache = await Cache.open({ pool, tiers: [await tier()], graceMs: 0 });
  open.add(cache);
  const session = cache.openSession(hybrid);
  await cache.recovered(10_000);
  expect(cache.stats()).toMatchObject({ chunks: 2, tiers: { disk: { records: 2 } } });
  gate.open();
  await cache.adopted;
  for (const tokens of [8, 4]) expect(await loadHybrid(session, pool, counting(tokens))).toMatchObject({ tokens });
  await cache.flush();
  expect(cache.stats()).toMatchObject({ chunks: 2, tiers: { disk: { records: 2 } } });
  cache.check();
});

test("a payload that changed since its checksum was known is not adopted, nor is what follows it", async () => {
  const directory = folder();
  const disk = folder();
  const tier = await DiskTier.open({ drives: [{ directory: disk, capacityBytes: 32 * mebibyte }] });
  const first = await start(directory, { tiers: [tier] });
  const session = first.session();
  await save(session, first.pool, counting(12));
  await first.cache.flush();
  let second = -1;
  for await (const batch of session.load(bareRoot, counting(12), 4, wait))
    if (second < 0) second = batch[0]!.slot.offset; // batches are not empty
  first.pool.view(second, 512)[100]! ^= 4;
  kill(first);

  const next = await start(directory);
  expect(await loadAndVerify(next.session(), next.pool, counting(12))).toBe(4);
  expect(next.cache.stats().corruptRecords).toBe(1);
  await free(next);
  expect(next.pool.stats().usedSlots).toBe(1);
  next.cache.check();
});

test("an adopted cache evicts, saves and is adopted again like any other", async () => {
  const directory = folder();
  const large = 8 * mebibyte;
  let now = await start(directory);
  for (let round = 0; round < 4; round += 1) {
    const session = now.cache.openSession({ space, rank: 0, slotBytes: [large] });
    await free(now);
    await save(session, now.pool, counting(16, 100 * round));
    expect(await loadAndVerify(session, now.pool, counting(16, 100 * round))).toBe(16);
    now.cache.check();
    kill(now);
    await now.cache.close();
    open.delete(now.cache);
    now = await start(directory);
    now.cache.check();
    expect(now.cache.stats().memory.usedSlots).toBe(Math.min(8, 4 * (round + 1)));
  }
});

test("the capacity shrinks where least is likely to be read, and grows again", async () => {
  const directory = folder();
  const large = 32 * mebibyte; // two to an extent
  const pool = MemoryPool.open({ dataDirectory: directory, capacityBytes: 256 * mebibyte });
  const cache = await Cache.open({ pool });
  open.add(cache);
  const session = cache.openSession({ space, rank: 0, slotBytes: [large] });
  for (const from of [0, 100, 200, 300]) await save(session, pool, counting(8, from));
  const leased = [];
  for await (const batch of session.load(bareRoot, counting(8, 100), 0, wait))
    leased.push(...batch.map(({ lease }) => lease));
  await session.lookup(bareRoot, counting(8, 0), wait);

  const half = await cache.resize(128 * mebibyte);
  expect(half).toMatchObject({ capacityBytes: 128 * mebibyte, leavingBytes: 0, usedSlots: 4 });
  cache.check();
  const found = await Promise.all([0, 100, 200, 300].map((from) => session.lookup(bareRoot, counting(8, from), wait)));
  expect(found.map(({ hitTokens }) => hitTokens)).toEqual([0, 8, 0, 8]);

  let done = false;
  session.release(leased.splice(1));
  const smallest = cache.resize(64 * mebibyte).then((stats) => ((done = true), stats));
  await new Promise((resolve) => setTimeout(resolve, 60));
  expect(done).toBe(true); // the one that nobody reads went, and was enough
  expect(await smallest).toMatchObject({ capacityBytes: 64 * mebibyte, usedSlots: 2 });
  session.release(leased);

  await cache.resize(192 * mebibyte);
  await save(session, pool, counting(16, 400));
  expect(cache.stats().memory).toMatchObject({ capacityBytes: 192 * mebibyte, usedSlots: 6 });
  cache.check();
});

test("what is leased goes when its lease falls", async () => {
  const directory = folder();
  const large = 32 * mebibyte;
  const pool = MemoryPool.open({ dataDirectory: directory, capacityBytes: 128 * mebibyte });
  const cache = await Cache.open({ pool });
  open.add(cache);
  const session = cache.openSession({ space, rank: 0, slotBytes: [large] });
  const other = cache.openSession({ space, rank: 0, slotBytes: [large] });
  await save(session, pool, counting(16));
  const held: [CacheSession, LeaseId[]][] = [];
  for (const [reader, from] of [
    [session, 0],
    [other, 8],
  ] as const)
    for await (const batch of reader.load(bareRoot, counting(16), from, wait))
      held.push([reader, batch.map(({ lease }) => lease)]);
  let done = false;
  const resized = cache.resize(64 * mebibyte).then(() => (done = true));
  await new Promise((resolve) => setTimeout(resolve, 60));
  expect(done).toBe(false);
  expect(pool.stats()).toMatchObject({ capacityBytes: 128 * mebibyte, leavingBytes: 64 * mebibyte });
  cache.check();
  for (const [reader, leases] of held) reader.release(leases);
  await resized;
  expect(pool.stats()).toMatchObject({ capacityBytes: 64 * mebibyte, usedSlots: 2 });
  cache.check();
});

test("what a dead process left is its tenant's from the first request on, whichever salt that names", async () => {
  const directory = folder();
  const first = await start(directory);
  const roots = ["a", "b"].map((salt) => ({ salt, adapter: "", tenant: "one" }));
  for (const root of roots) await save(first.session(), first.pool, counting(12), { root });
  kill(first);
  const next = await start(directory);
  const session = next.session();
  next.cache.check();
  for (const root of roots) {
    expect((await session.lookup(root, counting(12), wait)).hitTokens).toBe(12);
    next.cache.check();
    await save(session, next.pool, counting(20), { root });
    next.cache.check();
  }
});
