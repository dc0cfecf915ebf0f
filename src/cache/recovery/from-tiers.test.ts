import { cpSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
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
  prefix,
} from "../../../test/support/cache.ts";
import { rounds, timeoutMs } from "../../../test/support/depth.ts";
import { backwards, gated, halted } from "../../../test/support/late-tier.ts";
import { passing } from "../../../test/support/passing-tier.ts";
import type { LogTier, StoredRecord, Tier, TierOwner } from "../../tier.ts";
import { DiskTier } from "../../tiers/disk/disk-tier.ts";
import { bareRoot } from "../../identity/keys.ts";

const options = { space: testSpace(), rank: 0, slotBytes: [slotBytes] };

function openTier(directory: string): Promise<DiskTier> {
  return DiskTier.open({ drives: [{ directory, capacityBytes: 16 * 2 ** 20 }] });
}

const ignoringOwner: TierOwner = { isWanted: () => false, onEvicted: () => {}, onMoved: () => {} };

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
  expect(await session.lookup(bareRoot, counting(40), wait)).toEqual({
    hitTokens: 40,
    segments: prefix([40, "disk"]),
    worthTokens: 40,
  });
  expect(await loadAndVerify(session, pool, counting(40))).toBe(40);
  cache.check();
}, 20_000);

test("a text that is asked for comes back ahead of its turn, and is not lost when that comes", async () => {
  using folder = temporaryFolder();
  const others = Array.from({ length: 50 }, (_, i) => counting(22, 1000 * (i + 1)));
  {
    const pool = testPool();
    await using cache = await openTestCache({ pool, tiers: [await openTier(folder.path)] });
    const session = cache.openSession(options);
    for (const text of [counting(42), ...others]) await save(session, pool, text);
    await cache.flush();
  }
  const { promise, open } = gated();
  const pool = testPool();
  await using cache = await openTestCache({ pool, tiers: [halted(await openTier(folder.path), promise)] });
  const session = cache.openSession(options);
  expect((await session.lookup(bareRoot, counting(42, 7), wait)).hitTokens).toBe(0);
  expect((await session.lookup(bareRoot, counting(42), wait)).hitTokens).toBe(42);
  expect(await loadAndVerify(session, pool, counting(42))).toBe(42);
  // Its beginning is back; what follows is somebody else's, or a tail that was stored longer.
  expect((await session.lookup(bareRoot, counting(80), wait)).hitTokens).toBe(42);
  expect((await session.lookup(bareRoot, others[3]!.subarray(0, 21), wait)).hitTokens).toBe(20);
  // A load brings it too.
  expect(await loadAndVerify(session, pool, others[7]!)).toBe(22);
  const records = cache.stats().tiers.disk?.records;
  open();
  await cache.recovered(10_000);
  expect(cache.stats().tiers.disk?.records).toBe(records);
  for (const text of [counting(42), ...others]) expect(await loadAndVerify(session, pool, text)).toBe(text.length);
  cache.check();
}, 20_000);

test("a text that is waited for is the one that was asked for, whatever its memory holds by then", async () => {
  using folder = temporaryFolder();
  const [asked, next] = [counting(40), counting(40, 1000)];
  {
    const pool = testPool();
    await using cache = await openTestCache({ pool, tiers: [await openTier(folder.path)] });
    for (const text of [asked, next]) await save(cache.openSession(options), pool, text);
    await cache.flush();
  }
  const { promise, open } = gated();
  const pool = testPool();
  await using cache = await openTestCache({ pool, tiers: [halted(await openTier(folder.path), promise)] });
  const session = cache.openSession(options);
  expect(await loadAndVerify(session, pool, next)).toBe(40);
  const memory = asked.slice();
  const stored = (firstToken: number, count: number) => asked.subarray(firstToken, firstToken + count);
  const loaded = loadAndVerify(session, pool, memory, { stored });
  memory.set(next);
  expect(await loaded).toBe(40);
  open();
  await cache.recovered(10_000);
  cache.check();
}, 20_000);

test("what went before it could be brought is a miss", async () => {
  using folder = temporaryFolder();
  await filled(folder.path);
  const { promise, open } = gated();
  const tier = await openTier(folder.path);
  await using cache = await openTestCache({ pool: testPool(), tiers: [halted(tier, promise)] });
  const session = cache.openSession(options);
  const lookup = session.lookup(bareRoot, counting(40), wait);
  await tier.clear();
  expect((await lookup).hitTokens).toBe(0);
  open();
  await cache.recovered(10_000);
  expect(cache.stats()).toMatchObject({ chunks: 0, tiers: { disk: { records: 0 } } });
  cache.check();
}, 20_000);

test("what went between its answer and its place in the index is a miss", async () => {
  using folder = temporaryFolder();
  await filled(folder.path);
  const { promise, open } = gated();
  const tier = await openTier(folder.path);
  const clearing: Tier = {
    ...passing(halted(tier, promise)),
    async find(space, root, keys) {
      const found = await tier.find(space, root, keys);
      expect(found).toHaveLength(10);
      await tier.clear();
      return found;
    },
  };
  await using cache = await openTestCache({ pool: testPool(), tiers: [clearing] });
  expect((await cache.openSession(options).lookup(bareRoot, counting(40), wait)).hitTokens).toBe(0);
  expect(cache.stats().chunks).toBe(0);
  open();
  await cache.recovered(10_000);
  cache.check();
}, 20_000);

