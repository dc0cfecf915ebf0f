import { afterEach, expect, test } from "vitest";
import { CountingPool } from "../../bench/eviction/counting-pool.ts";
import { counting, testSpace, wait } from "../../test/support/cache.ts";
import { Cache } from "./cache.ts";
import { bareRoot, type Tokens } from "./chunk.ts";
import type { CacheSession } from "./session.ts";
import { Tenants } from "./tenants.ts";

const minute = 60_000;
const slots = 400;
const open = new Set<Cache>();
afterEach(async () => {
  for (const cache of open) await cache.close();
  open.clear();
});

async function setUp(size = slots) {
  const clock = { now: 0 };
  const cache = await Cache.open({ pool: new CountingPool(size), now: () => clock.now });
  open.add(cache);
  return { cache, clock, session: cache.openSession({ space: testSpace(), rank: 0, slotBytes: 1 }) };
}

/** One request: reads what is stored of a text and stores the rest. @returns chunks that were found */
async function request(session: CacheSession, salt: string, tokens: Tokens): Promise<number> {
  const root = { salt, adapter: "" };
  let found = 0;
  for await (const batch of session.load(root, tokens, 0, wait)) {
    session.release(batch.map(({ lease }) => lease));
    found += batch.length;
  }
  const { chunks } = await session.reserve(root, tokens, wait);
  await session.commit(
    chunks.map(({ lease }) => ({ lease, bytes: 1 })),
    wait,
  );
  return found;
}

/** Ten chunks each. */
function textOf(number: number): Tokens {
  return counting(40, number * 1000 + 1);
}

/** The hit rate of a tenant that asks for some of its texts more often than for others, with others' new texts between. */
async function hitRate({ slots: size, texts, flood }: { slots: number; texts: number; flood: number }) {
  const { cache, clock, session } = await setUp(size);
  const rounds = 100;
  let found = 0;
  for (let i = 0; i < 2 * rounds; i += 1) {
    for (let n = 0; n < flood; n += 1) await request(session, "flood", textOf(1000 + i * flood + n));
    clock.now += 1000;
    const hits = await request(session, "regular", textOf((i * i) % texts));
    if (i >= rounds) found += hits;
  }
  cache.check();
  return found / (rounds * 10);
}

test("a flood costs a tenant nothing that fits its half of the cache", async () => {
  expect(await hitRate({ slots, texts: 19, flood: 12 })).toBe(1); // 190 of 400 slots
});

test("a tenant that wants more than its half finds as much as in a cache of that half alone", async () => {
  const alone = await hitRate({ slots: slots / 2, texts: 97, flood: 0 });
  expect(alone).toBeGreaterThan(0.2);
  expect(alone).toBeLessThan(0.9);
  expect(await hitRate({ slots, texts: 97, flood: 12 })).toBeGreaterThanOrEqual(alone);
});

test("what nobody claims is open to all, and an idle tenant's chunks age out", async () => {
  const { cache, clock, session } = await setUp();
  for (let i = 0; i < 20; i += 1) await request(session, "away", textOf(i));
  for (let i = 0; i < 20; i += 1) await request(session, "here", textOf(i));
  clock.now += 11 * minute;
  for (let i = 0; i < 40; i += 1) await request(session, "here", textOf(i));
  let found = 0;
  for (let i = 0; i < 40; i += 1) found += await request(session, "here", textOf(i));
  expect(found).toBe(400);
  cache.check();
});

test("who holds more than its share takes nothing from those who do not, even when its own is all in use", async () => {
  const { cache, session } = await setUp();
  for (let i = 0; i < 12; i += 1) await request(session, "regular", textOf(i));
  const root = { salt: "flood", adapter: "" };
  const holding = await session.reserve(root, counting(4 * slots, 1_000_000), wait);
  expect(holding).toMatchObject({ full: true });
  expect(holding.chunks).toHaveLength(280);
  for (let i = 0; i < 12; i += 1) expect(await request(session, "regular", textOf(i))).toBe(10);
  cache.check();
});

test("shares follow who is active and holds something", () => {
  const tenants = new Tenants(() => 1000);
  for (const tenant of [1, 2, 3]) tenants.seen(tenant, 0);
  tenants.changed(1, 600);
  tenants.changed(2, 300);
  expect(tenants.shareBytes).toBe(500);
  expect([tenants.isProtected(1, 0), tenants.isProtected(2, 0)]).toEqual([false, true]);
  expect(tenants.giver(0)).toBe(1);
  tenants.seen(1, 9 * minute);
  expect(tenants.isProtected(2, 11 * minute)).toBe(false);
  expect(tenants.isProtected(1, 11 * minute)).toBe(true);
  expect(tenants.giver(11 * minute)).toBe(2);
  tenants.changed(2, -300);
  expect(tenants.giver(11 * minute)).toBeUndefined();
  tenants.check(new Map([[1, 600]]));
});

test("ranks whose slots differ in size are accounted for", async () => {
  const { cache } = await setUp();
  const space = testSpace({ tensorParallel: 2 });
  const sessions = [1, 2].map((slotBytes, rank) => cache.openSession({ space, rank, slotBytes }));
  const reserved = [];
  for (const each of sessions) {
    reserved.push((await each.reserve(bareRoot, textOf(1), wait)).chunks.map(({ lease }) => lease));
    cache.check();
  }
  for (const [rank, each] of sessions.entries()) {
    each.abandon(reserved[rank]!);
    cache.check();
  }
  expect(cache.stats().chunks).toBe(0);
});
