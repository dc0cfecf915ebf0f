/** The figures that the cache shows: its counters, and what is there now. */
import { snakeCase, type Figure } from "../figures.ts";
import type { TierName, TierStats } from "../tier.ts";
import { counterFigures, rowsOf, type Counters, type StatisticRow } from "./counters.ts";
import type { PoolStats } from "./pool/slot-pool.ts";
import type { ReadFigures } from "./tiering/read-speed.ts";
import type { WriteBehindStats } from "./tiering/write-behind.ts";

/** What is there now: a row each, as {@link counterTable} has them. */
export const levelTable = {
  spaces: { unit: "spaces", help: "Spaces that engines have opened.", statsOnly: true },
  roots: { unit: "roots", help: "Roots with chunks: combinations of space, salt and adapter.", statsOnly: true },
  chunks: { unit: "chunks", help: "Chunks in the index, placeholders included.", statsOnly: true },
  sessions: { unit: "sessions", help: "Engines that are connected, each rank counted." },
  leases: { unit: "leases", help: "Chunks that engines are reading or writing, each use counted." },
  reservedBytes: {
    unit: "bytes",
    help: "Bytes of memory that are reserved, with nothing stored in them yet.",
    statsOnly: true,
  },
  pinnedBytes: { unit: "bytes", help: "Bytes of memory that pins keep in place.", statsOnly: true },
} as const satisfies Record<string, StatisticRow>;

type Levels = Readonly<Record<keyof typeof levelTable, number>>;

export interface EngineFigures {
  readonly space: string;
  readonly prefillTokensPerSecond: number;
}

/** A plain object that JSON and msgpack carry as it is. */
export interface CacheStats extends Readonly<Counters>, Levels {
  readonly memory: PoolStats;
  readonly tiers: Partial<Record<TierName, TierStats & ReadFigures>>;
  /** Of the engines that are connected, those that say how fast they compute prompts. */
  readonly engines: readonly EngineFigures[];
  /** What is to be written below: of all tiers together, and of each. */
  readonly writeBehind: WriteBehindStats;
}

/** What tiers have in common; memory counts no corrupt records and is not timed. */
type AnyTier = Pick<TierStats, "usedBytes" | "capacityBytes"> &
  Partial<Pick<TierStats, "corruptRecords"> & ReadFigures>;

function byTier(read: (tier: AnyTier) => number | undefined): Pick<Figure<CacheStats>, "label" | "read"> {
  const all = ({ memory, tiers }: CacheStats): Record<string, AnyTier> => ({ memory, ...tiers });
  return { label: "tier", read: (stats) => Object.entries(all(stats)).map(([name, tier]) => [name, read(tier)]) };
}

const tierFigures: readonly Figure<CacheStats>[] = [
  {
    name: "reprise_cache_bytes",
    kind: "gauge",
    help: "Bytes of KV held, by tier.",
    ...byTier(({ usedBytes }) => usedBytes),
  },
  {
    name: "reprise_cache_capacity_bytes",
    kind: "gauge",
    help: "Bytes of KV that fit, by tier.",
    ...byTier(({ capacityBytes }) => capacityBytes),
  },
  {
    name: "reprise_corrupt_records_total",
    kind: "counter",
    help: "Records dropped for a wrong checksum, by tier.",
    ...byTier(({ corruptRecords }) => corruptRecords),
  },
  {
    name: "reprise_tier_read_latency_seconds",
    kind: "gauge",
    help: "How long a read takes while nothing else is read, by tier.",
    ...byTier(({ readLatencyMs }) => (readLatencyMs === undefined ? undefined : readLatencyMs / 1000)),
  },
  {
    name: "reprise_tier_read_bytes_per_second",
    kind: "gauge",
    help: "Bytes per second while many reads follow each other, by tier.",
    ...byTier(({ readBytesPerSecond }) => readBytesPerSecond),
  },
];

/** All that `/metrics` shows of a cache; a tier's own are beside the tier. */
export const cacheFigures: readonly Figure<CacheStats>[] = [
  ...tierFigures,
  {
    name: "reprise_engine_prefill_tokens_per_second",
    kind: "gauge",
    help: "Prompt tokens that an engine computes per second, by space.",
    label: "space",
    read: ({ engines }) => engines.map(({ space, prefillTokensPerSecond }) => [space, prefillTokensPerSecond] as const),
  },
  ...counterFigures,
  ...rowsOf(levelTable)
    .filter(([, { statsOnly }]) => statsOnly === undefined)
    .map(([name, { help }]): Figure<CacheStats> => {
      return { name: `reprise_cache_${snakeCase(name)}`, kind: "gauge", help, read: (stats) => stats[name] };
    }),
];
