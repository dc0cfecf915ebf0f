/** Spaces with snapshots: a stored prefix ends where there is one, and of a text the last is all that is read. */
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { counting, openTestCache, temporaryFolder, testPool, testSpace, text, wait } from "../../test/support/cache.ts";
import { rounds, seedOr } from "../../test/support/depth.ts";
import { hybridSlotBytes, hybridSpace, loadHybrid, saveHybrid } from "../../test/support/hybrid-guest.ts";
import { gated } from "../../test/support/late-tier.ts";
import { passing } from "../../test/support/passing-tier.ts";
import { bareRoot } from "../identity/keys.ts";
import type { CacheSession } from "../session.ts";
import type { LogTier } from "../tier.ts";
import { DiskTier } from "../tiers/disk/disk-tier.ts";
import { Cache } from "./cache.ts";

/** Two extents: slots of two sizes never share one. */
const poolBytes = 128 * 2 ** 20;
const options = { space: hybridSpace(), rank: 0, slotBytes: hybridSlotBytes };

async function setUp() {
  const pool = testPool(poolBytes);
  const cache = await openTestCache({ pool });
  const session = cache.openSession(options);
  return { pool, cache, session, [Symbol.asyncDispose]: () => cache.close() };
}

async function hit(session: CacheSession, tokens: Uint32Array): Promise<number> {
  return (await session.lookup(bareRoot, tokens, wait)).hitTokens;
}

test("a reservation is of the missing rows and the snapshot at the text's end; a load of all rows and the last snapshot", async () => {
  await using all = await setUp();
  const { pool, cache, session } = all;
  expect(await saveHybrid(session, pool, counting(8))).toEqual([2, 1]);
  expect(await saveHybrid(session, pool, counting(18))).toEqual([3, 1]);
  expect(await saveHybrid(session, pool, counting(18)), "all is there").toEqual([0, 0]);
  expect(await loadHybrid(session, pool, counting(30))).toEqual({ tokens: 18, partsByGroup: [5, 1] });
  expect(await loadHybrid(session, pool, counting(8))).toEqual({ tokens: 8, partsByGroup: [2, 1] });
  // Rows of 12 tokens are stored, but nobody was there to take a snapshot.
  expect(await loadHybrid(session, pool, counting(12))).toEqual({ tokens: 8, partsByGroup: [2, 1] });
  expect(await saveHybrid(session, pool, counting(12))).toEqual([0, 1]);
  expect(await loadHybrid(session, pool, counting(12))).toEqual({ tokens: 12, partsByGroup: [3, 1] });
  cache.check();
});

test("a text that leaves a stored one inside a chunk goes on from the end of a shorter one, which may be a tail", async () => {
  await using all = await setUp();
  const { pool, cache, session } = all;
  await saveHybrid(session, pool, counting(10));
  await saveHybrid(session, pool, counting(20));
  const other = (shared: number) => text(...counting(shared), 900, 901, 902, 903, 904, 905);
  expect(await hit(session, other(11)), "the tail of ten tokens").toBe(10);
  expect(await loadHybrid(session, pool, other(11))).toEqual({ tokens: 10, partsByGroup: [3, 1] });
  expect(await hit(session, other(15))).toBe(10);
  expect(await hit(session, other(20))).toBe(20);
  expect(await hit(session, other(9)), "no snapshot before").toBe(0);
  await saveHybrid(session, pool, counting(9));
  expect(await hit(session, other(9)), "another tail beside it").toBe(9);
  expect(await hit(session, other(11))).toBe(10);
  cache.check();
});

test("a longer sibling does not make a tail needless", async () => {
  await using all = await setUp();
  const { pool, cache, session } = all;
  for (const length of [5, 6, 7, 8, 20]) await saveHybrid(session, pool, counting(length));
  for (const length of [5, 6, 7, 8, 20])
    expect((await loadHybrid(session, pool, counting(length))).tokens, `${length} tokens`).toBe(length);
  cache.check();
});

test("a prefix is found exactly where the longest text that was saved ends, whatever was saved beside it", async () => {
  const aText = fc.array(fc.integer({ min: 0, max: 1 }), { minLength: 1, maxLength: 14 });
  await fc.assert(
    fc.asyncProperty(
      fc.array(aText, { minLength: 1, maxLength: 12 }),
      fc.array(aText, { minLength: 5 }),
      async (saved, asked) => {
        await using all = await setUp();
        const { pool, cache, session } = all;
        for (const tokens of saved) await saveHybrid(session, pool, text(...tokens));
        for (const tokens of [...asked, ...saved]) {
          const begins = saved.filter((each) => each.every((token, i) => token === tokens[i]));
          const longest = Math.max(0, ...begins.map(({ length }) => length));
          expect(await hit(session, text(...tokens))).toBe(longest);
          expect((await loadHybrid(session, pool, text(...tokens))).tokens).toBe(longest);
        }
        cache.check();
      },
    ),
    { seed: seedOr(7), numRuns: rounds({ small: 15, full: 100 }) },
  );
});

