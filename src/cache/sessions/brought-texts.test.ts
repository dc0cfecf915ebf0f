/** Tenants that bring texts into memory: more than they may, and texts that nobody wants any more. */
import { once } from "node:events";
import { expect, test } from "vitest";
import {
  counting,
  loadAndVerify,
  openTestCache,
  save,
  testPool,
  testSpace,
  wait,
} from "../../../test/support/cache.ts";
import { gated } from "../../../test/support/late-tier.ts";
import { SharedStore, SharedTier } from "../../../test/support/shared-tier.ts";
import { storeWith } from "../../../test/support/stored-texts.ts";
import type { Tokens } from "../../identity/tokens.ts";

const rootOf = (tenant: string) => ({ salt: tenant, tenant, adapter: "" });
const text = (i: number) => counting(40, 1 + 1000 * i);

test("a tenant that floods is refused, and another's texts come", async () => {
  const store = new SharedStore();
  const options = { space: testSpace(), rank: 0, slotBytes: [8192] };
  {
    const pool = testPool();
    await using far = await openTestCache({ pool, tiers: [new SharedTier(store)] });
    const session = far.openSession(options);
    for (const tenant of ["flood", "other"]) await save(session, pool, text(0), { root: rootOf(tenant) });
    await far.flush();
  }
  const tier = new SharedTier(store);
  await using cache = await openTestCache({ pool: testPool(), tiers: [tier] });
  cache.openSession(options);
  const gate = gated();
  tier.beforeRead = () => gate.promise;
  const flood = Array.from({ length: 100 }, () => cache.prefetch(rootOf("flood"), text(0), wait));
  const outcomes = Promise.allSettled(flood);
  const other = cache.prefetch(rootOf("other"), text(0), wait);
  await expect(cache.pin(rootOf("flood"), text(0), 60, wait)).rejects.toMatchObject({ code: "QUEUE_FULL" });
  gate.open();
  expect(await other).toBe(40);
  const done = await outcomes;
  expect(done.filter(({ status }) => status === "fulfilled")).toHaveLength(16);
  expect(await cache.prefetch(rootOf("flood"), text(0), wait)).toBe(40);
  expect(cache.stats().leases).toBe(0);
});

const long = { space: testSpace(), rank: 0, slotBytes: [65_536] };

/** A store with a text of 400 chunks of 64 KiB. Of a pool of 64 MiB a sixteenth is read ahead of the one that is waited for: 64 of them. */
async function withLongText() {
  const tokens = counting(1600);
  return { ...(await hangingTier([tokens])), tokens };
}

/** A tier with these texts that reads nothing until its gate is opened. */
async function hangingTier(texts: readonly Tokens[]) {
  const how = { root: rootOf("a"), bytes: 65_536, capacityBytes: 256 * 1024 * 1024 };
  const tier = new SharedTier(await storeWith(texts, long, how));
  const gate = gated();
  tier.beforeRead = (signal) => Promise.race([gate.promise, once(signal, "abort")]).then(() => {});
  return { tier, gate };
}

for (const verb of ["prefetch", "pin"] as const)
  test(`a ${verb} that nobody waits for any more reads no further, holds nothing, and counts until its reads have ended`, async () => {
    const { tier, gate, tokens } = await withLongText();
    await using cache = await openTestCache({ pool: testPool(), tiers: [tier] });
    cache.openSession(long);
    const begin = (signal: AbortSignal) =>
      verb === "pin"
        ? cache.pin(rootOf("a"), tokens, 60, { ...wait, signal })
        : cache.prefetch(rootOf("a"), tokens, { ...wait, signal });
    const client = new AbortController();
    const texts = Array.from({ length: 16 }, () => begin(client.signal));
    await expect.poll(() => tier.counts.reads).toBe(65);
    expect(cache.stats().leases).toBeGreaterThan(100);
    client.abort();
    await expect.poll(() => cache.stats().leases, { timeout: 100 }).toBe(0);
    await expect(begin(client.signal)).rejects.toMatchObject({ code: "QUEUE_FULL" }); // leaving buys no further reads
    gate.open();
    expect(await Promise.all(texts)).toEqual(texts.map(() => 0));
    expect(tier.counts.reads).toBe(65);
    expect(cache.stats()).toMatchObject({ leases: 0, pinnedBytes: 0 });
    expect(await begin(client.signal)).toBe(0); // it left before it began
    expect(tier.counts.reads).toBe(65);
    expect(await begin(new AbortController().signal)).toBeGreaterThan(0);
    cache.check();
  });

test("the signal fires between two batches: what has been read stays, and no more is", async () => {
  const { tier, gate, tokens } = await withLongText();
  await using cache = await openTestCache({ pool: testPool(), tiers: [tier] });
  const session = cache.openSession(long);
  const client = new AbortController();
  let reads = 0;
  tier.beforeRead = async () => {
    if ((reads += 1) === 100) client.abort();
    await Promise.resolve();
  };
  gate.open();
  const ready = await cache.prefetch(rootOf("a"), tokens, { ...wait, signal: client.signal });
  expect(ready).toBeGreaterThan(0);
  expect(ready).toBeLessThan(800);
  expect(await session.lookup(rootOf("a"), tokens, wait)).toMatchObject({ segments: [{ tier: "memory" }, {}] });
  expect(tier.counts.reads).toBeLessThan(200);
  expect(cache.stats().leases).toBe(0);
});

test("texts that are brought from a tier that hangs leave the engine half of the pool", async () => {
  const texts = Array.from({ length: 16 }, (_, i) => counting(400, 1 + 10_000 * i));
  const { tier, gate } = await hangingTier(texts);
  const pool = testPool();
  await using cache = await openTestCache({ pool, tiers: [tier] });
  const session = cache.openSession(long);
  const own = counting(1200, 500_000);
  expect(await save(session, pool, own, { root: rootOf("b"), bytes: 65_536 })).toBe(300);
  const brought = texts.map((each) => cache.prefetch(rootOf("a"), each, wait));
  await expect.poll(() => tier.counts.reads).toBeGreaterThan(400);
  expect(await loadAndVerify(session, pool, own, { root: rootOf("b"), bytes: 65_536 })).toBe(1200);
  expect(await save(session, pool, counting(40, 700_000), { root: rootOf("b"), bytes: 65_536 })).toBe(10);
  expect(tier.counts.reads).toBeLessThanOrEqual(512 + 16); // half of the pool, and one chunk of each
  gate.open();
  expect(Math.max(...(await Promise.all(brought)))).toBe(400); // those that found no room end with what they have
  expect(cache.stats().leases).toBe(0);
  cache.check();
});
