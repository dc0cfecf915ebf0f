/**
 * The cache's own figures for Prometheus, under `reprise serve` and `reprise cache` alike. The cache keeps them; they are
 * copied when somebody asks. A figure that the given statistics lack is left out.
 */
import { Counter, Gauge, type Registry } from "prom-client";
import * as v from "valibot";

/** @returns copies the cache's statistics (what `/cache/stats` answers) into the registry's figures. */
export function cacheFigures(registry: Registry): (stats: unknown) => void {
  const registers = [registry];
  const counter = (name: string, help: string, labelNames: string[] = []) =>
    new Counter({ name: `reprise_${name}`, help, labelNames, registers });
  const gauge = (name: string, help: string, labelNames: string[] = []) =>
    new Gauge({ name: `reprise_${name}`, help, labelNames, registers });

  const usedBytes = gauge("cache_bytes", "Bytes of KV held, by tier.", ["tier"]);
  const capacityBytes = gauge("cache_capacity_bytes", "Bytes of KV that fit, by tier.", ["tier"]);
  const corrupt = counter("corrupt_records_total", "Records dropped for a wrong checksum, by tier.", ["tier"]);
  const latency = gauge("tier_read_latency_seconds", "How long a read takes that finds the tier at rest, by tier.", [
    "tier",
  ]);
  const rate = gauge("tier_read_bytes_per_second", "How fast a tier is read, by tier.", ["tier"]);
  const prefill = gauge("engine_prefill_tokens_per_second", "Prompt tokens that an engine computes, by space.", [
    "space",
  ]);
  const disk = diskFigures(registry);
  const byTier = {
    hitTokens: counter("cache_hit_tokens_total", "Tokens that lookups found, by tier.", ["tier"]),
    leftTokens: counter("cache_left_tokens_total", "Tokens found and left, as computing them was faster, by tier.", [
      "tier",
    ]),
    loadedTokens: counter("cache_loaded_tokens_total", "Tokens whose KV engines loaded, by tier.", ["tier"]),
  };
  const sums = {
    lookups: counter("cache_lookups_total", "Lookups."),
    lookedUpTokens: counter("cache_looked_up_tokens_total", "Tokens of the texts that were looked up."),
    loadedBytes: counter("cache_loaded_bytes_total", "Bytes of KV that engines loaded."),
    savedChunks: counter("cache_saved_chunks_total", "Chunks that engines saved."),
    savedBytes: counter("cache_saved_bytes_total", "Bytes of KV that engines saved."),
    evictedChunks: counter("cache_evicted_chunks_total", "Chunks that left memory to make room."),
    lostChunks: counter("cache_lost_chunks_total", "Those of them that no tier below had."),
    rejectedChunks: counter("cache_rejected_chunks_total", "Chunks not saved because memory was in use."),
    lateLoads: counter("cache_late_loads_total", "Loads that ended early because a chunk was late."),
    tierFailures: counter("cache_tier_failures_total", "Reads and writes below memory that failed."),
  };
  const levels = {
    sessions: gauge("cache_sessions", "Engines that are connected, each rank counted."),
    leases: gauge("cache_leases", "Chunks that engines are reading or writing, each use counted."),
  };

  return (stats) => {
    const { tiers = {}, engines = [], ...figures } = v.parse(cacheStatistics, stats ?? {});
    corrupt.reset();
    disk(tiers["disk"]);
    for (const [tier, { usedBytes: used, capacityBytes: capacity, corruptRecords, ...speed }] of Object.entries(
      tiers,
    )) {
      if (speed.readLatencyMs !== undefined) latency.set({ tier }, speed.readLatencyMs / 1000);
      if (speed.readBytesPerSecond !== undefined) rate.set({ tier }, speed.readBytesPerSecond);
      if (used !== undefined) usedBytes.set({ tier }, used);
      if (capacity !== undefined) capacityBytes.set({ tier }, capacity);
      if (corruptRecords !== undefined) corrupt.inc({ tier }, corruptRecords);
    }
    prefill.reset();
    for (const { space, prefillTokensPerSecond = 0 } of engines) prefill.set({ space }, prefillTokensPerSecond);
    for (const name of Object.keys(byTier) as (keyof typeof byTier)[]) {
      byTier[name].reset();
      for (const [tier, tokens] of Object.entries(figures[name] ?? {})) byTier[name].inc({ tier }, tokens);
    }
    for (const name of Object.keys(sums) as (keyof typeof sums)[]) setSum(sums[name], figures[name] ?? 0);
    for (const name of Object.keys(levels) as (keyof typeof levels)[]) levels[name].set(figures[name] ?? 0);
  };
}

