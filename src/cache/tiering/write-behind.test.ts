import { expect, test } from "vitest";
import {
  counting,
  openTestCache,
  save,
  slotBytes,
  temporaryFolder,
  testPool,
  testSpace,
} from "../../../test/support/cache.ts";
import { gated } from "../../../test/support/late-tier.ts";
import { SharedStore, SharedTier } from "../../../test/support/shared-tier.ts";
import type { Tier } from "../../tier.ts";
import { DiskTier } from "../../tiers/disk/disk-tier.ts";
import type { CacheOptions } from "../cache.ts";

const options = { space: testSpace(), rank: 0, slotBytes: [slotBytes] };
const mebibyte = 2 ** 20;

function openDisk(directory: string): Promise<DiskTier> {
  return DiskTier.open({ drives: [{ directory, capacityBytes: 256 * mebibyte }], scrubBytesPerSecond: 0 });
}

async function opened(tiers: readonly Tier[], more: Partial<CacheOptions> = {}) {
  const pool = testPool();
  const cache = await openTestCache({ pool, tiers, writeBehindBytes: 16 * slotBytes, ...more });
  return { cache, pool, session: cache.openSession(options), [Symbol.asyncDispose]: () => cache.close() };
}

/** How long it takes until the disk has all chunks of a text of 400. `after` is called before the cache is closed. */
async function msToDisk(tiers: (disk: DiskTier) => readonly Tier[], after = () => {}): Promise<number> {
  using folder = temporaryFolder();
  const disk = await openDisk(folder.path);
  await using under = await opened(tiers(disk));
  const started = performance.now();
  await save(under.session, under.pool, counting(1600));
  while (disk.stats().records < 400) await new Promise((resolve) => setImmediate(resolve));
  const ms = performance.now() - started;
  after();
  return ms;
}

test("beside a tier that takes two seconds a write the disk is written at its full rate", async () => {
  const slow = new SharedTier(new SharedStore());
  await msToDisk((disk) => [disk]); // code is compiled
  const alone = await msToDisk((disk) => [disk]);
  const withSlow = (tiers: (disk: DiskTier) => readonly Tier[]) => {
    const over = gated(); // closing waits for what is being written
    slow.beforeWrite = () => Promise.race([over.promise, new Promise<void>((resolve) => setTimeout(resolve, 2000))]);
    return msToDisk(tiers, over.open);
  };
  const beside = await withSlow((disk) => [disk, slow]);
  const first = await withSlow((disk) => [slow, disk]);
  // In turns it would be 50 s: 16 chunks at a time, each for two seconds.
  expect(Math.max(beside, first)).toBeLessThan(Math.max(1500, 4 * alone));
}, 60_000);

test("a tier that never ends a write holds no more than its own bound, and the pool takes what is saved", async () => {
  using folder = temporaryFolder();
  const large = mebibyte; // 64 slots in all
  const gate = gated();
  const stuck = new SharedTier(new SharedStore());
  stuck.beforeWrite = () => gate.promise;
  const disk = await openDisk(folder.path);
  await using under = await opened([disk, stuck], { writeBehindBytes: 16 * large });
  const session = under.cache.openSession({ ...options, slotBytes: [large] });
  for (let i = 1; i <= 20; i += 1) {
    expect(await save(session, under.pool, counting(40, 1000 * i))).toBe(10);
    await expect.poll(() => disk.stats().records).toBe(10 * i);
  }
  const { rejectedChunks, lostChunks, writeBehind } = under.cache.stats();
  expect({ rejectedChunks, lostChunks }).toEqual({ rejectedChunks: 0, lostChunks: 0 });
  expect(writeBehind.byTier).toMatchObject({
    disk: { chunks: 0, bytes: 0, waitingChunks: 0 },
    shared: { chunks: 8, bytes: 8 * large },
  });
  expect(writeBehind).toMatchObject({ chunks: 8, bytes: 8 * large });
  under.cache.check();
  gate.open();
  await under.cache.flush();
  expect(under.cache.stats().writeBehind).toMatchObject({ chunks: 0, bytes: 0, waitingChunks: 0 });
  // What had left memory by then was not written; the rest was.
  expect(stuck.counts.writes).toBeGreaterThanOrEqual(60);
  under.cache.check();
}, 30_000);

test("a flush waits for every tier", async () => {
  using folder = temporaryFolder();
  const gate = gated();
  const slow = new SharedTier(new SharedStore());
  slow.beforeWrite = () => gate.promise;
  await using under = await opened([await openDisk(folder.path), slow]);
  await save(under.session, under.pool, counting(400));
  let isFlushed = false;
  const flushed = under.cache.flush().then(() => (isFlushed = true));
  await expect.poll(() => under.cache.stats().writeBehind.byTier.disk).toMatchObject({ chunks: 0, waitingChunks: 0 });
  expect(isFlushed).toBe(false);
  gate.open();
  await flushed;
  expect(slow.counts.writes).toBe(100);
});

test("a tier that is away delays neither the others nor a flush, and gets what it lacks when it is back", async () => {
  using folder = temporaryFolder();
  const away = new SharedTier(new SharedStore());
  away.beforeWrite = () => Promise.reject(new Error("no route to host"));
  const disk = await openDisk(folder.path);
  await using under = await opened([away, disk], { retryMs: 200 });
  await save(under.session, under.pool, counting(400));
  await under.cache.flush();
  expect(disk.stats().records).toBe(100);
  expect(under.cache.stats().writeBehind.byTier).toMatchObject({ shared: { chunks: 0, waitingChunks: 100 } });
  away.beforeWrite = async () => {};
  await expect.poll(() => away.counts.writes, { timeout: 5000 }).toBe(100);
  expect(under.cache.stats().writeBehind).toMatchObject({ chunks: 0, waitingChunks: 0 });
  under.cache.check();
});

test("what waits for a tier that stays away is forgotten as it leaves memory", async () => {
  const away = new SharedTier(new SharedStore());
  away.beforeWrite = () => Promise.reject(new Error("no route to host"));
  await using under = await opened([away], { retryMs: 60_000 });
  const session = under.cache.openSession({ ...options, slotBytes: [mebibyte] });
  let most = 0;
  for (let i = 1; i <= 100; i += 1) {
    await save(session, under.pool, counting(160, 1000 * i));
    most = Math.max(most, under.cache.stats().writeBehind.waitingChunks);
  }
  expect(most).toBeGreaterThan(64);
  expect(most).toBeLessThanOrEqual(1024);
});
