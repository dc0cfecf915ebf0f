/**
 * What is measured of one request, by name. Tables, report and comparison all read samples through these and thereby
 * mean the same by the same word.
 *
 *     due      sent            first token   token    token   end
 *      ├─lag────┼─────ttft──────────┼───itl────┼──itl───┤      │
 *               ├───────────────────────e2e────────────────────┤
 */
import type { Sample } from "./result.ts";
import type { Centre } from "./statistics.ts";

export interface Metric {
  readonly title: string;
  readonly unit: "ms" | "tokens/s" | "share";
  /** How many requests become one number: times by their median, shares and rates by their mean. */
  readonly centre: Centre;
  /** The request's value; undefined where it has none, and does not count. */
  of(sample: Sample): number | undefined;
}

export const metricNames = ["ttft", "itl", "e2e", "tokens/s", "reused", "right"] as const;
export type MetricName = (typeof metricNames)[number];

export const metrics: Readonly<Record<MetricName, Metric>> = {
  /** From sending to the first token. */
  ttft: {
    title: "Time to first token",
    unit: "ms",
    centre: "median",
    of: (sample) =>
      isTimed(sample) && sample.firstTokenMs !== undefined ? sample.firstTokenMs - sample.sentMs : undefined,
  },
  /** One value a request: gaps of one answer depend on each other, requests do not. */
  itl: {
    title: "Mean gap between tokens",
    unit: "ms",
    centre: "median",
    of(sample) {
      const [first, last] = [sample.tokenMs[0], sample.tokenMs.at(-1)];
      if (!isTimed(sample) || first === undefined || last === undefined || sample.tokenMs.length < 2) return undefined;
      return (last - first) / (sample.tokenMs.length - 1);
    },
  },
  e2e: {
    title: "End to end",
    unit: "ms",
    centre: "median",
    of: (sample) => (isTimed(sample) ? sample.endMs - sample.sentMs : undefined),
  },
  /** Of one request, waiting for its first token included. */
  "tokens/s": {
    title: "Output tokens per second of a request",
    unit: "tokens/s",
    centre: "mean",
    of(sample) {
      const seconds = (sample.endMs - sample.sentMs) / 1000;
      if (!isTimed(sample) || sample.completionTokens === undefined || seconds === 0) return undefined;
      return sample.completionTokens / seconds;
    },
  },
  reused: {
    title: "Share of the prompt that was reused",
    unit: "share",
    centre: "mean",
    of: ({ promptTokens, cachedTokens }) =>
      promptTokens === undefined || promptTokens === 0 || cachedTokens === undefined
        ? undefined
        : cachedTokens / promptTokens,
  },
  /** An expected answer that did not come is not right, whatever the reason. */
  right: {
    title: "Share of right answers, where one was expected",
    unit: "share",
    centre: "mean",
    of: (sample) => (sample.checked ? Number(sample.outcome === "ok") : undefined),
  },
};

/** The values of all samples that have one. */
export function valuesOf(name: MetricName, samples: readonly Sample[]): number[] {
  return samples.flatMap((sample) => metrics[name].of(sample) ?? []);
}

/** Whether the request was answered to its end, so that its times say something. */
export function isTimed(sample: Sample): boolean {
  return sample.outcome === "ok" || sample.outcome === "wrong";
}

/** Groups of the samples in the order in which they first appear. */
export function groupsOf(samples: readonly Sample[]): string[] {
  return [...new Set(samples.map((sample) => sample.group))];
}

/**
 * Output tokens per second of all requests together. Where the server does not tell its usage, each piece counts as one
 * token.
 */
export function throughput(samples: readonly Sample[]): number | undefined {
  return tokensPerSecond(samples, ({ completionTokens, tokenMs }) => completionTokens ?? tokenMs.length);
}

/**
 * Tokens of the complete answers over the time from the first request sent to the last one ended, round by round: the time
 * between a target's rounds is nobody's, and what a round did not use of its time counts, as it does for users.
 */
export function tokensPerSecond(samples: readonly Sample[], tokensOf: (sample: Sample) => number): number | undefined {
  const rounds = new Map<number, { from: number; to: number }>();
  let tokens = 0;
  for (const sample of samples) {
    const { round, sentMs, endMs } = sample;
    const { from, to } = rounds.get(round) ?? { from: sentMs, to: endMs };
    rounds.set(round, { from: Math.min(from, sentMs), to: Math.max(to, endMs) });
    if (isTimed(sample)) tokens += tokensOf(sample);
  }
  const totalMs = [...rounds.values()].reduce((sum, { from, to }) => sum + to - from, 0);
  return tokens > 0 && totalMs > 0 ? (tokens * 1000) / totalMs : undefined;
}
