import { expect, test, vi } from "vitest";
import {
  counting,
  loadAndVerify,
  openTestCache,
  slotBytes,
  testPool,
  testSpace,
  wait,
} from "../../../test/support/cache.ts";
import { SharedStore, SharedTier, unanswered } from "../../../test/support/shared-tier.ts";
import { storeWith } from "../../../test/support/stored-texts.ts";
import { temporaryDirectory } from "../../../test/support/data-directory.ts";
import { bareRoot } from "../../identity/keys.ts";
import type { Log } from "../../log.ts";
import type { Tier } from "../../tier.ts";
import { DiskTier } from "../../tiers/disk/disk-tier.ts";
import type { CacheOptions } from "../cache.ts";

const options = { space: testSpace(), rank: 0, slotBytes: [slotBytes] };

/** A log that keeps its lines of info and above. */
function keptLog(): Log & { readonly lines: string[] } {
  const lines: string[] = [];
  const keep = (message: string) => void lines.push(message);
  const log = { debug: () => {}, info: keep, warn: keep, error: keep, named: () => log, lines };
  return log;
}

async function opened(tier: Tier, more: Partial<CacheOptions> = {}) {
  const pool = testPool();
  const log = keptLog();
  const cache = await openTestCache({ pool, tiers: [tier], log, ...more });
  const session = cache.openSession(options);
  const lookup = async (from: number, computeMsPerToken?: number, length = 40) => {
    const more = computeMsPerToken === undefined ? {} : { computeMsPerToken };
    return (await session.lookup(bareRoot, counting(length, from), { ...wait, ...more })).hitTokens;
  };
  const figures = () => Object.values(cache.stats().tiers)[0]!; // one tier
  return { cache, pool, session, log, lookup, figures, [Symbol.asyncDispose]: () => cache.close() };
}

const storeOf = (tokens: number) => storeWith([counting(tokens)], options);

test("a tier that was away is found again by a probe, before anybody asks it: each change is one line of the log", async () => {
  const tier = new SharedTier(await storeOf(40));
  await using host = await opened(tier, { retryMs: 20 });
  await expect.poll(() => host.figures().state).toEqual({ is: "up", forSeconds: expect.any(Number) });
  tier.beforeFind = () => Promise.reject(new Error("connection refused"));
  tier.beforeProbe = tier.beforeFind;
  expect(await host.lookup(1000)).toBe(0);
  expect(host.figures().state).toMatchObject({ is: "away", lastError: { message: "connection refused" } });
  const probes = tier.probes;
  await expect.poll(() => tier.probes).toBeGreaterThan(probes + 2);
  expect(host.figures().state.is).toBe("away");
  expect(await host.lookup(2000)).toBe(0);
  expect(tier.counts.finds).toBe(1); // nobody has waited for it since
  tier.beforeFind = tier.beforeProbe = async () => {};
  await expect.poll(() => host.figures().state.is).toBe("up");
  expect(tier.counts.finds).toBe(1);
  expect(host.figures().state.lastError?.message).toBe("connection refused"); // what it was
  expect(host.figures()).toMatchObject({ failures: 1, lookups: { failed: 1, found: 0 } });
  expect(await host.lookup(1)).toBe(40);
  expect(host.log.lines).toEqual([
    "shared tier: connection refused; going on without it",
    expect.stringMatching(/^shared tier: used again after \d+ s$/),
  ]);
});

test("what is known to lie in a tier that is away is not waited for", async () => {
  const tier = new SharedTier(await storeOf(40));
  await using host = await opened(tier, { retryMs: 60_000 });
  expect(await host.lookup(1)).toBe(40);
  tier.beforeFind = () => Promise.reject(new Error("connection refused"));
  await host.lookup(1000); // away now
  tier.beforeRead = unanswered;
  const began = performance.now();
  expect(await loadAndVerify(host.session, host.pool, counting(40))).toBe(0);
  expect(performance.now() - began).toBeLessThan(wait.deadlineMs / 2);
  expect(tier.counts.reads).toBe(0);
  host.cache.check();
});

test("a tier that hangs while a text is loaded is found out by the first load that was late: later ones do not wait", async () => {
  const tier = new SharedTier(await storeOf(80));
  await using host = await opened(tier, { retryMs: 60_000 });
  expect(await host.lookup(1, undefined, 80)).toBe(80);
  tier.beforeRead = tier.beforeProbe = unanswered;
  const load = async (length: number, deadlineMs: number) => {
    const began = performance.now();
    const batches = host.session.load(bareRoot, counting(length), 0, { deadlineMs });
    expect(await batches.next()).toMatchObject({ done: true });
    return performance.now() - began;
  };
  const probes = tier.probes;
  await load(40, 50);
  await load(40, 50); // one that is asked is not asked twice
  await expect.poll(() => host.figures().state.is, { timeout: 5000 }).toBe("away");
  expect(tier.probes).toBe(probes + 1);
  expect(await load(80, 5000)).toBeLessThan(2500);
  expect(host.cache.stats().lateLoads).toBe(2);
  host.cache.check();
});

