/** The figures that the cache shows: its counters, and what is there now. */
import { snakeCase, type Figure } from "../figures.ts";
import type { TierName, TierStats } from "../tier.ts";
import { counterFigures, rowsOf, type Counters, type StatisticRow } from "./counters.ts";
import type { PoolStats } from "./pool/slot-pool.ts";
import type { ReadFigures } from "./tiering/read-speed.ts";
import { tierCounterTable, type TierCounters } from "./tiering/tier-counters.ts";
import { stateNames, type TierState } from "./tiering/tier-states.ts";
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

/** What is known of a tier below memory: by itself, and by the cache. */
export interface TierFigures extends Omit<TierStats, "corruptRecords">, TierCounters, ReadFigures {
  readonly state: TierState;
}

/** A plain object that JSON and msgpack carry as it is. */
export interface CacheStats extends Readonly<Counters>, Levels {
  readonly memory: PoolStats;
  readonly tiers: Partial<Record<TierName, TierFigures>>;
  /** Of the engines that are connected, those that say how fast they compute prompts. */
  readonly engines: readonly EngineFigures[];
  /** What is to be written below: of all tiers together, and of each. */
  readonly writeBehind: WriteBehindStats;
}

type HeldFigures = Pick<TierStats, "usedBytes" | "capacityBytes">;

/** Memory among them. */
function byHolder(read: (tier: HeldFigures) => number): Pick<Figure<CacheStats>, "label" | "read"> {
  const all = ({ memory, tiers }: CacheStats): Record<string, HeldFigures> => ({ memory, ...tiers });
  return { label: "tier", read: (stats) => Object.entries(all(stats)).map(([name, tier]) => [name, read(tier)]) };
}

function byTier(read: (tier: TierFigures) => number | undefined): Pick<Figure<CacheStats>, "label" | "read"> {
  return { label: "tier", read: ({ tiers }) => Object.entries(tiers).map(([name, tier]) => [name, read(tier)]) };
}

/** Two labels: the tier, and what tells its values apart. */
function byTierAnd(
  label: string,
  read: (tier: TierFigures) => Readonly<Record<string, number>>,
): Pick<Figure<CacheStats>, "label" | "read"> {
  return {
    label: ["tier", label],
    read: ({ tiers }) =>
      Object.entries(tiers).flatMap(([name, tier]) =>
        Object.entries(read(tier)).map(([each, value]) => [[name, each], value] as const),
      ),
  };
}

const tierFigures: readonly Figure<CacheStats>[] = [
  {
    name: "reprise_cache_bytes",
    kind: "gauge",
    help: "Bytes of KV held, by tier.",
    ...byHolder(({ usedBytes }) => usedBytes),
  },
  {
    name: "reprise_cache_capacity_bytes",
    kind: "gauge",
    help: "Bytes of KV that fit, by tier.",
    ...byHolder(({ capacityBytes }) => capacityBytes),
  },
  {
    name: "reprise_tier_state",
    kind: "gauge",
    help: "1 for the state that a tier is in: unknown (it has not answered yet), up, slow (computing is faster than loading from it), or away.",
    ...byTierAnd("state", ({ state }) =>
      Object.fromEntries(stateNames.map((name) => [name, name === state.is ? 1 : 0])),
    ),
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
  {
    name: "reprise_tier_quota_bytes",
    kind: "gauge",
    help: "Bytes that hosts may keep in a tier together, by tier.",
    ...byTier(({ quota }) => quota?.limitBytes),
  },
  {
    name: "reprise_tier_quota_used_bytes",
    kind: "gauge",
    help: "Bytes that hosts keep there together, as far as the tier can tell, by tier.",
    ...byTier(({ quota }) => quota?.usedBytes),
  },
];

const tierCounterFigures = rowsOf(tierCounterTable).map(([name, { help, by }]): Figure<CacheStats> => {
  const figure = { name: `reprise_tier_${snakeCase(name)}_total`, kind: "counter" as const, help };
  return by === undefined
    ? { ...figure, ...byTier((tier) => tier[name] as number) } // what it is where nothing tells values apart
    : { ...figure, ...byTierAnd(by, (tier) => tier[name] as Record<string, number>) };
});

/** All that `/metrics` shows of a cache; a tier's own are beside the tier. */
export const cacheFigures: readonly Figure<CacheStats>[] = [
  ...tierFigures,
  ...tierCounterFigures,
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
