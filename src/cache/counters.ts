/**
 * What the cache counts: one row each, from which the type, the zeros, `/cache/stats`, `/metrics` and the docs follow. All
 * counters run from the cache's start and never go down.
 */
import { snakeCase, type Figure } from "../figures.ts";
import type { TierName } from "../tier.ts";

/** A number among the cache's statistics. */
export interface StatisticRow {
  readonly unit: string;
  readonly help: string;
  /** One number for each of them. */
  readonly by?: "tier" | "outcome";
  /** Shown by `/cache/stats` alone. */
  readonly statsOnly?: true;
}

export const counterTable = {
  lookups: { unit: "lookups", help: "Lookups." },
  lookedUpTokens: { unit: "tokens", help: "Tokens of the texts that were looked up." },
  hitTokens: { unit: "tokens", by: "tier", help: "Tokens that lookups found, by tier." },
  loadedTokens: { unit: "tokens", by: "tier", help: "Tokens whose KV engines loaded, by tier." },
  skippedTokens: {
    unit: "tokens",
    by: "tier",
    help: "Tokens found but skipped, because computing them was faster, by tier.",
  },
  probedChunks: { unit: "chunks", help: "Chunks read only to see how fast their tier is now.", statsOnly: true },
  broughtChunks: { unit: "chunks", help: "Chunks brought into memory for the next request.", statsOnly: true },
  loadedBytes: { unit: "bytes", help: "Bytes of KV that engines loaded." },
  savedChunks: { unit: "chunks", help: "Chunks that engines saved." },
  savedBytes: { unit: "bytes", help: "Bytes of KV that engines saved." },
  evictedChunks: { unit: "chunks", help: "Chunks that left memory to make room." },
  lostChunks: { unit: "chunks", help: "Evicted chunks that no tier below had." },
  rejectedChunks: { unit: "chunks", help: "Chunks not saved because all memory was in use." },
  abandonedChunks: { unit: "chunks", help: "Chunks that were reserved but never saved.", statsOnly: true },
  corruptRecords: { unit: "records", help: "Records that did not match their checksum or key.", statsOnly: true },
  lateLoads: { unit: "loads", help: "Loads that ended early because a chunk was late." },
} as const satisfies Record<string, StatisticRow>;

type CounterName = keyof typeof counterTable;

export type Counters = {
  [Name in CounterName]: (typeof counterTable)[Name] extends { by: "tier" }
    ? Partial<Record<TierName, number>>
    : number;
};

export function newCounters(): Counters {
  const zeros = rowsOf(counterTable).map(([name, { by }]) => [name, by === undefined ? 0 : {}]);
  return Object.fromEntries(zeros) as Counters; // one for each row
}

/** The counters as they are now, to give away. */
export function copyOf(counters: Counters): Counters {
  const copies = Object.entries(counters).map(([name, value]) => [
    name,
    typeof value === "number" ? value : { ...value },
  ]);
  return Object.fromEntries(copies) as Counters; // the same names
}

export function addTokens(counter: Partial<Record<TierName, number>>, tier: TierName, tokens: number): void {
  counter[tier] = (counter[tier] ?? 0) + tokens;
}

export const counterFigures: readonly Figure<Counters>[] = rowsOf(counterTable)
  .filter(([, { statsOnly }]) => statsOnly === undefined)
  .map(([name, { help, by }]) => ({
    name: `reprise_cache_${snakeCase(name)}_total`,
    kind: "counter",
    help,
    ...(by !== undefined && { label: by }),
    read: (counters) => {
      const value = counters[name];
      return typeof value === "number" ? value : Object.entries(value);
    },
  }));

/** The rows of such a table, with their names. */
export function rowsOf<Name extends string>(table: Readonly<Record<Name, StatisticRow>>): [Name, StatisticRow][] {
  return Object.entries(table) as [Name, StatisticRow][]; // a table has no other keys
}
