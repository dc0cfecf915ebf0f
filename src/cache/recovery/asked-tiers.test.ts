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
} from "../../../test/support/cache.ts";
import { gated, halted } from "../../../test/support/late-tier.ts";
import { SharedStore, SharedTier, unanswered } from "../../../test/support/shared-tier.ts";
import { storeWith } from "../../../test/support/stored-texts.ts";
import { bareRoot } from "../../identity/keys.ts";
import type { Tokens } from "../../identity/tokens.ts";
import type { Found } from "../../session.ts";
import type { RecordId, Tier, TierName } from "../../tier.ts";
import { DiskTier } from "../../tiers/disk/disk-tier.ts";
import type { CacheOptions } from "../cache.ts";
import { probeSpace } from "../tiering/tier-states.ts";

const options = { space: testSpace(), rank: 0, slotBytes: [slotBytes] };

/** A cache over tiers, with a session and the pool it is read from. */
async function opened(tiers: readonly Tier[], more: Partial<CacheOptions> = {}) {
  const pool = testPool();
  const cache = await openTestCache({ pool, tiers, ...more });
  const session = cache.openSession(options);
  const hitTokens = async (length: number, deadlineMs = wait.deadlineMs) =>
    (await session.lookup(bareRoot, counting(length), { deadlineMs })).hitTokens;
  return { cache, pool, session, hitTokens, [Symbol.asyncDispose]: () => cache.close() };
}

/** A store to which one cache has written a text of so many tokens. */
const storeOf = (tokens: number) => storeWith([counting(tokens)], options);

test("what one cache has written to a shared tier, another finds when it is asked, and loads", async () => {
  const tier = new SharedTier(await storeOf(42));
  await using second = await opened([tier]);
  const { session, pool, cache } = second;
  expect(await session.lookup(bareRoot, counting(42), wait)).toMatchObject({
    hitTokens: 42,
    segments: [{ from: 0, to: 42, tier: "shared" }],
  });
  expect(await loadAndVerify(session, pool, counting(42))).toBe(42);
  expect(tier.counts).toEqual({ finds: 1, writes: 0, reads: 11 });
  expect(tier.bounds).toEqual({ parts: 1, tokens: 4 }); // of a whole chunk: no store can give more than a true record has
  expect(await session.lookup(bareRoot, counting(42), wait)).toMatchObject({
    segments: [{ from: 0, to: 42, tier: "memory" }],
  });
  expect(await second.hitTokens(80)).toBe(42);
  expect(await loadAndVerify(session, pool, counting(20, 1000))).toBe(0);
  cache.check();
});

test("a load asks as well, and only for what is not in the index", async () => {
  const tier = new SharedTier(await storeOf(40));
  await using second = await opened([tier]);
  const asked: number[] = [];
  const find = tier.find.bind(tier);
  tier.find = (space, root, keys, signal) => {
    if (space !== probeSpace) asked.push([...keys].length);
    return find(space, root, keys, signal);
  };
  expect(await loadAndVerify(second.session, second.pool, counting(20))).toBe(20);
  expect(await loadAndVerify(second.session, second.pool, counting(44))).toBe(40);
  expect(asked).toEqual([5, 6]);
  second.cache.check();
});

test("two who ask for a text at the same time find it", async () => {
  const tier = new SharedTier(await storeOf(40));
  await using second = await opened([tier]);
  const gate = gated();
  tier.beforeFind = () => gate.promise;
  const lookups = [second.hitTokens(40), second.hitTokens(40), second.hitTokens(23)];
  await expect.poll(() => tier.counts.finds).toBe(3);
  gate.open();
  expect(await Promise.all(lookups)).toEqual([40, 40, 23]);
  second.cache.check();
});

test("a tier that does not answer is a miss within the deadline, and is left alone for a while", async () => {
  const tier = new SharedTier(await storeOf(40));
  tier.beforeFind = unanswered;
  await using second = await opened([tier], { retryMs: 300 });
  const started = performance.now();
  expect(await second.hitTokens(40, 50)).toBe(0);
  expect(performance.now() - started).toBeLessThan(900);
  expect(await second.hitTokens(40)).toBe(0); // its patience is shorter than the deadline
  expect(performance.now() - started).toBeLessThan(5000);
  const { finds } = tier.counts;
  expect(await second.hitTokens(40)).toBe(0);
  expect(tier.counts.finds).toBe(finds);
  expect(second.cache.stats().tiers["shared" as TierName]?.failures).toBeGreaterThan(0);
  tier.beforeFind = async () => {};
  await expect.poll(() => second.hitTokens(40), { timeout: 5000 }).toBe(40);
  expect(await loadAndVerify(second.session, second.pool, counting(40))).toBe(40);
  second.cache.check();
});