test("a tier that has not answered yet is not called up, and is asked; a log is up from the start", async () => {
  const tier = new SharedTier(await storeOf(40));
  let answer = () => {};
  tier.beforeProbe = () => new Promise((resolve) => (answer = resolve));
  await using host = await opened(tier);
  expect(host.figures().state).toEqual({ is: "unknown", forSeconds: expect.any(Number) });
  expect(await host.lookup(1)).toBe(40);
  answer();
  await expect.poll(() => host.figures().state.is).toBe("up");
  expect(host.log.lines).toEqual([]);
  await using disk = await opened(
    await DiskTier.open({ drives: [{ directory: temporaryDirectory(), capacityBytes: 2 ** 26 }] }),
  );
  expect(disk.figures().state.is).toBe("up");
});

test("a tier that is not there at the start is known to be away without a request", async () => {
  const refusing = new SharedTier(new SharedStore());
  let refusals = 0;
  refusing.beforeProbe = () => {
    refusals += 1;
    return refusals < 3 ? Promise.reject(new Error("it is not connected yet")) : Promise.resolve();
  };
  await using connecting = await opened(refusing, { retryMs: 5000 });
  await expect.poll(() => refusals, { timeout: 5000 }).toBe(3);
  expect(connecting.log.lines).toEqual([]); // it was only connecting

  const hanging = new SharedTier(new SharedStore());
  hanging.beforeProbe = unanswered;
  await using host = await opened(hanging, { retryMs: 60_000 });
  await expect.poll(() => host.figures().state.is, { timeout: 5000 }).toBe("away");
  expect(host.figures().failures).toBe(0); // nobody's work has failed
  expect(await host.lookup(1)).toBe(0);
  expect(hanging.counts.finds).toBe(0);
  expect(host.log.lines).toEqual([expect.stringMatching(/no answer to a lookup within 1000 ms.*going on without it/)]);
});

test("a tier from which nobody would load is slow after half a minute, and up again when one would", async () => {
  const tier = new SharedTier(await storeOf(40));
  let now = 0;
  let wayMs = 0;
  tier.beforeFind = () => {
    now += wayMs;
    return Promise.resolve();
  };
  await using host = await opened(tier, { now: () => now });
  wayMs = 800;
  await host.lookup(500, 0.01); // 328 ms of computing for a long text
  await host.lookup(1000, 0.01);
  expect(host.figures()).toMatchObject({ state: { is: "up" }, lookups: { nothing: 2 }, lookupSeconds: 1.6 });
  now += 5000;
  await host.lookup(2000, 0.01);
  expect(host.figures()).toMatchObject({ state: { is: "up" }, lookups: { not_worth: 1 } });
  now += 30_000;
  await host.lookup(3000, 0.01);
  expect(host.figures().state).toEqual({ is: "slow", forSeconds: 0.8 });
  await host.lookup(4000, 0.1); // another engine, for which 800 ms are little
  expect(host.figures().state.is).toBe("up");
  now += 10_000;
  await host.lookup(5000, 0.01);
  expect(host.figures().state.is).toBe("up"); // one would have, just now
  expect(host.log.lines).toEqual([
    "shared tier: slow: computing a text is faster than loading it from there",
    "shared tier: fast enough again",
  ]);
});

test("hits that are left because reading them is slow make a tier slow as well", async () => {
  const tier = new SharedTier(await storeOf(400));
  let now = 0;
  await using host = await opened(tier, { now: () => now });
  expect(await host.lookup(1, 1, 400)).toBe(400);
  let last: Promise<unknown> = Promise.resolve();
  tier.beforeRead = async () => {
    last = last.then(() => new Promise((resolve) => setImmediate(resolve)));
    await last; // one after the other
    now += 500; // a chunk of four tokens
  };
  expect(await loadAndVerify(host.session, host.pool, counting(4))).toBe(4);
  expect(await loadAndVerify(host.session, host.pool, counting(100))).toBe(100);
  now += 31_000;
  expect(await host.lookup(1, 1, 400)).toBe(400); // found whole: nobody is asked
  expect(host.figures().state.is).toBe("slow");
});

test("a cache that closes ends the probe that is under way", async () => {
  const tier = new SharedTier(new SharedStore());
  let ended = false;
  tier.beforeProbe = async (signal) => {
    await unanswered(signal).catch(() => {});
    ended = true;
  };
  const host = await opened(tier, { retryMs: 60_000 });
  await expect.poll(() => tier.probes).toBe(1);
  await host.cache.close();
  expect(ended).toBe(true);
  expect(host.log.lines).toEqual([]);
});

test("a closed cache probes no more", async () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  try {
    const tier = new SharedTier(new SharedStore());
    const host = await opened(tier, { retryMs: 1000 });
    tier.beforeFind = tier.beforeProbe = () => Promise.reject(new Error("connection refused"));
    await host.lookup(1000);
    await vi.advanceTimersByTimeAsync(1000);
    expect(tier.probes).toBe(2); // one at the start
    await host.cache.close();
    await vi.advanceTimersByTimeAsync(10_000);
    expect(tier.probes).toBe(2);
  } finally {
    vi.useRealTimers();
  }
});
