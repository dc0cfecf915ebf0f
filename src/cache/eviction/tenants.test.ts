import { afterEach, expect, test } from "vitest";
import { CountingPool } from "../../../bench/eviction/counting-pool.ts";
import { counting, testSpace, wait } from "../../../test/support/cache.ts";
import { Cache } from "../cache.ts";
import { bareRoot, type Root } from "../../identity/keys.ts";
import { type Tokens } from "../../identity/tokens.ts";
import type { CacheSession } from "../../session.ts";
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
  return { cache, clock, session: cache.openSession({ space: testSpace(), rank: 0, slotBytes: [1] }) };
}

function request(session: CacheSession, salt: string, tokens: Tokens): Promise<number> {
  return requestAs(session, { salt, adapter: "" }, tokens);
}

/** One request: reads what is stored of a text and stores the rest. @returns chunks that were found */
async function requestAs(session: CacheSession, root: Root, tokens: Tokens): Promise<number> {
  let found = 0;
  for await (const batch of session.load(root, tokens, 0, wait)) {
    session.release(batch.map(({ lease }) => lease));
    found += batch.length;
  }
  const { parts } = await session.reserve(root, tokens, wait);
  await session.commit(
    parts.map(({ lease }) => ({ lease, bytes: 1 })),
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

/** Reserves as much as it is given, and stores none of it. @returns slots */
async function hoard(session: CacheSession, salt: string, tenant?: string): Promise<number> {
  const { parts } = await session.reserve({ salt, adapter: "", tenant }, counting(4 * slots, 1_000_000), wait);
  return parts.length;
}

test("a guest that reserves all it can and commits none takes nothing from who holds less than its share", async () => {
  const { cache, session } = await setUp();
  const greedy = cache.openSession({ space: testSpace(), rank: 0, slotBytes: [1] });
  const before: number[] = [];
  for (const pass of [before, before])
    for (let i = 0; i < 19; i += 1) pass.push(await request(session, "regular", textOf(i)));
  expect(before.slice(19)).toEqual(before.slice(19).fill(10)); // 190 of 400 slots
  let taken = 0;
  for (let name = 0; name < 50; name += 1) taken += await hoard(greedy, `salt ${name}`);
  expect(taken).toBe(200);
  expect(cache.stats()).toMatchObject({ reservedBytes: 200, evictedChunks: 0 });
  for (let i = 0; i < 19; i += 1) expect(await request(session, "regular", textOf(i))).toBe(10);
  cache.check();
  await greedy.close();
  cache.check();
});

test("many such guests under many names leave a third tenant room, and the others what they have", async () => {
  const { cache, session } = await setUp();
  for (let i = 0; i < 12; i += 1) await request(session, "regular", textOf(i));
  const greedy = Array.from({ length: 20 }, () => cache.openSession({ space: testSpace(), rank: 0, slotBytes: [1] }));
  for (const [number, guest] of greedy.entries()) await hoard(guest, `salt ${number}`);
  expect(cache.stats().memory.usedSlots).toBe(400);
  expect(cache.stats().evictedChunks).toBe(0);
  for (let i = 0; i < 12; i += 1) expect(await request(session, "regular", textOf(i))).toBe(10);
  const honest = cache.openSession({ space: testSpace(), rank: 0, slotBytes: [1] });
  expect(await hoard(honest, "honest")).toBe(0); // full, and nobody gave anything
  for (const guest of greedy) await guest.close();
  expect(await request(honest, "honest", textOf(1))).toBe(0);
  expect(await request(honest, "honest", textOf(1))).toBe(10);
  cache.check();
});

test("a guest that leases all it has stored and sleeps can keep half of the pool; what others hold and store stays", async () => {
  const { cache, session } = await setUp();
  const sleeper = cache.openSession({ space: testSpace(), rank: 0, slotBytes: [1] });
  for (let i = 0; i < 28; i += 1) await request(sleeper, "sleeper", textOf(i));
  for (let i = 0; i < 12; i += 1) await request(session, "regular", textOf(i));
  let held = 0;
  for (let i = 0; i < 28; i += 1)
    for await (const batch of sleeper.load({ salt: "sleeper", adapter: "" }, textOf(i), 0, wait)) held += batch.length;
  expect(held).toBe(200);
  for (let i = 12; i < 20; i += 1) await request(session, "regular", textOf(i)); // 200: its share
  for (let i = 0; i < 20; i += 1) expect(await request(session, "regular", textOf(i))).toBe(10);
  cache.check();
});

test("one tenant with a hundred salts gets no more than with one", async () => {
  const hitsBeside = async (tenant: string | undefined) => {
    const { cache, session } = await setUp();
    const regular = { salt: "regular", adapter: "", tenant: "regular" };
    for (let i = 0; i < 19; i += 1) await requestAs(session, regular, textOf(i));
    for (let i = 0; i < 100; i += 1) await requestAs(session, { salt: `${i}`, adapter: "", tenant }, textOf(1000 + i));
    let found = 0;
    for (let i = 0; i < 19; i += 1) found += await requestAs(session, regular, textOf(i));
    cache.check();
    return found;
  };
  expect(await hitsBeside("many")).toBe(190);
  expect(await hitsBeside(undefined)).toBeLessThan(190); // each salt is a tenant, and a share a hundredth
});

test("shares follow who is active and has something stored", () => {
  const tenants = new Tenants(() => 1000);
  for (const tenant of [1, 2, 3]) tenants.seen(tenant, 0);
  tenants.changed(1, 600, 2);
  tenants.changed(2, 300, 1);
  expect([tenants.shareBytes(1), tenants.shareBytes(3)]).toEqual([500, 1000 / 3]);
  expect([tenants.isProtected(1, 0, 1), tenants.isProtected(2, 0, 1)]).toEqual([false, true]);
  expect([...tenants.givers(0, 1)]).toEqual([1]);
  tenants.changed(3, 100, 1);
  tenants.reserved(3, 1);
  expect([tenants.shareBytes(1), tenants.hasNewcomersBut(1), tenants.hasNewcomersBut(3)]).toEqual([500, true, false]);
  tenants.reserved(3, -1);
  expect([tenants.shareBytes(1), tenants.hasNewcomersBut(1)]).toEqual([1000 / 3, false]);
  tenants.changed(3, -100, -1);
  tenants.seen(1, 9 * minute);
  expect(tenants.isProtected(2, 11 * minute, 1)).toBe(false);
  expect(tenants.isProtected(1, 11 * minute, 1)).toBe(true);
  expect([...tenants.givers(11 * minute, 1)]).toEqual([2]);
  tenants.changed(2, -300, -1);
  expect([...tenants.givers(11 * minute, 1)]).toEqual([]);
  tenants.check(new Map([[1, { bytes: 600, reserved: 0 }]]));
});

test("ranks whose slots differ in size are accounted for", async () => {
  const { cache } = await setUp();
  const space = testSpace({ tensorParallel: 2 });
  const sessions = [1, 2].map((slotBytes, rank) => cache.openSession({ space, rank, slotBytes: [slotBytes] }));
  const reserved = [];
  for (const each of sessions) {
    reserved.push((await each.reserve(bareRoot, textOf(1), wait)).parts.map(({ lease }) => lease));
    cache.check();
  }
  for (const [rank, each] of sessions.entries()) {
    each.abandon(reserved[rank]!);
    cache.check();
  }
  expect(cache.stats().chunks).toBe(0);
});
