import { expect, test } from "vitest";
import {
  counting,
  loadAndVerify,
  openTestCache,
  save,
  slotBytes,
  testPool,
  testSpace,
  wait,
} from "../../../test/support/cache.ts";
import { SharedStore, SharedTier, unanswered } from "../../../test/support/shared-tier.ts";
import { bareRoot } from "../../identity/keys.ts";
import type { CacheOptions } from "../cache.ts";
import { outcomes } from "./tier-counters.ts";

const options = { space: testSpace(), rank: 0, slotBytes: [slotBytes] };
const bytes = 500;

async function opened(tier: SharedTier, more: Partial<CacheOptions> = {}) {
  const pool = testPool();
  const cache = await openTestCache({ pool, tiers: [tier], ...more });
  const session = cache.openSession(options);
  const lookup = async (first: number) => session.lookup(bareRoot, counting(40, first), wait);
  const figures = () => Object.values(cache.stats().tiers)[0]!; // one tier
  return { cache, pool, session, lookup, figures, [Symbol.asyncDispose]: () => cache.close() };
}

const noLookups = Object.fromEntries(Object.keys(outcomes).map((outcome) => [outcome, 0]));

test("what is written to a tier and read from it is counted in chunks, bytes and seconds, from zero", async () => {
  const store = new SharedStore();
  let now = 0;
  const takes = (ms: number) => () => {
    now += ms;
    return Promise.resolve();
  };
  const tier = new SharedTier(store);
  tier.beforeWrite = takes(100);
  {
    await using host = await opened(tier, { now: () => now });
    expect(host.figures()).toMatchObject({
      lookups: noLookups,
      lookupSeconds: 0,
      readChunks: 0,
      readBytes: 0,
      readSeconds: 0,
      writtenChunks: 0,
      writtenBytes: 0,
      writeSeconds: 0,
      failures: 0,
      refusedWrites: 0,
      corruptRecords: 0,
    });
    await save(host.session, host.pool, counting(40), { bytes });
    await host.cache.flush();
    expect(host.figures()).toMatchObject({ writtenChunks: 10, writtenBytes: 10 * bytes, readChunks: 0 });
    expect(host.figures().writeSeconds).toBeGreaterThanOrEqual(1); // several at a time: each by itself
  }
  const reader = new SharedTier(store);
  reader.beforeRead = takes(200);
  await using host = await opened(reader, { now: () => now });
  expect(await loadAndVerify(host.session, host.pool, counting(20), { bytes })).toBe(20);
  expect(host.figures()).toMatchObject({ readChunks: 5, readBytes: 5 * bytes, writtenBytes: 0 });
  expect(host.figures().readSeconds).toBeGreaterThanOrEqual(1);
  const given = host.figures();
  given.lookups.found = 99; // a copy
  expect(host.figures().lookups.found).toBe(1);
});

test("a tier without room refuses writes, which are no failures", async () => {
  const tier = new SharedTier(new SharedStore(0));
  await using host = await opened(tier);
  await save(host.session, host.pool, counting(40), { bytes });
  await host.cache.flush();
  expect(host.figures()).toMatchObject({ writtenChunks: 0, writtenBytes: 0, refusedWrites: 10, failures: 0 });
});

test("every lookup that goes beyond this host is counted by what came of it", async () => {
  const store = new SharedStore();
  {
    await using first = await opened(new SharedTier(store));
    await save(first.session, first.pool, counting(40), { bytes });
    await first.cache.flush();
  }
  const tier = new SharedTier(store);
  await using host = await opened(tier, { retryMs: 1 });
  const up = () => expect.poll(() => host.figures().state.is).toBe("up");
  await host.lookup(1);
  await host.lookup(1); // in the index by now
  await host.lookup(1000);
  await host.lookup(1000);
  tier.beforeFind = () => Promise.reject(new Error("connection reset"));
  await host.lookup(2000);
  await up();
  tier.beforeFind = unanswered;
  await host.lookup(3000);
  await up();
  const lookups = { found: 1, nothing: 1, remembered: 1, failed: 1, late: 1, busy: 0, not_worth: 0 };
  expect(host.figures().lookups).toEqual(lookups);
  expect(host.figures().failures).toBe(2);
  expect(host.figures().lookupSeconds).toBeGreaterThan(0.9);
  let open = () => {};
  const gate = new Promise<void>((resolve) => (open = resolve));
  tier.beforeFind = () => gate;
  const many = Array.from({ length: 65 }, (_, i) => host.lookup(10_000 * (i + 1)));
  await expect.poll(() => tier.counts.finds).toBe(4 + 64);
  open();
  await Promise.all(many);
  expect(host.figures().lookups).toEqual({ ...lookups, nothing: 65, busy: 1 });
});
