import { afterAll, beforeAll, expect, test } from "vitest";
import { openTestCache, temporaryFolder, testPool, testSpace } from "../../../../test/support/cache.ts";
import { backwards } from "../../../../test/support/late-tier.ts";
import { chunkTokens, loadTiny, Rig } from "../../../../test/support/scheduler-rig.ts";
import { slowed, TestClock } from "../../../../test/support/slowed-tier.ts";
import { someTokens } from "../../../../test/support/tokens.ts";
import type { Cache } from "../../../cache/cache.ts";
import type { MemoryPool } from "../../../tiers/memory.ts";
import { DiskTier } from "../../../tiers/disk/disk-tier.ts";
import type { Tier } from "../../../tier.ts";
import type { Model } from "../model/model.ts";
import type { StoredKv } from "./stored-kv.ts";

let model: Model;
beforeAll(() => {
  model = loadTiny({ family: "llama" });
});

const slotBytes = 2 ** 20;
const rigs: Rig[] = [];
afterAll(async () => {
  for (const rig of rigs) await rig.close();
});

function rigOver(cache: Cache, pool: MemoryPool): Rig {
  const session = cache.openSession({ space: testSpace({ chunkTokens }), rank: 0, slotBytes: [slotBytes] });
  const view = (offset: number, bytes: number) => pool.view(offset, bytes);
  const stored: StoredKv = {
    session,
    pool: { slot: view },
  };
  const rig = new Rig(model, { stored, computeMsPerToken: 10 });
  rigs.push(rig);
  return rig;
}

test("on a disk that is slower than the engine a prompt is computed and nothing is read", async () => {
  using folder = temporaryFolder();
  const open = () => DiskTier.open({ drives: [{ directory: folder.path, capacityBytes: 64 * slotBytes }] });
  const prompts = [someTokens(400, 78), someTokens(400, 79)];
  {
    const pool = testPool();
    await using cache = await openTestCache({ pool, tiers: [await open()] });
    const first = rigOver(cache, pool);
    for (const prompt of prompts) await first.ask(prompt);
    await first.settled();
  }
  const clock = new TestClock();
  const tier = slowed(await open(), clock, 1000);
  const pool = testPool();
  await using cache = await openTestCache({ pool, tiers: [tier], now: clock.now });
  const engine = rigOver(cache, pool);
  await cache.recovered(10_000);
  expect((await engine.ask(prompts[0]!)).report.reused).toEqual({ disk: 399 }); // nobody knows yet
  const { reads } = tier;
  expect((await engine.ask(prompts[1]!)).report).toMatchObject({ computedTokens: 400, reused: {} });
  expect(tier.reads).toBe(reads);
  expect(cache.stats()).toMatchObject({ skippedTokens: { disk: 399 } });
});

test("the first chunks are in the engine while later ones are still being read from disk", async () => {
  using folder = temporaryFolder();
  const open = () => DiskTier.open({ drives: [{ directory: folder.path, capacityBytes: 64 * slotBytes }] });
  const prompt = someTokens(400, 77);
  {
    const pool = testPool();
    await using cache = await openTestCache({ pool, tiers: [await open()] });
    const first = rigOver(cache, pool);
    await first.ask(prompt);
    await first.settled();
  }
  const disk = await open();
  let tokensInEngine = () => 0;
  let asked = 0;
  /** Read number i, in the order in which they are asked for, ends when the chunks before it are in the engine. */
  const tier: Tier = {
    ...backwards(disk, Promise.resolve()),
    async read(id, key, into, signal) {
      const before = asked * chunkTokens;
      asked += 1;
      while (tokensInEngine() < before && !signal.aborted) await new Promise((resolve) => setTimeout(resolve, 1));
      return disk.read(id, key, into, signal);
    },
  };
  const pool = testPool();
  await using cache = await openTestCache({ pool, tiers: [tier] });
  const engine = rigOver(cache, pool);
  tokensInEngine = () => Math.max(0, ...engine.contexts.map((context) => context.length(0)));
  await cache.recovered(10_000);
  const { report } = await engine.ask(prompt);
  expect(report).toMatchObject({ computedTokens: 1, reused: { disk: 399 } });
});
