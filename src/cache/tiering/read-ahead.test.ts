import { expect, test } from "vitest";
import {
  counting,
  openTestCache,
  save,
  temporaryFolder,
  testPool,
  testSpace,
  wait,
} from "../../../test/support/cache.ts";
import { backwards, gated } from "../../../test/support/late-tier.ts";
import type { Tier } from "../../tier.ts";
import { DiskTier } from "../../tiers/disk/disk-tier.ts";
import { bareRoot } from "../../identity/keys.ts";

const mebibyte = 2 ** 20;

// A pool of 64 MiB: 4 MiB may be read ahead.
test.each([
  { chunkBytes: 512, atOnce: 10, what: "all of a text of small chunks" },
  { chunkBytes: 1.5 * mebibyte, atOnce: 4, what: "as many as 4 MiB hold of chunks of 1.5 MiB" },
  { chunkBytes: 6 * mebibyte, atOnce: 2, what: "the next one, of chunks that are larger" },
])("read ahead is $what", async ({ chunkBytes, atOnce }) => {
  using folder = temporaryFolder();
  const options = { space: testSpace(), rank: 0, slotBytes: [Math.max(8192, chunkBytes)] };
  const open = () => DiskTier.open({ drives: [{ directory: folder.path, capacityBytes: 256 * mebibyte }] });
  {
    const pool = testPool(128 * mebibyte);
    await using cache = await openTestCache({ pool, tiers: [await open()] });
    await save(cache.openSession(options), pool, counting(40), { bytes: chunkBytes });
  }
  const tier = await open();
  const gate = gated();
  let reads = 0;
  const held: Tier = {
    ...backwards(tier, Promise.resolve()),
    async read(id, key, into, signal) {
      reads += 1;
      await gate.promise;
      return tier.read(id, key, into, signal);
    },
  };
  await using cache = await openTestCache({ tiers: [held] });
  const session = cache.openSession(options);
  await cache.recovered(10_000);
  let loaded = 0;
  const load = (async () => {
    for await (const batch of session.load(bareRoot, counting(40), 0, wait)) {
      loaded += batch.length;
      session.release(batch.map(({ lease }) => lease));
    }
  })();
  await expect.poll(() => reads).toBeGreaterThanOrEqual(atOnce);
  await new Promise((resolve) => setImmediate(resolve));
  expect(reads).toBe(atOnce);
  gate.open();
  await load;
  expect(loaded).toBe(10);
});

test("a chunk whose record is moved while it is read is read where it is now", async () => {
  using folder = temporaryFolder();
  const options = { space: testSpace(), rank: 0, slotBytes: [8192] };
  const open = () =>
    DiskTier.open({ drives: [{ directory: folder.path, capacityBytes: 8 * mebibyte }], regionBytes: 64 * 1024 });
  {
    const pool = testPool(128 * mebibyte);
    await using cache = await openTestCache({ pool, tiers: [await open()] });
    const session = cache.openSession(options);
    // Each tail that is replaced leaves its record as garbage.
    for (let length = 1; length <= 40; length += 1) await save(session, pool, counting(length), { bytes: 5000 });
  }
  const tier = await open();
  let moved = 0;
  const moving: Tier = {
    ...backwards(tier, Promise.resolve()),
    async read(id, key, into, signal) {
      const { movedBytes } = await tier.compact(signal);
      moved += Object.values(movedBytes)[0]!;
      return tier.read(id, key, into, signal);
    },
  };
  await using cache = await openTestCache({ tiers: [moving] });
  const session = cache.openSession(options);
  await cache.recovered(10_000);
  let loaded = 0;
  for await (const batch of session.load(bareRoot, counting(40), 0, wait)) loaded += batch.length;
  expect(moved).toBeGreaterThan(0);
  expect(loaded).toBe(10);
});
