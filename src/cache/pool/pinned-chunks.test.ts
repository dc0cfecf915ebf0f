import { afterEach, expect, test } from "vitest";
import { CountingPool } from "../../../bench/eviction/counting-pool.ts";
import { counting, save, testPool, testSpace, wait } from "../../../test/support/cache.ts";
import { Cache } from "../cache.ts";
import { bareRoot, type Root } from "../../identity/keys.ts";
import { type Tokens } from "../../identity/tokens.ts";
import type { CacheSession } from "../../session.ts";

const memory = { view: (_offset: number, bytes: number) => new Uint8Array(bytes) };
const open = new Set<Cache>();
afterEach(async () => {
  for (const cache of open) await cache.close();
  open.clear();
});

/** A pool of 40 slots: ten may be pinned. */
async function setUp() {
  const clock = { now: 0 };
  const cache = await Cache.open({ pool: new CountingPool(40), now: () => clock.now });
  open.add(cache);
  return { cache, clock, session: cache.openSession({ space: testSpace(), rank: 0, slotBytes: [1] }) };
}

function keep(session: CacheSession, tokens: Tokens): Promise<number> {
  return save(session, memory, tokens, { bytes: 1 });
}

async function flood(session: CacheSession, from: number): Promise<void> {
  for (let i = 0; i < 20; i += 1) await keep(session, counting(16, from + i * 100));
}

async function hits(session: CacheSession, tokens: Tokens): Promise<number> {
  return (await session.lookup(bareRoot, tokens, wait)).hitTokens;
}

test("a pinned text outlives whatever comes until its deadline, and no longer", async () => {
  const { cache, clock, session } = await setUp();
  const tokens = counting(30);
  await keep(session, tokens);
  expect(await session.pin(bareRoot, tokens, 60, wait)).toBe(30);
  expect(cache.stats().pinnedBytes).toBe(8);
  clock.now = 59_000;
  await flood(session, 1000);
  expect(await hits(session, tokens)).toBe(30);
  cache.check();
  clock.now = 61_000;
  await flood(session, 10_000);
  expect(await hits(session, tokens)).toBe(0);
  expect(cache.stats().pinnedBytes).toBe(0);
  cache.check();
});

test("a second pin lengthens the first, and none lasts longer than an hour", async () => {
  const { cache, clock, session } = await setUp();
  await keep(session, counting(8));
  await session.pin(bareRoot, counting(8), 100_000, wait);
  await session.pin(bareRoot, counting(8), 60, wait);
  clock.now = 3_599_000;
  expect(cache.stats().pinnedBytes).toBe(2);
  clock.now = 3_601_000;
  expect(cache.stats().pinnedBytes).toBe(0);
});

test("pins take a quarter of the pool and no more; a pin of 0 seconds gives back", async () => {
  const { cache, session } = await setUp();
  await keep(session, counting(60));
  expect(await session.pin(bareRoot, counting(60), 60, wait)).toBe(40);
  expect(await session.pin(bareRoot, counting(60), 0, wait)).toBe(60);
  expect(cache.stats().pinnedBytes).toBe(0);
  await flood(session, 1000);
  expect(await hits(session, counting(60))).toBe(0);
  cache.check();
});

test("a tenant that has pinned all that may be gives half of it to another, a text's end before its beginning", async () => {
  const { cache, session } = await setUp();
  const rootOf = (tenant: string, salt = tenant) => ({ salt, tenant, adapter: "" });
  const [text, other] = [counting(40), counting(20, 1000)];
  for (const salt of ["a", "another of a's"]) await save(session, memory, text, { root: rootOf("a", salt), bytes: 1 });
  await save(session, memory, other, { root: rootOf("b"), bytes: 1 });
  const pin = (root: Root, tokens: Tokens) => session.pin(root, tokens, 60, wait);
  expect(await pin(rootOf("a"), text)).toBe(40);
  expect(await pin(rootOf("a", "another of a's"), text)).toBe(0); // a further salt is the same tenant
  expect(await pin(rootOf("b"), other)).toBe(20);
  expect(cache.stats().pinnedBytes).toBe(10);
  for (let i = 0; i < 3; i += 1) expect(await pin(rootOf("a"), text)).toBe(20); // b has as much by then
  await flood(session, 5000);
  for (const [root, tokens] of [
    [rootOf("a"), text],
    [rootOf("b"), other],
  ] as const)
    expect((await session.lookup(root, tokens, wait)).hitTokens).toBeGreaterThanOrEqual(20);
  cache.check();
});

test("what was touched goes after what was not", async () => {
  const { clock, session } = await setUp();
  for (const from of [1, 101, 201, 301]) await keep(session, counting(40, from));
  clock.now = 60_000;
  expect(await session.touch(bareRoot, counting(50), wait)).toBe(40);
  expect(await session.touch(bareRoot, counting(50, 5000), wait)).toBe(0);
  for (let half = 0; half < 2; half += 1) await keep(session, counting(120, 1001));
  expect(await hits(session, counting(40))).toBe(40);
  for (const from of [101, 201, 301]) expect(await hits(session, counting(40, from))).toBe(0);
});

test("a cache that is cleared forgets pinned texts as well", async () => {
  const { cache, session } = await setUp();
  await keep(session, counting(12));
  expect(await session.pin(bareRoot, counting(12), 60, wait)).toBe(12);
  expect(await cache.clear()).toEqual({ bytesByTier: { memory: 3 }, chunksInUse: 0 });
  expect(await hits(session, counting(12))).toBe(0);
  expect(cache.stats()).toMatchObject({ pinnedBytes: 0, chunks: 0 });
  cache.check();
});

test("a pool that shrinks goes where nothing is pinned, and ends pins only where it must", async () => {
  const slotBytes = 2 ** 25; // two to an extent
  const pool = testPool(8 * slotBytes);
  const cache = await Cache.open({ pool });
  open.add(cache);
  const session = cache.openSession({ space: testSpace(), rank: 0, slotBytes: [slotBytes] });
  for (const from of [1, 101, 201, 301]) await save(session, pool, counting(8, from));
  for (const from of [1, 201]) expect(await session.pin(bareRoot, counting(4, from), 60, wait)).toBe(4);
  await cache.resize(4 * slotBytes);
  const found = [1, 101, 201, 301].map((from) => hits(session, counting(8, from)));
  expect(await Promise.all(found)).toEqual([8, 0, 8, 0]);
  expect(await cache.resize(2 * slotBytes)).toMatchObject({ capacityBytes: 2 * slotBytes, leavingBytes: 0 });
  expect(cache.stats().pinnedBytes).toBe(slotBytes);
  cache.check();
});

test("the cache pins a text wherever a guest of its space has stored it", async () => {
  const pool = testPool();
  const cache = await Cache.open({ pool });
  open.add(cache);
  const session = cache.openSession({ space: testSpace(), rank: 0, slotBytes: [4096] });
  cache.openSession({ space: testSpace({ engine: "other" }), rank: 0, slotBytes: [4096] });
  await save(session, pool, counting(10));
  expect(await cache.pin(bareRoot, counting(10), 60, wait)).toBe(10);
  expect(cache.stats().pinnedBytes).toBe(3 * 4096);
  await session.close();
  cache.check();
});