test("an answer that comes after the deadline is there for the next one", async () => {
  const tier = new SharedTier(await storeOf(40));
  await using second = await opened([tier]);
  const gate = gated();
  tier.beforeFind = () => gate.promise;
  expect(await second.hitTokens(40, 10)).toBe(0);
  gate.open();
  tier.beforeFind = unanswered;
  await expect.poll(() => second.hitTokens(40, 10)).toBe(40);
});

test("a tier that fails is a miss, and so is a record that has gone or cannot be read", async () => {
  const store = await storeOf(40);
  const tier = new SharedTier(store);
  tier.beforeFind = () => Promise.reject(new Error("connection refused"));
  await using second = await opened([tier], { retryMs: 1 });
  expect(await second.hitTokens(40)).toBe(0);
  expect(second.cache.stats().tiers["shared" as TierName]?.failures).toBe(1);
  tier.beforeFind = async () => {};
  await expect.poll(() => second.hitTokens(40)).toBe(40);
  tier.beforeRead = () => Promise.reject(new Error("connection reset"));
  expect(await loadAndVerify(second.session, second.pool, counting(40))).toBe(0);
  tier.beforeRead = async () => {};
  store.records.clear();
  expect(await loadAndVerify(second.session, second.pool, counting(40))).toBe(0);
  expect(await save(second.session, second.pool, counting(40))).toBe(10);
  await expect.poll(() => store.records.size).toBe(10);
  second.cache.check();
});

test("lengths that no chunk of the space has end what is found", async () => {
  const store = await storeOf(40);
  const fourth = [...store.records.keys()][3]!; // ten were written, in order
  store.records.set(fourth, [new Uint8Array(10), new Uint8Array(10)]);
  await using second = await opened([new SharedTier(store)]);
  expect(await second.hitTokens(40)).toBe(12);
  expect(second.cache.stats().corruptRecords).toBe(1);
  second.cache.check();
});

test("who finds all of a text in a returning log does not wait for a shared tier", async () => {
  using folder = temporaryFolder();
  const openDisk = () => DiskTier.open({ drives: [{ directory: folder.path, capacityBytes: 16 * 2 ** 20 }] });
  {
    await using first = await opened([await openDisk()]);
    await save(first.session, first.pool, counting(40));
  }
  const gate = gated();
  const tier = new SharedTier(new SharedStore());
  tier.beforeFind = unanswered;
  await using second = await opened([halted(await openDisk(), gate.promise), tier]);
  const started = performance.now();
  expect(await second.hitTokens(40)).toBe(40);
  expect(performance.now() - started).toBeLessThan(900);
  expect(tier.counts.finds).toBe(1);
  gate.open();
  await second.cache.recovered(10_000);
  second.cache.check();
});

test("clearing a cache leaves a shared tier alone: what lies there is others' too", async () => {
  const store = await storeOf(40);
  await using second = await opened([new SharedTier(store)]);
  expect(await second.hitTokens(40)).toBe(40);
  await second.cache.clear();
  expect(second.cache.stats().chunks).toBe(0);
  expect(await second.hitTokens(40)).toBe(40);
  second.cache.check();
});

