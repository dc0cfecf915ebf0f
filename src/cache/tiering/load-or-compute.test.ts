import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import {
  counting,
  openTestCache,
  save,
  temporaryFolder,
  testPool,
  testSpace,
  wait,
  prefix,
} from "../../../test/support/cache.ts";
import { gated } from "../../../test/support/late-tier.ts";
import { slowed, TestClock, type SlowedTier } from "../../../test/support/slowed-tier.ts";
import { DiskTier } from "../../tiers/disk/disk-tier.ts";
import type { Cache } from "../cache.ts";
import { bareRoot } from "../../identity/keys.ts";
import { type Tokens } from "../../identity/tokens.ts";
import { LoadOrCompute } from "./load-or-compute.ts";
import type { CacheSession } from "../../session.ts";

const chunkBytes = 2 ** 18;
/** 40 tokens, ten chunks: of these a text is on disk. */
const length = 40;
const options = { space: testSpace(), rank: 0, slotBytes: [chunkBytes] };
/** An engine for which a text is 40 ms, and one for which it is 400 s. */
const fast = 1;
const slow = 10_000;

interface Stage {
  readonly cache: Cache;
  readonly session: CacheSession;
  readonly tier: SlowedTier;
  readonly clock: TestClock;
}

/** A cache with `texts` on disk and none in memory, on a disk whose reads take `msPerRead`. */
async function onDisk(texts: number, msPerRead: number, play: (stage: Stage) => Promise<void>): Promise<void> {
  using folder = temporaryFolder();
  const open = () => DiskTier.open({ drives: [{ directory: folder.path, capacityBytes: 512 * chunkBytes }] });
  {
    const pool = testPool(512 * chunkBytes);
    await using cache = await openTestCache({ pool, tiers: [await open()] });
    const session = cache.openSession(options);
    for (let i = 0; i < texts; i += 1) await save(session, pool, textOf(i), { bytes: chunkBytes });
  }
  const clock = new TestClock();
  const tier = slowed(await open(), clock, msPerRead);
  await using cache = await openTestCache({ pool: testPool(512 * chunkBytes), tiers: [tier], now: clock.now });
  const session = cache.openSession(options);
  await cache.recovered(10_000);
  await play({ cache, session, tier, clock });
}

function textOf(number: number): Tokens {
  return counting(length, 1 + 1000 * number);
}

/** A request as a guest makes it: asks how much is worth it, and loads that. @returns tokens loaded */
async function ask({ session }: Stage, tokens: Tokens, computeMsPerToken: number): Promise<number> {
  const { worthTokens } = await session.lookup(bareRoot, tokens, { ...wait, computeMsPerToken });
  return load(session, tokens.subarray(0, worthTokens));
}

/** Texts 0 and 1 are read, whatever that takes: it is known then, and with the first alone it would not be believed. */
async function readTwo({ session }: Stage): Promise<void> {
  for (const number of [0, 1]) expect(await load(session, textOf(number))).toBe(length);
}

async function load(session: CacheSession, tokens: Tokens, computeMsPerToken?: number): Promise<number> {
  let loaded = 0;
  for await (const batch of session.load(bareRoot, tokens, 0, { ...wait, computeMsPerToken })) {
    loaded += batch.reduce((sum, { take }) => sum + take, 0);
    session.release(batch.map(({ lease }) => lease));
  }
  return loaded;
}

test("a disk that nobody has read from is tried, and what was read is known", async () => {
  await onDisk(1, 5, async (stage) => {
    expect(stage.cache.stats().tiers.disk).not.toHaveProperty("readLatencyMs");
    expect(await ask(stage, textOf(0), fast)).toBe(length);
    const { readLatencyMs, readBytesPerSecond } = stage.cache.stats().tiers.disk!;
    expect(readLatencyMs).toBeGreaterThanOrEqual(5);
    expect(readBytesPerSecond).toBeCloseTo((1000 / 5) * chunkBytes, -6);
    expect(stage.cache.stats().engines).toEqual([{ space: stage.session.spaceId, prefillTokensPerSecond: 1000 }]);
  });
});

test("on a slow disk a fast engine computes and nothing is read; a slow engine loads", async () => {
  await onDisk(4, 50, async (stage) => {
    await readTwo(stage);
    const { reads } = stage.tier;
    expect(await ask(stage, textOf(2), fast)).toBe(0);
    expect(await load(stage.session, textOf(2), fast)).toBe(0);
    await stage.cache.flush();
    expect(stage.tier.reads).toBe(reads);
    expect(stage.cache.stats()).toMatchObject({ skippedTokens: { disk: 2 * length }, probedChunks: 0 });
    expect(await ask(stage, textOf(2), slow)).toBe(length);
    expect(await load(stage.session, textOf(3))).toBe(length); // who does not say what computing costs gets all
  });
});