test("a snapshot that is given up leaves the rows; a later guest brings it", async () => {
  await using all = await setUp();
  const { cache, session, pool } = all;
  const { parts } = await session.reserve(bareRoot, counting(8), wait);
  const [first, second, snapshot] = parts;
  await session.commit(
    [first!, second!].map(({ lease }) => ({ lease, bytes: 512 })),
    wait,
  );
  session.abandon([snapshot!.lease]);
  expect(await hit(session, counting(8))).toBe(0);
  cache.check();
  expect(await saveHybrid(session, pool, counting(8))).toEqual([0, 1]);
  expect(await hit(session, counting(8))).toBe(8);
  cache.check();
});

test("with several ranks a prefix ends where all of them have their snapshot", async () => {
  const pool = testPool(poolBytes);
  await using cache = await openTestCache({ pool });
  const space = hybridSpace({ tensorParallel: 2 });
  const [first, second] = [0, 1].map((rank) => cache.openSession({ space, rank, slotBytes: hybridSlotBytes }));
  await saveHybrid(first!, pool, counting(8), { rank: 0 });
  const { parts } = await second!.reserve(bareRoot, counting(8), wait);
  expect(parts.map(({ group }) => group)).toEqual([0, 0, 1]);
  second!.abandon([parts[2]!.lease]);
  const { parts: again } = await second!.reserve(bareRoot, counting(8), wait);
  expect(again.map(({ group }) => group)).toEqual([1]);
  second!.abandon([...parts, ...again].map(({ lease }) => lease));
  expect(await hit(first!, counting(8))).toBe(0);
  cache.check();
  for (const [rank, session] of [first!, second!].entries()) await saveHybrid(session, pool, counting(8), { rank });
  for (const [rank, session] of [first!, second!].entries())
    expect(await loadHybrid(session, pool, counting(8), { rank })).toEqual({ tokens: 8, partsByGroup: [2, 1] });
  cache.check();
});

test("of what lies on disk only the snapshot is read that a load ends at, also one that came after the rows", async () => {
  using folder = temporaryFolder();
  const open = async () => {
    const pool = testPool(poolBytes);
    const tier = await DiskTier.open({ drives: [{ directory: folder.path, capacityBytes: 64 * 2 ** 20 }] });
    const cache = await Cache.open({ pool, tiers: [tier] });
    const session = cache.openSession(options);
    await cache.recovered(10_000); // the records without snapshots are on the disk as well
    return { pool, cache, session };
  };
  {
    const { pool, cache, session } = await open();
    await saveHybrid(session, pool, counting(20));
    await cache.flush();
    for (const length of [8, 12, 16]) expect(await saveHybrid(session, pool, counting(length))).toEqual([0, 1]);
    await cache.flush();
    cache.check();
    await cache.close();
  }
  const { pool, cache, session } = await open();
  expect(await loadHybrid(session, pool, counting(40))).toEqual({ tokens: 20, partsByGroup: [5, 1] });
  expect(cache.stats().memory.usedSlots, "rows of five chunks and one snapshot").toBe(6);
  expect(await loadHybrid(session, pool, counting(12))).toEqual({ tokens: 12, partsByGroup: [3, 1] });
  expect(cache.stats().memory.usedSlots).toBe(7);
  expect(await loadHybrid(session, pool, counting(8))).toEqual({ tokens: 8, partsByGroup: [2, 1] });
  cache.check();
  await cache.close();
});

test("a guest that leaves after a clear gives back all parts of a chunk that it reserved, also one that it reads", async () => {
  await using all = await setUp();
  const { pool, cache, session } = all;
  await saveHybrid(session, pool, counting(8));
  for await (const _ of session.load(bareRoot, counting(8), 0, wait));
  const ofRead = await session.reserve(bareRoot, counting(4), wait);
  expect(ofRead.parts.map(({ group }) => group)).toEqual([1]);
  const ofNew = await session.reserve(bareRoot, counting(4, 500), wait);
  expect(ofNew.parts.map(({ group }) => group)).toEqual([0, 1]);
  await cache.clear();
  await session.close();
  expect(cache.stats()).toMatchObject({ chunks: 0, leases: 0, memory: { usedSlots: 0 } });
  cache.check();
});