test("what is known of a shared tier is bounded: what was found long ago is asked for again", async () => {
  const tier = new SharedTier(new SharedStore());
  let lastId = 0;
  let asked = 0;
  tier.find = (space, _root, keys) => {
    if (space === probeSpace) return Promise.resolve([]);
    const found = Array.from(keys, () => ({ id: (lastId += 1) as RecordId, payloadBytes: [512] }));
    asked += found.length;
    return Promise.resolve(found);
  };
  await using only = await opened([tier]);
  const chunks = 2 ** 16;
  for (const from of [1, 2, 3, 4]) {
    const text = counting(4 * chunks, 10_000_000 * from);
    const { hitTokens } = await only.session.lookup(bareRoot, text, wait);
    expect(hitTokens).toBe(text.length);
    expect(only.cache.stats().chunks).toBeLessThanOrEqual(3 * chunks);
  }
  expect(asked).toBe(4 * chunks);
  const beginning = (from: number) => counting(4 * 1000, from);
  await only.session.lookup(bareRoot, beginning(40_000_000), wait);
  expect(asked).toBe(4 * chunks);
  await only.session.lookup(bareRoot, beginning(10_000_000), wait);
  expect(asked).toBe(4 * chunks + 1000);
  only.cache.check();
}, 60_000);

test("a text is prefetched: the next load finds it in memory, and no lease is left", async () => {
  const tier = new SharedTier(await storeOf(42));
  await using host = await opened([tier]);
  expect(await host.session.prefetch(bareRoot, counting(60), wait)).toBe(40); // whole chunks
  expect(await host.session.lookup(bareRoot, counting(40), wait)).toMatchObject({
    segments: [{ from: 0, to: 40, tier: "memory" }],
  });
  expect(host.cache.stats().leases).toBe(0);
  expect(await host.session.prefetch(bareRoot, counting(60, 1000), wait)).toBe(0);
});

test("what a shared tier lacks it is not asked for again, for some seconds", async () => {
  const store = new SharedStore();
  const tier = new SharedTier(store);
  let now = 0;
  await using host = await opened([tier], { now: () => now });
  expect([await host.hitTokens(42), await host.hitTokens(42)]).toEqual([0, 0]);
  expect(tier.counts.finds).toBe(1);
  await using other = await opened([new SharedTier(store)]);
  await save(other.session, other.pool, counting(20));
  await other.cache.flush();
  now = 5001;
  expect(await host.hitTokens(42)).toBe(20);
  expect(tier.counts.finds).toBe(2);
  // What came after the part that it has is remembered as well.
  expect(await host.hitTokens(42)).toBe(20);
  expect(tier.counts.finds).toBe(2);
});

test("a shared tier is asked only where way and reading are shorter than computing", async () => {
  const tier = new SharedTier(await storeOf(40));
  let now = 0;
  tier.beforeFind = () => {
    now += 100; // the way there
    return Promise.resolve();
  };
  await using host = await opened([tier], { now: () => now });
  const ask = (first: number, computeMsPerToken: number) =>
    host.session.lookup(bareRoot, counting(40, first), { ...wait, computeMsPerToken });
  await ask(1000, 0.01); // nothing is known of it yet
  await ask(1500, 0.01); // the first time may have been for connections
  expect(tier.counts.finds).toBe(2);
  await ask(2000, 2); // 80 ms of computing
  expect(tier.counts.finds).toBe(2);
  await ask(3000, 4); // 160
  expect(tier.counts.finds).toBe(3);
  now += 10_000;
  await ask(4000, 0.01); // it may have become faster
  expect(tier.counts.finds).toBe(4);
});

test("a tier that reads too slowly is asked again after a while, and nobody waits for its answer", async () => {
  const texts = [counting(40), counting(40, 1000), counting(40, 2000)] as const;
  const tier = new SharedTier(await storeWith(texts, options));
  let now = 0;
  tier.beforeRead = () => {
    now += 100;
    return Promise.resolve();
  };
  await using host = await opened([tier], { now: () => now });
  for (const text of texts.slice(0, 2)) expect(await loadAndVerify(host.session, host.pool, text)).toBe(40);
  expect(tier.counts.finds).toBe(2);
  const gate = gated();
  tier.beforeFind = () => gate.promise;
  now += 10_000;
  const onFound = ({ more }: Found) => expect(more).toBe(false);
  const [fast, patient] = [1, 1e6]; // 40 ms of computing and hours, against a second of reading
  for await (const _ of host.session.load(bareRoot, texts[2], 0, {
    ...wait,
    onlyReady: true,
    onFound,
    computeMsPerToken: fast,
  }));
  expect(await host.session.lookup(bareRoot, texts[2], { ...wait, computeMsPerToken: fast })).toMatchObject({
    hitTokens: 0,
  });
  expect(tier.counts.finds).toBe(4);
  gate.open();
  await expect.poll(async () => (await host.session.lookup(bareRoot, texts[2], wait)).hitTokens).toBe(40);
  now += 10_000;
  expect(
    (await host.session.lookup(bareRoot, counting(44, 2000), { ...wait, computeMsPerToken: patient })).hitTokens,
  ).toBe(40);
});

