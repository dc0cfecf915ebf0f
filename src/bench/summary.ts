/**
 * What the samples say, per target and group: counts, times, rates, reuse. Made from the result alone.
 *
 * Times are of complete answers ("ok" and "wrong"); every sample is counted.
 */
import { isTimed, throughput, tokensPerSecond } from "./metrics.ts";
import type { BenchResult, Outcome, Sample } from "./result.ts";
import { mean, percentileOfSorted } from "./statistics.ts";

/** Milliseconds, or undefined where nothing was measured. */
export interface Distribution {
  readonly count: number;
  readonly mean: number;
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
}

export interface GroupSummary {
  readonly target: string;
  /** A group of the workload, or `allGroups`. */
  readonly group: string;
  readonly count: number;
  readonly outcomes: Readonly<Partial<Record<Outcome, number>>>;
  /** The first words of the server, or of its silence, for each way in which requests did not end well. */
  readonly errors: Readonly<Partial<Record<Outcome, string>>>;
  /** From sending to the first token. */
  readonly firstToken: Distribution | undefined;
  /** Between two pieces of one answer. */
  readonly gap: Distribution | undefined;
  /** From sending to the end. */
  readonly endToEnd: Distribution | undefined;
  /** From the first request sent to the last ended, round by round. */
  readonly outputTokensPerSecond: number | undefined;
  readonly inputTokensPerSecond: number | undefined;
  readonly promptTokens: number;
  readonly cachedTokens: number;
  /** cachedTokens / promptTokens. */
  readonly cachedShare: number | undefined;
  readonly reused: Readonly<Record<string, number>>;
  /** Of the complete answers that have an expected one. */
  readonly rightShare: number | undefined;
  /** From due to sent, at the 99th percentile: the client's own. */
  readonly clientLagP99Ms: number;
}

/** The name of the line that sums up a target. */
export const allGroups = "all";

/** Whether a line over all groups says something: not where each group is another load, or another state of the cache. */
export function hasTotal({ bench }: Pick<BenchResult, "bench">): boolean {
  return bench !== "sweep" && bench !== "first-light";
}

/** A line for each target's groups in the order of their first samples, and one over all where there are several. */
export function summarize(result: Pick<BenchResult, "bench" | "targets" | "samples">): GroupSummary[] {
  return result.targets.flatMap(({ label }) => {
    const own = result.samples.filter(({ target }) => target === label).sort((a, b) => a.dueMs - b.dueMs);
    const groups = [...new Set(own.map(({ group }) => group))];
    const lines = groups.map((group) =>
      summarizeGroup(
        label,
        group,
        own.filter((sample) => sample.group === group),
      ),
    );
    return groups.length > 1 && hasTotal(result) ? [...lines, summarizeGroup(label, allGroups, own)] : lines;
  });
}

/** @param values in any order. */
export function distributionOf(values: readonly number[]): Distribution | undefined {
  if (values.length === 0) return undefined;
  const sorted = Float64Array.from(values).sort();
  return {
    count: sorted.length,
    mean: mean(values),
    p50: percentileOfSorted(sorted, 0.5),
    p90: percentileOfSorted(sorted, 0.9),
    p99: percentileOfSorted(sorted, 0.99),
  };
}

function summarizeGroup(target: string, group: string, samples: readonly Sample[]): GroupSummary {
  const complete = samples.filter(isTimed);
  const checked = complete.filter((sample) => sample.checked);
  const promptTokens = sum(complete, (sample) => sample.promptTokens);
  const cachedTokens = sum(complete, (sample) => sample.cachedTokens);
  return {
    target,
    group,
    count: samples.length,
    outcomes: counted(samples.map(({ outcome }) => outcome)),
    errors: firstErrors(samples),
    firstToken: distributionOf(
      complete.flatMap(({ firstTokenMs, sentMs }) => (firstTokenMs === undefined ? [] : [firstTokenMs - sentMs])),
    ),
    gap: distributionOf(complete.flatMap(({ tokenMs }) => tokenMs.slice(1).map((at, index) => at - tokenMs[index]!))), // index is one behind
    endToEnd: distributionOf(complete.map(({ sentMs, endMs }) => endMs - sentMs)),
    outputTokensPerSecond: throughput(samples),
    inputTokensPerSecond: tokensPerSecond(samples, (sample) => sample.promptTokens ?? 0),
    promptTokens,
    cachedTokens,
    cachedShare: rate(cachedTokens, promptTokens),
    reused: reusedByTier(complete),
    rightShare: rate(
      sum(checked, ({ outcome }) => (outcome === "ok" ? 1 : 0)),
      checked.length,
    ),
    clientLagP99Ms: distributionOf(samples.map(({ dueMs, sentMs }) => sentMs - dueMs))?.p99 ?? 0,
  };
}

function reusedByTier(samples: readonly Sample[]): Record<string, number> {
  const total: Record<string, number> = {};
  for (const { reused } of samples) {
    for (const [tier, tokens] of Object.entries(reused ?? {})) total[tier] = (total[tier] ?? 0) + tokens;
  }
  return total;
}

function counted(outcomes: readonly Outcome[]): Partial<Record<Outcome, number>> {
  const counts: Partial<Record<Outcome, number>> = {};
  for (const outcome of outcomes) counts[outcome] = (counts[outcome] ?? 0) + 1;
  return counts;
}

function firstErrors(samples: readonly Sample[]): Partial<Record<Outcome, string>> {
  const errors: Partial<Record<Outcome, string>> = {};
  for (const { outcome, error } of samples) if (error !== undefined) errors[outcome] ??= error;
  return errors;
}

function sum<T>(items: readonly T[], value: (item: T) => number | undefined): number {
  return items.reduce((total, item) => total + (value(item) ?? 0), 0);
}

function rate(amount: number, per: number): number | undefined {
  return per > 0 ? amount / per : undefined;
}