test.each(["before", "after"])(
  "what follows a chunk that is found by its key stays, though that chunk has no turn: its own comes %s",
  async (turn) => {
    using folder = temporaryFolder();
    await filled(folder.path);
    const { promise, open } = gated();
    const tier = await openTier(folder.path);
    const records: StoredRecord[] = [];
    for await (const batch of tier.recover(ignoringOwner)) for await (const each of batch.records()) records.push(each);
    const { space } = records[0]!; // ten were written
    const moved: LogTier = {
      ...passing(tier),
      async find(_space, _root, keys) {
        return Array.from(keys, (key) => records.find((record) => record.key === key)!); // all were written
      },
      async *recover() {
        if (turn === "after") await promise;
        yield {
          space,
          count: 9,
          async *records() {
            yield* records.slice(1);
          },
        };
        await promise;
      },
    };
    const pool = testPool();
    await using cache = await openTestCache({ pool, tiers: [moved] });
    const session = cache.openSession(options);
    await new Promise((resolve) => setImmediate(resolve));
    expect((await session.lookup(bareRoot, counting(40), wait)).hitTokens).toBe(40);
    open();
    await cache.recovered(10_000);
    expect(tier.stats().records).toBe(10);
    expect(await loadAndVerify(session, pool, counting(40))).toBe(40);
    cache.check();
  },
  20_000,
);

test("a disk that does not answer costs whoever asks the deadline, and holds a bounded number of texts", async () => {
  using folder = temporaryFolder();
  await filled(folder.path);
  const { promise, open } = gated();
  let begun = 0;
  const stuck: Tier = {
    ...passing(halted(await openTier(folder.path), promise)),
    find: () => {
      begun += 1;
      return promise.then(() => []);
    },
  };
  await using cache = await openTestCache({ pool: testPool(), tiers: [stuck] });
  const session = cache.openSession(options);
  const started = performance.now();
  expect((await session.lookup(bareRoot, counting(40), { deadlineMs: 50 })).hitTokens).toBe(0);
  expect(performance.now() - started).toBeLessThan(5000);
  await Promise.all(Array.from({ length: 500 }, () => session.lookup(bareRoot, counting(40), { deadlineMs: 1 })));
  expect(begun).toBe(64);
  open();
  await cache.recovered(10_000);
  expect((await session.lookup(bareRoot, counting(40), wait)).hitTokens).toBe(40);
  cache.check();
}, 20_000);

test(
  "rot under a text that is brought is a miss, never a wrong byte",
  async () => {
    using origin = temporaryFolder();
    const texts = Array.from({ length: 30 }, (_, i) => counting(42, 1000 * (i + 1)));
    {
      const pool = testPool();
      await using cache = await openTestCache({ pool, tiers: [await openTier(origin.path)] });
      for (const text of texts) await save(cache.openSession(options), pool, text);
      await cache.flush();
    }
    let brought = 0;
    const damages = rounds({ small: 3, full: 10 });
    for (let round = 1; round <= damages; round += 1) {
      using folder = temporaryFolder();
      cpSync(origin.path, folder.path, { recursive: true });
      for (const name of readdirSync(folder.path).filter((name) => name.endsWith(".region"))) {
        const path = join(folder.path, name);
        const bytes = readFileSync(path);
        // Anywhere but in the first and the last page, which would make it a region of nobody, or one to be scanned.
        for (let flip = 1; flip <= 40; flip += 1) {
          const at = 4096 + ((Math.imul(round * 1000 + flip, 2_654_435_761) >>> 0) % (bytes.length - 8192));
          bytes[at]! ^= 1 << (flip % 8);
        }
        writeFileSync(path, bytes);
      }
      const { promise, open } = gated();
      const pool = testPool();
      await using cache = await openTestCache({ pool, tiers: [halted(await openTier(folder.path), promise)] });
      const session = cache.openSession(options);
      for (const text of texts) brought += await loadAndVerify(session, pool, text);
      open();
      await cache.recovered(10_000);
      for (const text of texts) await loadAndVerify(session, pool, text);
      cache.check();
    }
    expect(brought).toBeGreaterThan(100 * damages);
  },
  timeoutMs(60_000),
);

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

test("cleared before it is back, it does not come back", async () => {
  using folder = temporaryFolder();
  await filled(folder.path);
  const { promise, open } = gated();
  const pool = testPool();
  await using cache = await openTestCache({ pool, tiers: [backwards(await openTier(folder.path), promise)] });
  const session = cache.openSession(options);
  const cleared = cache.clear();
  open();
  await cleared;
  await cache.recovered(10_000);
  expect((await session.lookup(bareRoot, counting(40), wait)).hitTokens).toBe(0);
  expect(cache.stats()).toMatchObject({ chunks: 0, tiers: { disk: { records: 0 } } });
  cache.check();
}, 20_000);
