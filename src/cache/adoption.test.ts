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
} from "../../test/support/cache.ts";
import { backwards, gated } from "../../test/support/late-tier.ts";
import type { Tier } from "../tier.ts";
import { DiskTier } from "../tiers/disk/disk-tier.ts";
import { MemoryPool } from "../tiers/memory.ts";
import { Cache, type CacheOptions } from "./cache.ts";
import { bareRoot } from "./chunk.ts";
import type { SpaceDescription } from "./space.ts";

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
    pool,
    cache,
    session: (of: SpaceDescription = space) => cache.openSession({ space: of, rank: 0, slotBytes }),
  };
}

/** Leaves what a kill at this moment would leave. */
function kill({ pool }: { pool: MemoryPool }): void {
  const path = pool.path.replace(/\w{6}\.pool$/, `${randomBytes(3).toString("hex")}.pool`);
  expect(spawnSync("cp", ["--sparse=always", pool.path, `${path}.copy`]).status).toBe(0);
  renameSync(`${path}.copy`, path); // half a pool is nobody's, and whoever sees it removes it
}

/** When the grace of 0 ms is over: its timer was set before ours. */
async function free({ pool }: { pool: MemoryPool }): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, 5));
  await expect.poll(() => pool.stats().unclaimedSlots, { interval: 2 }).toBe(0);
}

test("every committed chunk of every space, salt and rank is there; reserved and half-committed ones are not", async () => {
  const directory = folder();
  const two = testSpace({ tensorParallel: 2, weights: "11" });
  const first = await start(directory);
  const session = first.session();
  await save(session, first.pool, counting(11));
  await save(session, first.pool, counting(8), { root: { salt: "a", adapter: "" } });
  const ranks = [0, 1].map((rank) => first.cache.openSession({ space: two, rank, slotBytes }));
  for (const rank of [0, 1]) await save(ranks[rank]!, first.pool, counting(8), { rank });
  await save(ranks[0]!, first.pool, counting(12), { rank: 0 }); // its third chunk lacks the other rank's payload
  await session.reserve(bareRoot, text(7, 7, 7, 7), wait);
  kill(first);

  const next = await start(directory);
  next.cache.check();
  expect(await loadAndVerify(next.session(), next.pool, counting(11))).toBe(11);
  expect(await loadAndVerify(next.session(), next.pool, counting(8), { root: { salt: "a", adapter: "" } })).toBe(8);
  for (const rank of [0, 1]) {
    const again = next.cache.openSession({ space: two, rank, slotBytes });
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
  const session = first.cache.openSession({ space, rank: 0, slotBytes: large });
  await save(session, first.pool, counting(16));
  await session.reserve(bareRoot, text(9, 9, 9, 9), wait);
  kill(first);

  const next = await start(directory, { graceMs: 300 });
  const again = next.cache.openSession({ space, rank: 0, slotBytes: large });
  const more = await again.reserve(bareRoot, counting(32, 100), wait); // eight slots are wanted, three were never in use
  expect(more).toMatchObject({ full: true });
  expect(more.chunks.map(({ slot }) => slot.offset / large)).toEqual([5, 6, 7]);
  again.abandon(more.chunks.map(({ lease }) => lease));
  expect((await again.lookup(bareRoot, counting(16), wait)).hitTokens).toBe(16);
  next.cache.check();
  await free(next);
  const rest = await again.reserve(bareRoot, counting(32, 100), wait);
  expect(rest.chunks).toHaveLength(8);
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
  expect((await next.session().lookup(bareRoot, counting(12), wait)).tokensByTier).toEqual({ memory: 12 });
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
  expect((await session.lookup(bareRoot, counting(20), wait)).tokensByTier).toEqual({ memory: 20 });
  await save(session, next.pool, counting(28));
  gate.open();
  await next.cache.flush();
  expect(slow.stats()).toMatchObject({ records: 7, corruptRecords: 0 });
  expect(writes).toBe(4);
  next.cache.check();
}, 20_000);

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
    const session = now.cache.openSession({ space, rank: 0, slotBytes: large });
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
  const session = cache.openSession({ space, rank: 0, slotBytes: large });
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
  const session = cache.openSession({ space, rank: 0, slotBytes: large });
  await save(session, pool, counting(16));
  const leased = [];
  for await (const batch of session.load(bareRoot, counting(16), 0, wait))
    leased.push(...batch.map(({ lease }) => lease));
  let done = false;
  const resized = cache.resize(64 * mebibyte).then(() => (done = true));
  await new Promise((resolve) => setTimeout(resolve, 60));
  expect(done).toBe(false);
  expect(pool.stats()).toMatchObject({ capacityBytes: 128 * mebibyte, leavingBytes: 64 * mebibyte });
  cache.check();
  session.release(leased);
  await resized;
  expect(pool.stats()).toMatchObject({ capacityBytes: 64 * mebibyte, usedSlots: 2 });
  cache.check();
});
