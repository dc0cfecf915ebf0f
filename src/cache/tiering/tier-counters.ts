/**
 * What is counted of each tier below memory, by the cache, so that it means the same of all: one row each, from which the type, the
 * zeros, `tiers` of `/cache/stats`, `/metrics` (`reprise_tier_…_total`) and the docs follow. Counted from the cache's start.
 */
import type { Tier } from "../../tier.ts";
import { rowsOf, type StatisticRow } from "../counters.ts";

/** What asking a shared tier for a text came to. */
export const outcomes = {
  found: "it had some of it",
  nothing: "it had none of it",
  late: "it did not say in time",
  failed: "it could not be asked",
  remembered: "not asked: it had just said that it has none of it",
  not_worth: "not asked: computing the text is faster than asking and loading",
  busy: "not asked: it was being asked for too many others",
} as const;
export type Outcome = keyof typeof outcomes;

export const tierCounterTable = {
  lookups: {
    unit: "lookups",
    by: "outcome",
    help: "Texts that were not found whole here, by what asking a shared tier for the rest came to.",
  },
  lookupSeconds: { unit: "seconds", help: "What shared tiers took to answer lookups." },
  readChunks: { unit: "chunks", help: "Chunks read into memory." },
  readBytes: { unit: "bytes", help: "Bytes of KV read into memory." },
  readSeconds: { unit: "seconds", help: "What reads took, each by itself: several run at a time." },
  writtenChunks: { unit: "chunks", help: "Chunks written." },
  writtenBytes: { unit: "bytes", help: "Bytes of KV written." },
  writeSeconds: { unit: "seconds", help: "What writes took, each by itself: several run at a time." },
  failures: { unit: "failures", help: "Lookups, reads and writes that failed or were late." },
  refusedWrites: { unit: "chunks", help: "Chunks that a tier had no room for, or did not take." },
  corruptRecords: { unit: "records", help: "Records that were not what they should be; each is a miss." },
} as const satisfies Record<string, StatisticRow>;

type TierCounterName = keyof typeof tierCounterTable;

export type TierCounters = {
  [Name in TierCounterName]: (typeof tierCounterTable)[Name] extends { by: "outcome" }
    ? Record<Outcome, number>
    : number;
};

function newTierCounters(): TierCounters {
  const byOutcome = () => Object.fromEntries(Object.keys(outcomes).map((outcome) => [outcome, 0]));
  const zeros = rowsOf(tierCounterTable).map(([name, { by }]) => [name, by === undefined ? 0 : byOutcome()]);
  return Object.fromEntries(zeros) as TierCounters; // one for each row
}

/** The counters of all tiers. */
export class TierCounts {
  readonly #counters = new Map<Tier, TierCounters>();

  /** To count with. */
  of(tier: Tier): TierCounters {
    let counters = this.#counters.get(tier);
    if (counters === undefined) this.#counters.set(tier, (counters = newTierCounters()));
    return counters;
  }

  /** As they are now, to give away. */
  copyOf(tier: Tier): TierCounters {
    const counters = this.of(tier);
    return { ...counters, lookups: { ...counters.lookups } };
  }
}