/** What only a disk has: its drives, what a start found, and the search for rot. All 0 where there is none. */
function diskFigures(registry: Registry): (disk: v.InferOutput<typeof tierFigures> | undefined) => void {
  const registers = [registry];
  const gauge = (name: string, help: string, labelNames: string[] = []) =>
    new Gauge({ name: `reprise_disk_${name}`, help, labelNames, registers });
  const counter = (name: string, help: string, labelNames: string[] = []) =>
    new Counter({ name: `reprise_disk_${name}`, help, labelNames, registers });
  const drives = gauge("drives", "Drives that take part; one that failed too often does not.");
  const recovering = gauge("recovering", "1 while what lay on the drives at the start is being read.");
  const live = gauge("live_bytes", "Bytes of records that can be read; the rest of the tier's bytes may be compacted.");
  const torn = counter("torn_records_total", "Records found at the start whose writing had not ended.");
  const scrubbed = counter("scrubbed_bytes_total", "Bytes read again in search of rot.");
  const rounds = counter("scrub_rounds_total", "How often all there was has been read again.");
  const ofDrive = {
    usedBytes: gauge("drive_bytes", "Bytes of the files on a drive, reserved room included.", ["drive"]),
    capacityBytes: gauge("drive_capacity_bytes", "Bytes that a drive may take.", ["drive"]),
  };
  const errors = counter("drive_errors_total", "Reads, writes and flushes of a drive that failed.", ["drive"]);
  return (disk) => {
    if (disk === undefined) return;
    const all = disk.drives ?? [];
    drives.set(all.filter(({ gone }) => gone !== true).length);
    recovering.set(disk.recovering === true ? 1 : 0);
    live.set(disk.liveBytes ?? 0);
    setSum(torn, disk.tornRecords ?? 0);
    setSum(scrubbed, disk.scrubbedBytes ?? 0);
    setSum(rounds, disk.scrubRounds ?? 0);
    errors.reset();
    for (const { directory: drive, errors: failed, ...figures } of all) {
      ofDrive.usedBytes.set({ drive }, figures.usedBytes ?? 0);
      ofDrive.capacityBytes.set({ drive }, figures.capacityBytes ?? 0);
      errors.inc({ drive }, failed ?? 0);
    }
  };
}

/** Copies a sum that somebody else keeps. */
export function setSum(counter: Counter, value: number, labels: Record<string, string> = {}): void {
  counter.reset();
  counter.inc(labels, value);
}

/** A figure of another kind counts as none: what a cache says of itself must not break the page of figures. */
const figure = v.fallback(v.optional(v.pipe(v.number(), v.finite(), v.minValue(0))), undefined);
const tokensByTier = v.fallback(v.optional(v.record(v.string(), v.pipe(v.number(), v.minValue(0)))), undefined);
const driveFigures = v.object({
  directory: v.string(),
  usedBytes: figure,
  capacityBytes: figure,
  errors: figure,
  gone: v.fallback(v.optional(v.boolean()), undefined),
});
const tierFigures = v.object({
  usedBytes: figure,
  capacityBytes: figure,
  corruptRecords: figure,
  readLatencyMs: figure,
  readBytesPerSecond: figure,
  tornRecords: figure,
  liveBytes: figure,
  scrubbedBytes: figure,
  scrubRounds: figure,
  recovering: v.fallback(v.optional(v.boolean()), undefined),
  drives: v.fallback(v.optional(v.array(driveFigures)), undefined),
});
const engineFigures = v.object({ space: v.string(), prefillTokensPerSecond: figure });
const cacheStatistics = v.fallback(
  v.object({
    tiers: v.fallback(v.optional(v.record(v.string(), tierFigures)), undefined),
    engines: v.fallback(v.optional(v.array(engineFigures)), undefined),
    hitTokens: tokensByTier,
    leftTokens: tokensByTier,
    loadedTokens: tokensByTier,
    lookups: figure,
    lookedUpTokens: figure,
    loadedBytes: figure,
    savedChunks: figure,
    savedBytes: figure,
    evictedChunks: figure,
    lostChunks: figure,
    rejectedChunks: figure,
    lateLoads: figure,
    tierFailures: figure,
    sessions: figure,
    leases: figure,
  }),
  {},
);
