/**
 * What the samples say, per target and group: counts, times, rates, reuse. Made from the result alone.
 *
 * Times are of complete answers ("ok" and "wrong"); every sample is counted. A percentile is the smallest measured value
 * that so many percent do not exceed (nearest rank): never a value that nobody saw.
 */
import type { BenchResult, Outcome, Sample } from "./result.ts";

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
  /** From sending to the first token. */
  readonly firstToken: Distribution | undefined;
  /** Between two pieces of one answer. */
  readonly gap: Distribution | undefined;
  /** From sending to the end. */
  readonly endToEnd: Distribution | undefined;
  /** While the group's requests were under way: from the first sent to the last ended, round by round. */
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

/** A line for each target's groups in the order of their first samples, and one over all where there are several. */
export function summarize(result: Pick<BenchResult, "targets" | "samples">): GroupSummary[] {
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
    return groups.length > 1 ? [...lines, summarizeGroup(label, allGroups, own)] : lines;
  });
}

/** @param values in any order. */
export function distributionOf(values: readonly number[]): Distribution | undefined {
  if (values.length === 0) return undefined;
  const sorted = Float64Array.from(values).sort();
  return {
    count: sorted.length,
    mean: sorted.reduce((sum, value) => sum + value, 0) / sorted.length,
    p50: percentile(sorted, 50),
    p90: percentile(sorted, 90),
    p99: percentile(sorted, 99),
  };
}

function summarizeGroup(target: string, group: string, samples: readonly Sample[]): GroupSummary {
  const complete = samples.filter(({ outcome }) => outcome === "ok" || outcome === "wrong");
  const checked = complete.filter((sample) => sample.checked);
  const seconds = busySeconds(complete);
  const promptTokens = sum(complete, (sample) => sample.promptTokens);
  const cachedTokens = sum(complete, (sample) => sample.cachedTokens);
  return {
    target,
    group,
    count: samples.length,
    outcomes: counted(samples.map(({ outcome }) => outcome)),
    firstToken: distributionOf(
      complete.flatMap(({ firstTokenMs, sentMs }) => (firstTokenMs === undefined ? [] : [firstTokenMs - sentMs])),
    ),
    gap: distributionOf(complete.flatMap(({ tokenMs }) => tokenMs.slice(1).map((at, index) => at - tokenMs[index]!))), // index is one behind
    endToEnd: distributionOf(complete.map(({ sentMs, endMs }) => endMs - sentMs)),
    // Where the server does not tell its usage, each piece counts as one token.
    outputTokensPerSecond: rate(
      sum(complete, (sample) => sample.completionTokens ?? sample.tokenMs.length),
      seconds,
    ),
    inputTokensPerSecond: rate(promptTokens, seconds),
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

function percentile(sorted: Float64Array, percent: number): number {
  return sorted[Math.max(0, Math.ceil((percent / 100) * sorted.length) - 1)]!; // not empty, and the rank is at most its length
}

/** Rounds alternate with those of other targets; the time between them is nobody's. */
function busySeconds(samples: readonly Sample[]): number {
  const spans = new Map<number, { from: number; to: number }>();
  for (const { round, sentMs, endMs } of samples) {
    const { from, to } = spans.get(round) ?? { from: sentMs, to: endMs };
    spans.set(round, { from: Math.min(from, sentMs), to: Math.max(to, endMs) });
  }
  return sum([...spans.values()], ({ from, to }) => to - from) / 1000;
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

function sum<T>(items: readonly T[], value: (item: T) => number | undefined): number {
  return items.reduce((total, item) => total + (value(item) ?? 0), 0);
}

function rate(amount: number, per: number): number | undefined {
  return per > 0 ? amount / per : undefined;
}