test("what a shared tier could not give is stored here when it has been computed, all of it", async () => {
  const tier = new SharedTier(await storeOf(4000));
  await using host = await opened([tier], { retryMs: 60_000 });
  expect(await host.hitTokens(4000)).toBe(4000);
  tier.beforeRead = () => Promise.reject(new Error("connection reset"));
  expect(await loadAndVerify(host.session, host.pool, counting(4000))).toBe(0);
  expect(await save(host.session, host.pool, counting(4000))).toBe(1000);
  expect(await loadAndVerify(host.session, host.pool, counting(4000))).toBe(4000);
  host.cache.check();
});

test("a lookup that asks others says at once what is here", async () => {
  const tier = new SharedTier(await storeOf(40));
  await using host = await opened([tier]);
  expect(await loadAndVerify(host.session, host.pool, counting(20))).toBe(20);
  const known: number[] = [];
  const onAsk = ({ hitTokens }: { hitTokens: number }) => known.push(hitTokens);
  const ask = async (length: number) =>
    (await host.session.lookup(bareRoot, counting(length), { ...wait, onAsk })).hitTokens;
  expect([await ask(20), known]).toEqual([20, []]);
  expect([await ask(44), known]).toEqual([40, [20]]);
  expect([await ask(44), known]).toEqual([40, [20]]); // the store has just said what it lacks
});

test("a load of what is in memory asks nobody, and says whether others may have more that is worth it", async () => {
  const tier = new SharedTier(await storeOf(40));
  let now = 0;
  tier.beforeFind = () => {
    now += 100; // the way there
    return Promise.resolve();
  };
  await using host = await opened([tier], { now: () => now });
  const more = async (text: Tokens, from = 0, computeMsPerToken?: number) => {
    const found: boolean[] = [];
    const onFound = ({ more: says }: Found) => found.push(says);
    const load = host.session.load(bareRoot, text, from, { ...wait, onlyReady: true, onFound, computeMsPerToken });
    for await (const batch of load) host.session.release(batch.map(({ lease }) => lease));
    return found;
  };
  expect(await more(counting(44))).toEqual([true]);
  expect(tier.counts.finds).toBe(0);
  expect(await host.hitTokens(44)).toBe(40);
  expect(await more(counting(44))).toEqual([false]); // it has said so
  await host.session.lookup(bareRoot, counting(44, 500), wait);
  expect(await more(counting(44, 1000), 0, 4)).toEqual([true]); // 176 ms of computing, of which 144 are left
  expect(await more(counting(44, 1000), 8, 4)).toEqual([true]);
  expect(await more(counting(44, 1000), 20, 4)).toEqual([false]);
});

test("a text that somebody is storing elsewhere is asked for until it is there, whatever was said before", async () => {
  const store = new SharedStore();
  const tier = new SharedTier(store);
  await using host = await opened([tier]);
  expect(await host.hitTokens(40)).toBe(0); // remembered
  const lookup = host.session.lookup(bareRoot, counting(40), { ...wait, awaited: true });
  await using other = await opened([new SharedTier(store)]);
  await save(other.session, other.pool, counting(40));
  await other.cache.flush();
  expect((await lookup).hitTokens).toBe(40);
  const began = performance.now();
  expect((await host.session.lookup(bareRoot, counting(42), { ...wait, awaited: true })).hitTokens).toBe(40);
  expect(performance.now() - began).toBeLessThan(wait.deadlineMs / 2); // the tail does not come
  const { finds } = tier.counts;
  const late = await host.session.lookup(bareRoot, counting(40, 1000), { deadlineMs: 150, awaited: true });
  expect(late.hitTokens).toBe(0);
  expect(tier.counts.finds - finds).toBeGreaterThan(1);
  expect(tier.counts.finds - finds).toBeLessThan(8); // at 0, 20, 60, 140 and 150 ms, or a little before
});
