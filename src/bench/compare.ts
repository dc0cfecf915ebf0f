/**
 * Two benchmark runs beside each other: per group and metric the ratio B/A, and how sure it is. A run that got worse fails
 * a build: by `--max-ratio` where less is better, by `--min-ratio` where more is.
 */
import { RepriseError } from "../errors.ts";
import { groupsOf, type MetricName, metricNames, metrics, valuesOf } from "./metrics.ts";
import type { BenchResult, Sample } from "./result.ts";
import { bootstrapRatio, mean, median, type RatioInterval } from "./statistics.ts";

interface Measured {
  /** `a` or `a → b`, where the targets are called differently. */
  readonly target: string;
  readonly group: string;
  readonly metric: MetricName;
}

/** One group and metric that both runs measured. */
export interface ComparedMetric extends Measured, RatioInterval {
  /** Median or mean of each run, as the metric says, and how many requests it is of. */
  readonly a: number;
  readonly b: number;
  readonly countA: number;
  readonly countB: number;
}

export interface Comparison {
  readonly rows: readonly ComparedMetric[];
  /** What A measured and B did not, in the targets that are paired: no request was answered, or none was sent. */
  readonly lost: readonly Measured[];
  /** What differs between the runs beside the code, and what only one of them has; a reader must know it. */
  readonly notes: readonly string[];
}

/**
 * Pairs targets by their labels, or the only target of A with the only target of B, and groups by their names.
 *
 * @throws RepriseError BAD_REQUEST when the runs have nothing in common.
 */
export function compare(a: BenchResult, b: BenchResult): Comparison {
  const rows: ComparedMetric[] = [];
  const lost: Measured[] = [];
  const notes = differences(a, b);
  for (const [labelA, labelB] of pairTargets(a, b)) {
    const [samplesA, samplesB] = [samplesOf(a, labelA), samplesOf(b, labelB)];
    const target = labelA === labelB ? labelA : `${labelA} → ${labelB}`;
    const [groupsA, groupsB] = [groupsOf(samplesA), groupsOf(samplesB)];
    const alone = [
      ...groupsA.filter((group) => !groupsB.includes(group)),
      ...groupsB.filter((group) => !groupsA.includes(group)),
    ];
    if (alone.length > 0) notes.push(`${target}: only one run has ${alone.map((group) => `"${group}"`).join(", ")}`);
    for (const group of groupsA) {
      const inGroup = (sample: Sample) => sample.group === group;
      const [inA, inB] = [samplesA.filter(inGroup), samplesB.filter(inGroup)];
      for (const metric of metricNames) {
        const [valuesA, valuesB] = [valuesOf(metric, inA), valuesOf(metric, inB)];
        if (valuesA.length === 0) continue;
        if (valuesB.length === 0) lost.push({ target, group, metric });
        else rows.push(compareValues({ target, group, metric }, valuesA, valuesB));
      }
    }
  }
  if (rows.length === 0)
    throw new RepriseError("BAD_REQUEST", "The runs share no target and group that both measured.");
  return { rows, lost, notes };
}

/** What each ratio may at most, or must at least, be. */
export interface Limits {
  readonly max: ReadonlyMap<MetricName, number>;
  readonly min: ReadonlyMap<MetricName, number>;
}

/**
 * Parses the texts `METRIC=LIMIT` of `--max-ratio` and `--min-ratio`, each metric once per flag.
 *
 * @throws RepriseError BAD_REQUEST listing every fault.
 */
export function parseLimits(typed: { readonly max: readonly string[]; readonly min: readonly string[] }): Limits {
  const faults: string[] = [];
  const limits = {
    max: parseRatios("--max-ratio", typed.max, faults),
    min: parseRatios("--min-ratio", typed.min, faults),
  };
  if (faults.length > 0) throw new RepriseError("BAD_REQUEST", faults.join("\n"));
  return limits;
}

function parseRatios(flag: string, texts: readonly string[], faults: string[]): ReadonlyMap<MetricName, number> {
  const limits = new Map<MetricName, number>();
  for (const text of texts) {
    const [, name = "", limit = ""] = /^(.+)=(\d+(?:\.\d+)?)$/.exec(text) ?? [];
    const metric = metricNames.find((known) => known === name);
    if (name === "") faults.push(`${flag} "${text}" is not METRIC=NUMBER, such as ttft=1.1`);
    else if (metric === undefined) faults.push(`${flag} "${name}" is no metric; there are ${metricNames.join(", ")}`);
    else if (limits.has(metric)) faults.push(`${flag} ${metric} has two limits`);
    else limits.set(metric, Number(limit));
  }
  return limits;
}

/** A ratio outside of its limits. */
export interface Breach extends ComparedMetric {
  readonly side: "above" | "below";
  readonly limit: number;
}

/**
 * The rows whose ratio itself, not its interval, is outside of the limits of their metric.
 *
 * @throws RepriseError BAD_REQUEST when a limit is on what no group measured: such a gate would always be open.
 */
export function breaches(comparison: Comparison, { max, min }: Limits): Breach[] {
  for (const [flag, limits] of [
    ["--max-ratio", max],
    ["--min-ratio", min],
  ] as const) {
    for (const metric of limits.keys()) {
      if (comparison.rows.every((row) => row.metric !== metric || Number.isNaN(row.ratio))) {
        throw new RepriseError("BAD_REQUEST", `${flag} ${metric}: the runs have no ratio of it in common.`);
      }
    }
  }
  return comparison.rows.flatMap((row): Breach[] => {
    const [most, least] = [max.get(row.metric) ?? Infinity, min.get(row.metric) ?? 0];
    if (row.ratio > most) return [{ ...row, side: "above", limit: most }];
    return row.ratio < least ? [{ ...row, side: "below", limit: least }] : [];
  });
}

function compareValues(measured: Measured, a: readonly number[], b: readonly number[]): ComparedMetric {
  const { centre } = metrics[measured.metric];
  const centreOf = centre === "median" ? median : mean;
  const interval = bootstrapRatio(a, b, { centre, seed: bootstrapSeed });
  return { ...measured, a: centreOf(a), b: centreOf(b), countA: a.length, countB: b.length, ...interval };
}

/** Fixed: the same two files always print the same table. */
const bootstrapSeed = 1;

function pairTargets(a: BenchResult, b: BenchResult): (readonly [string, string])[] {
  const [onlyA, onlyB] = [a.targets[0], b.targets[0]];
  if (a.targets.length === 1 && b.targets.length === 1 && onlyA !== undefined && onlyB !== undefined) {
    return [[onlyA.label, onlyB.label]];
  }
  return a.targets
    .filter(({ label }) => b.targets.some((target) => target.label === label))
    .map(({ label }) => [label, label]);
}

function samplesOf(result: BenchResult, label: string): Sample[] {
  return result.samples.filter(({ target }) => target === label);
}

/** Only the code should differ between two runs; whatever else does is said. */
function differences(a: BenchResult, b: BenchResult): string[] {
  const facts = (result: BenchResult) => ({
    bench: result.bench,
    machine: result.machine,
    seed: String(result.seed),
    "warm-up": result.warmUp,
    models: [...new Set(result.targets.map(({ model }) => model))].join(", "),
    options: JSON.stringify(Object.entries(result.options).toSorted(([left], [right]) => (left < right ? -1 : 1))),
  });
  const ofB: Readonly<Record<string, string>> = facts(b);
  return Object.entries(facts(a)).flatMap(([name, value]) =>
    ofB[name] === value ? [] : [`${name} differs: ${value} | ${ofB[name]}`],
  );
}