test("a commit that names a part too long, or chunks that were cleared, last ones first, leaves nothing behind", async () => {
  await using all = await setUp();
  const { cache, session } = all;
  const { parts } = await session.reserve(bareRoot, counting(4), wait);
  const [rows, snapshot] = parts.map(({ lease }) => lease);
  await session.commit(
    [
      { lease: snapshot!, bytes: 512 },
      { lease: rows!, bytes: hybridSlotBytes[0]! + 1 },
      { lease: snapshot!, bytes: 512 },
    ],
    wait,
  );
  expect(cache.stats()).toMatchObject({ chunks: 0, leases: 0, memory: { usedSlots: 0 } });
  const again = await session.reserve(bareRoot, counting(8), wait);
  await cache.clear();
  const written = again.parts.map(({ lease }) => ({ lease, bytes: 512 }));
  await session.commit(written.toReversed(), wait);
  expect(cache.stats()).toMatchObject({ chunks: 0, leases: 0, memory: { usedSlots: 0 } });
  cache.check();
});

test("a guest cannot reserve snapshots beyond its share behind rows that it has reserved", async () => {
  const pool = testPool(4 * poolBytes);
  await using cache = await openTestCache({ pool });
  const session = cache.openSession({ ...options, slotBytes: [4096, 4 * 2 ** 20] });
  expect((await session.reserve(bareRoot, counting(4 * 100), wait)).parts).toHaveLength(101);
  for (let chunks = 1; chunks < 100; chunks += 1) await session.reserve(bareRoot, counting(4 * chunks), wait);
  expect(cache.stats().memory.usedBytes).toBeLessThanOrEqual(2 * poolBytes);
  expect(cache.stats().reservedBytes).toBe(cache.stats().memory.usedBytes);
  cache.check();
});

test("a rank that finds room for one of its groups alone leaves what the others write of the chunk", async () => {
  const pool = testPool(poolBytes);
  await using cache = await openTestCache({ pool });
  // Of each size there is one extent, and it holds one slot of the larger.
  const shape = { space: testSpace({ tensorParallel: 2, groups: ["rows", "rows"] }), slotBytes: [4096, poolBytes / 2] };
  const [first, second] = [0, 1].map((rank) => cache.openSession({ ...shape, rank }));
  const { parts } = await first!.reserve(bareRoot, counting(4), wait);
  expect(parts.map(({ group }) => group)).toEqual([0, 1]);
  expect(await second!.reserve(bareRoot, counting(4), wait)).toEqual({ parts: [], full: true });
  const written = parts.map(({ lease }) => ({ lease, bytes: 512 }));
  await first!.commit(written, wait);
  expect(cache.stats()).toMatchObject({ leases: 0, abandonedChunks: 0, memory: { usedSlots: 2 } });
  cache.check();
});

test("a chunk that was cleared while its rows were read is not read once more for its snapshot", async () => {
  using folder = temporaryFolder();
  const open = () => DiskTier.open({ drives: [{ directory: folder.path, capacityBytes: 64 * 2 ** 20 }] });
  {
    const pool = testPool(poolBytes);
    await using cache = await openTestCache({ pool, tiers: [await open()] });
    const session = cache.openSession(options);
    for (const length of [8, 12]) await saveHybrid(session, pool, counting(length));
  }
  const tier = await open();
  const gate = gated();
  const late: LogTier = {
    ...passing(tier),
    read: async (id, key, into, signal) => {
      const outcome = await tier.read(id, key, into, signal);
      await gate.promise;
      return outcome;
    },
  };
  await using cache = await openTestCache({ pool: testPool(poolBytes), tiers: [late] });
  const session = cache.openSession(options);
  await cache.recovered(10_000);
  const loads = [12, 8].map(async (length) => {
    for await (const batch of session.load(bareRoot, counting(length), 0, { deadlineMs: 100 }))
      expect(batch).toEqual([]); // late
  });
  await Promise.all(loads);
  await cache.clear();
  gate.open();
  await expect.poll(() => cache.stats()).toMatchObject({ chunks: 0, memory: { usedSlots: 0 } });
  cache.check();
});

