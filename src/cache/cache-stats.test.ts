import { expect, test } from "vitest";
import { counting, openTestCache, save, slotBytes, testPool, testSpace, wait } from "../../test/support/cache.ts";
import { SharedStore, SharedTier } from "../../test/support/shared-tier.ts";
import { figureSource, type Labels } from "../figures.ts";
import { bareRoot } from "../identity/keys.ts";
import { cacheFigures, type CacheStats } from "./cache-stats.ts";

function valuesOf(stats: CacheStats): Record<string, number> {
  const values: Record<string, number> = {};
  const note = (figure: string, value: number, labels: Labels = "") =>
    (values[`${figure} ${[labels].flat().join(" ")}`] = value);
  figureSource(cacheFigures, () => stats).visit(note);
  return values;
}

test("every counter is in the statistics and, unless it says otherwise, among the figures", async () => {
  const pool = testPool();
  await using cache = await openTestCache({ pool, tiers: [new SharedTier(new SharedStore())] });
  const session = cache.openSession({ space: testSpace(), rank: 0, slotBytes: [slotBytes] });
  await save(session, pool, counting(8));
  await session.lookup(bareRoot, counting(11), { ...wait, computeMsPerToken: 0.5 });
  const stats = cache.stats();
  expect(stats).toMatchObject({
    lookups: 1,
    lookedUpTokens: 11,
    hitTokens: { memory: 8 },
    savedChunks: 2,
    sessions: 1,
  });
  stats.hitTokens.memory = 0; // it was given away
  const [tier] = Object.values(stats.tiers);
  const values = valuesOf({
    ...cache.stats(),
    skippedTokens: { disk: 7 },
    tiers: {
      disk: {
        ...tier!, // the one above
        records: 1,
        usedBytes: 3,
        capacityBytes: 4,
        corruptRecords: 2,
        readLatencyMs: 2,
        readBytesPerSecond: 1e9,
        readBytes: 5,
        readSeconds: 0.5,
        lookups: { ...tier!.lookups, found: 6, not_worth: 7 },
        state: { is: "slow", forSeconds: 1 },
        quota: { limitBytes: 8 },
      },
    },
  });
  expect(values).toMatchObject({
    "reprise_cache_lookups_total ": 1,
    "reprise_cache_looked_up_tokens_total ": 11,
    "reprise_cache_hit_tokens_total memory": 8,
    "reprise_cache_skipped_tokens_total disk": 7,
    "reprise_cache_saved_bytes_total ": 1024,
    "reprise_cache_sessions ": 1,
    "reprise_cache_bytes memory": stats.memory.usedBytes,
    "reprise_cache_bytes disk": 3,
    "reprise_cache_capacity_bytes disk": 4,
    "reprise_tier_corrupt_records_total disk": 2,
    "reprise_tier_read_bytes_total disk": 5,
    "reprise_tier_read_seconds_total disk": 0.5,
    "reprise_tier_failures_total disk": 0,
    "reprise_tier_lookups_total disk found": 6,
    "reprise_tier_lookups_total disk not_worth": 7,
    "reprise_tier_lookups_total disk late": 0,
    "reprise_tier_state disk up": 0,
    "reprise_tier_state disk slow": 1,
    "reprise_tier_state disk away": 0,
    "reprise_tier_quota_bytes disk": 8,
    "reprise_tier_read_latency_seconds disk": 0.002,
    "reprise_tier_read_bytes_per_second disk": 1e9,
    [`reprise_engine_prefill_tokens_per_second ${session.spaceId}`]: 2000,
  });
  expect(values).not.toHaveProperty("reprise_tier_corrupt_records_total memory");
  expect(values).not.toHaveProperty("reprise_tier_quota_used_bytes disk"); // it cannot tell
  expect(values).not.toHaveProperty("reprise_cache_probed_chunks_total ");
});