test("on a fast disk both load", async () => {
  await onDisk(3, 0.5, async (stage) => {
    for (const [i, cost] of [fast, fast, slow].entries()) expect(await ask(stage, textOf(i), cost)).toBe(length);
    expect(stage.cache.stats().skippedTokens).toEqual({});
  });
});

test("a load that turns out slower than computing ends, with what has come", async () => {
  await onDisk(3, 0.5, async (stage) => {
    const { session, cache, tier, clock } = stage;
    await readTwo(stage);
    const read = tier.read.bind(tier);
    const gate = gated();
    let reads = 0;
    tier.read = async (id, key, into, signal) => {
      if ((reads += 1) > 3) await gate.promise;
      return read(id, key, into, signal);
    };
    const loading = load(session, textOf(2), fast);
    await expect.poll(() => reads).toBe(10);
    clock.ms += 20; // of the 28 ms that the rest takes to be computed
    await sleep(150);
    expect(cache.stats().skippedTokens).toEqual({});
    clock.ms += 40;
    expect(await loading).toBe(12);
    expect(cache.stats()).toMatchObject({ skippedTokens: { disk: 28 }, lateLoads: 0, leases: 0 });
    gate.open();
    await cache.flush();
    expect(await load(session, textOf(2), slow)).toBe(length);
    cache.check();
  });
});

test("what is in memory is loaded whatever lies behind it, and a hit is left where it goes on below", async () => {
  await onDisk(3, 50, async (stage) => {
    await readTwo(stage);
    await load(stage.session, textOf(2).subarray(0, 12));
    expect(await stage.session.lookup(bareRoot, textOf(2), { ...wait, computeMsPerToken: fast })).toEqual({
      hitTokens: 40,
      segments: prefix([12, "memory"], [28, "disk"]),
      worthTokens: 12,
    });
    expect(await load(stage.session, textOf(2), fast)).toBe(12);
  });
});

test("a disk that becomes slow is left within a few requests, and used again soon after it is fast again", async () => {
  await onDisk(30, 0.5, async (stage) => {
    let text = 0;
    const next = () => ask(stage, textOf(text++), fast);
    for (let i = 0; i < 5; i += 1) expect(await next()).toBe(length);

    stage.tier.msPerRead = 50;
    let burnt = 0;
    while (burnt < 10 && (await next()) > 0) burnt += 1;
    expect(burnt).toBeLessThanOrEqual(4); // in which order threads end, differs

    // For as long as it is slow it stays left, though it is looked at every ten seconds.
    for (let i = 0; i < 4; i += 1) {
      stage.clock.ms += 6000;
      expect(await next()).toBe(0);
      await settled(stage);
    }
    expect(stage.cache.stats().probedChunks).toBeGreaterThan(0);
    expect(stage.cache.stats().probedChunks).toBeLessThanOrEqual(2 * 10);

    stage.tier.msPerRead = 0.5;
    let left = 0;
    for (; left < 10; left += 1) {
      stage.clock.ms += 6000;
      if ((await next()) > 0) break;
      await settled(stage);
    }
    expect(left).toBeLessThanOrEqual(5);
  });
});

test("a text that was computed although it is stored is in memory for the third request", async () => {
  await onDisk(4, 50, async (stage) => {
    const { session, cache } = stage;
    await readTwo(stage);
    const { reads } = stage.tier;
    /** As an engine does: computes what it was not given, and offers it to the cache. */
    const serve = async (tokens: Tokens) => {
      const loaded = await ask(stage, tokens, fast);
      const { parts } = await session.reserve(bareRoot, tokens, wait);
      expect(parts).toEqual([]);
      return loaded;
    };
    expect(await serve(textOf(2))).toBe(0);
    expect(await ask(stage, textOf(3), fast)).toBe(0); // another text
    await settled(stage);
    expect(stage.tier.reads).toBe(reads);

    expect(await serve(textOf(2))).toBe(0);
    await settled(stage);
    expect(cache.stats().broughtChunks).toBe(10);
    expect(await serve(textOf(2))).toBe(length);
    expect(cache.stats().loadedTokens).toMatchObject({ memory: length });
    cache.check();
  });
});

