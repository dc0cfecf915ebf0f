/** A guest that loads what it can from below and gives nothing back: others save and load as before. */
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
import { SharedTier } from "../../../test/support/shared-tier.ts";
import { storeWith } from "../../../test/support/stored-texts.ts";
import { bareRoot } from "../../identity/keys.ts";

/** Slots of 64 KiB: a pool of 64 MiB has a thousand. */
const options = { space: testSpace(), rank: 0, slotBytes: [65_536] };
const texts = [0, 1, 2].map((i) => counting(1600, 1 + 10_000 * i));

const stored = () => storeWith(texts, options, { capacityBytes: 256 * 1024 * 1024 });

test("it gets half of the pool, and more only for what it gives back", async () => {
  const store = await stored();
  const pool = testPool();
  await using cache = await openTestCache({ pool, tiers: [new SharedTier(store)] });
  const greedy = cache.openSession(options);
  const leases = [];
  for (const text of texts)
    for await (const batch of greedy.load(bareRoot, text, 0, wait)) leases.push(...batch.map(({ lease }) => lease));
  expect(leases).toHaveLength(512);
  const honest = cache.openSession(options);
  const root = { salt: "honest", adapter: "" };
  const own = counting(1600, 500_000);
  expect(await save(honest, pool, own, { root })).toBe(400);
  expect(await loadAndVerify(honest, pool, own, { root })).toBe(1600);
  greedy.release(leases.slice(0, 400));
  expect(await loadAndVerify(greedy, pool, texts[2]!)).toBe(1600);
  cache.check();
});

test("a guest that gives back as it goes loads a text that is larger than what it may keep", async () => {
  const store = await stored();
  const pool = testPool();
  await using cache = await openTestCache({ pool, tiers: [new SharedTier(store)] });
  const session = cache.openSession(options);
  const kept = [];
  for await (const batch of session.load(bareRoot, texts[0]!, 0, wait)) kept.push(...batch.map(({ lease }) => lease));
  for (const text of texts.slice(1)) expect(await loadAndVerify(session, pool, text)).toBe(1600);
  expect(kept).toHaveLength(400);
  session.release(kept);
  expect(cache.stats().leases).toBe(0);
  cache.check();
});