test("chunks that are pinned and get snapshots afterwards take no more than pins may", async () => {
  const pool = testPool(4 * poolBytes);
  await using cache = await openTestCache({ pool });
  const session = cache.openSession({ ...options, slotBytes: [4096, 4 * 2 ** 20] });
  await saveHybrid(session, pool, counting(4 * 60));
  expect(await session.pin(bareRoot, counting(4 * 60), 60, wait)).toBe(4 * 60);
  for (let chunks = 1; chunks < 60; chunks += 1) await saveHybrid(session, pool, counting(4 * chunks));
  const { pinnedBytes } = cache.stats();
  expect(pinnedBytes).toBeGreaterThan((poolBytes * 7) / 8);
  expect(pinnedBytes).toBeLessThanOrEqual(poolBytes);
  cache.check();
});

test("no snapshot is taken of a chunk whose rows were lost below and that a load still holds", async () => {
  using folder = temporaryFolder();
  const open = () => DiskTier.open({ drives: [{ directory: folder.path, capacityBytes: 64 * 2 ** 20 }] });
  {
    const pool = testPool(poolBytes);
    await using cache = await openTestCache({ pool, tiers: [await open()] });
    await saveHybrid(cache.openSession(options), pool, counting(12));
  }
  const tier = await open();
  const gate = gated();
  let reads = 0;
  const losing: LogTier = {
    ...passing(tier),
    read: async (id, key, into, signal) => {
      reads += 1;
      if (reads === 2) return "gone";
      await gate.promise;
      return tier.read(id, key, into, signal);
    },
  };
  const pool = testPool(poolBytes);
  await using cache = await openTestCache({ pool, tiers: [losing] });
  const session = cache.openSession(options);
  await cache.recovered(10_000);
  using _ = { [Symbol.dispose]: gate.open }; // a cache waits for its reads when it closes
  const load = loadHybrid(session, pool, counting(12));
  await expect
    .poll(() => [reads, cache.stats().tiers.disk?.records, cache.stats().memory.usedSlots])
    .toEqual([3, 3, 3]);
  expect(await saveHybrid(session, pool, counting(8)), "nothing now").toEqual([0, 0]);
  cache.check();
  gate.open();
  expect(await load).toEqual({ tokens: 0, partsByGroup: [1, 0] });
  expect(await saveHybrid(session, pool, counting(8)), "once it is gone, both").toEqual([1, 1]);
  expect(await loadHybrid(session, pool, counting(8))).toEqual({ tokens: 8, partsByGroup: [2, 1] });
  cache.check();
});

test("rows that are on disk stay there when the disk takes the chunk with its snapshot late or not at all", async () => {
  using folder = temporaryFolder();
  const tier = await DiskTier.open({ drives: [{ directory: folder.path, capacityBytes: 64 * 2 ** 20 }] });
  const write = tier.write.bind(tier);
  let answer: "takes" | "rejects" | "fails" = "takes";
  tier.write = (...what) => {
    if (answer === "takes") return write(...what);
    return answer === "rejects" ? Promise.resolve("rejected") : Promise.reject(new Error("EIO"));
  };
  const pool = testPool(64 * 2 ** 20);
  await using cache = await Cache.open({ pool, tiers: [tier], retryMs: 1 });
  const slotBytes = 4 * 2 ** 20;
  const session = cache.openSession({ ...options, slotBytes: [slotBytes, slotBytes] });
  await saveHybrid(session, pool, counting(20));
  await cache.flush();
  for (const [round, how] of (["rejects", "fails"] as const).entries()) {
    answer = how;
    expect(await saveHybrid(session, pool, counting(8 + 4 * round))).toEqual([0, 1]);
    expect(await hit(session, counting(8 + 4 * round)), "from memory").toBe(8 + 4 * round);
    for (let other = 0; other < 10; other += 1)
      await saveHybrid(session, pool, counting(8, 1000 + 100 * other + 1000 * round));
    expect(await loadHybrid(session, pool, counting(20)), how).toEqual({ tokens: 20, partsByGroup: [5, 1] });
    cache.check();
  }
  answer = "takes";
});

test("what cannot be served is refused by its name", async () => {
  await using all = await setUp();
  const open = (change: object) => () => all.cache.openSession({ ...options, ...change });
  expect(open({ slotBytes: [8192] })).toThrow(expect.objectContaining({ code: "BAD_REQUEST", field: "slotBytes" }));
  expect(open({ slotBytes: [8192, 0] })).toThrow(expect.objectContaining({ field: "slotBytes" }));
  const groups = (kinds: readonly ("rows" | "snapshot")[]) =>
    open({ space: hybridSpace({ groups: kinds }), slotBytes: kinds.map(() => 8192) });
  for (const kinds of [[], ["snapshot"], ["rows", "columns"], Array.from({ length: 65 }, () => "rows")] as const)
    expect(groups(kinds as readonly "rows"[])).toThrow(expect.objectContaining({ field: "groups" }));
});