/** Until the reads in the background are over, and no other follows: each moves the clock. */
async function settled({ tier }: Stage): Promise<void> {
  for (let before = -1; before !== tier.reads || tier.underWay > 0;) {
    before = tier.reads;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

test("a hit is weighed as a whole: memory hits behind it count for it", () => {
  const clock = new TestClock();
  const gate = new LoadOrCompute(clock.now);
  for (let i = 0; i < 10; i += 1) {
    const ended = gate.speed("disk").begin(1000);
    clock.ms += 100;
    ended("read");
  }
  const short = gate.weigh(1, 1e6);
  const add = (tokens: number, tier: "memory" | "disk", bytes: number) => {
    short.add(tokens, tier, bytes);
    short.mayEnd("memory", 0);
  };
  add(50, "memory", 0);
  add(50, "disk", 1000);
  expect(short.worthTokens).toBe(50);
  add(100, "memory", 0);
  expect(short.worthTokens).toBe(200);
  // A snapshot counts only where loading ends at it.
  const other = gate.weigh(1, 1e6);
  other.add(300, "memory", 0);
  other.mayEnd("memory", 0);
  other.add(10, "memory", 0);
  other.mayEnd("disk", 1000);
  expect(other.worthTokens).toBe(300);
  other.add(10, "memory", 0);
  other.mayEnd("memory", 0);
  expect(other.worthTokens).toBe(320);
});

test("reads that end in the same moment, after a stretch was cut, are no fast disk", () => {
  const clock = new TestClock();
  const speed = new LoadOrCompute(clock.now).speed("disk");
  const [first, ...others] = Array.from({ length: 8 }, () => speed.begin(1000));
  clock.ms += 100;
  first!("read");
  clock.ms += 700;
  for (const ended of others) ended("read");
  expect(speed.figures().readBytesPerSecond).toBeLessThan(20_000);
});

test("a load that begins beside others expects its share of the disk", () => {
  const clock = new TestClock();
  const speed = new LoadOrCompute(clock.now).speed("disk");
  const stream = () => {
    const reads = Array.from({ length: 8 }, () => speed.begin(1000));
    for (const ended of reads) {
      clock.ms += 100;
      ended("read");
    }
  };
  for (let i = 0; i < 10; i += 1) stream();
  expect(speed.expectedMs(100_000, 8000)).toBeCloseTo(10_000, -3);
  const others = Array.from({ length: 8 }, () => speed.begin(1000));
  expect(speed.expectedMs(100_000, 8000)).toBeCloseTo(20_000, -3);
  expect(speed.expectedMs(1000, 8000)).toBeCloseTo(900, -2);
  for (const ended of others) ended("failed");
  expect(speed.expectedMs(1000, 8000)).toBeCloseTo(100, -1);
});

test("reads that failed teach nothing", () => {
  const clock = new TestClock();
  const speed = new LoadOrCompute(clock.now).speed("disk");
  const ended = speed.begin(1000);
  clock.ms += 5000;
  ended("failed");
  expect(speed.figures()).toEqual({});
});

test("reads of one chunk at a time do not make the disk look slow for many", () => {
  const clock = new TestClock();
  const speed = new LoadOrCompute(clock.now).speed("disk");
  const reads = Array.from({ length: 16 }, () => speed.begin(2 ** 20));
  clock.ms += 16;
  for (const ended of reads) ended("read");
  const before = speed.figures().readBytesPerSecond!;
  for (let i = 0; i < 50; i += 1) {
    const ended = speed.begin(4096);
    clock.ms += 5;
    ended("read");
  }
  expect(speed.figures().readBytesPerSecond).toBe(before);
});

test("a few bytes after a rest that come faster than the many before them say nothing", () => {
  const clock = new TestClock();
  const speed = new LoadOrCompute(clock.now).speed("valkey");
  const read = (bytes: number, ms: number) => {
    const ended = speed.begin(bytes);
    clock.ms += ms;
    ended("read");
  };
  for (let i = 0; i < 3; i += 1) read(1000, 50); // the way
  read(10_000_000, 4000);
  expect(speed.figures().readBytesPerSecond).toBe(2_500_000);
  clock.ms += 20_000;
  read(400_000, 49);
  expect(speed.figures().readBytesPerSecond).toBe(2_500_000);
  read(10_000_000, 100);
  expect(speed.figures().readBytesPerSecond).toBeGreaterThan(10_000_000);
});

test("what a tier took the first time, connections included, turns nobody away alone", () => {
  const clock = new TestClock();
  const both = new LoadOrCompute(clock.now);
  const read = (ms: number) => {
    const ended = both.speed("peer").begin(1000);
    clock.ms += ms;
    ended("read");
  };
  const worth = () => both.worthAsking("peer", { tokens: 1000, computeMsPerToken: 0.1, bytesPerToken: 1 }); // 100 ms
  both.noteAsked("peer", 500);
  read(500);
  expect(worth()).toBe("ask");
  expect(both.speed("peer").expectedMs(1000, 1000)).toBe(0);
  both.noteAsked("peer", 10);
  read(10);
  expect(worth()).toBe("ask");
  expect(both.speed("peer").expectedMs(1000, 1000)).toBeCloseTo(10);
  for (let i = 0; i < 3; i += 1) both.noteAsked("peer", 500);
  expect(worth()).toBe("leave");
  clock.ms += 10_000; // what reading takes alone is short enough
  expect(worth()).toBe("ask");
  for (let i = 0; i < 3; i += 1) read(500);
  expect(worth()).toBe("ask_unheard");
});
