/**
 * What the report's charts show, as plain numbers: `dashboard/report/charts.js` draws them in the browser and computes
 * nothing but positions on the screen.
 */
import { groupsOf, isTimed, type MetricName, throughput, valuesOf } from "../metrics.ts";
import type { BenchResult, Sample } from "../result.ts";
import { median, percentile } from "../statistics.ts";

export type Plot = SpreadPlot | CdfPlot | ScatterPlot;

interface PlotText {
  readonly title: string;
  readonly note: string;
}

/** Per named place on the x axis and target: the median, and the 10th and 90th percentile. */
export interface SpreadPlot extends PlotText {
  readonly kind: "spread";
  /** What a place is: "group" or "round". */
  readonly xLabel: string;
  readonly places: readonly string[];
  readonly yLabel: string;
  readonly series: readonly {
    readonly label: string;
    /** One per place; null where the target has nothing there. */
    readonly values: readonly ({ readonly low: number; readonly middle: number; readonly high: number } | null)[];
  }[];
}

/** Per target the share of requests that took at most x. All share the ascending `x`. */
export interface CdfPlot extends PlotText {
  readonly kind: "cdf";
  readonly xLabel: string;
  readonly x: readonly number[];
  readonly series: readonly { readonly label: string; readonly shares: readonly number[] }[];
}

/** One named point per target and group, in the groups' order. */
export interface ScatterPlot extends PlotText {
  readonly kind: "scatter";
  /** Whether the points of a series are steps of one way, and a line leads through them. */
  readonly joined: boolean;
  readonly xLabel: string;
  readonly yLabel: string;
  readonly series: readonly {
    readonly label: string;
    readonly points: readonly { readonly name: string; readonly x: number; readonly y: number }[];
  }[];
}

/** Every plot that the result has numbers for. */
export function plotsOf(result: BenchResult): Plot[] {
  const byTarget = result.targets.map(({ label }) => ({
    label,
    samples: result.samples.filter(({ target }) => target === label),
  }));
  const rounds = [...new Set(result.samples.map(({ round }) => round))].toSorted((a, b) => a - b);
  const again = spread(byTarget, {
    title: "Time to first token by round of the run",
    note: "The same work again: drift shows here.",
    xLabel: "round",
    places: rounds.map(String),
    placeOf: ({ round }) => String(round),
  });
  const plots: Plot[] = [
    spread(byTarget, {
      title: "Time to first token by group",
      note: "Median; the line spans the 10th to the 90th percentile.",
      xLabel: "group",
      places: groupsOf(result.samples),
      placeOf: ({ group }) => group,
    }),
    ...(rounds.length > 1 ? [again] : []),
    cdf(byTarget, "ttft", "Time to first token, all requests"),
    cdf(byTarget, "e2e", "End to end, all requests"),
    throughputAgainstLatency(byTarget, result.bench),
  ];
  return plots.filter((plot) => plot.series.length > 0);
}

interface TargetSamples {
  readonly label: string;
  readonly samples: readonly Sample[];
}

function spread(
  targets: readonly TargetSamples[],
  shape: PlotText & {
    readonly xLabel: string;
    readonly places: readonly string[];
    readonly placeOf: (sample: Sample) => string;
  },
): SpreadPlot {
  const { placeOf, ...text } = shape;
  const series = targets.map(({ label, samples }) => ({
    label,
    values: text.places.map((place) => {
      const values = valuesOf(
        "ttft",
        samples.filter((sample) => placeOf(sample) === place),
      );
      if (values.length === 0) return null;
      return { low: percentile(values, 0.1), middle: median(values), high: percentile(values, 0.9) };
    }),
  }));
  const measured = series.filter(({ values }) => values.some((value) => value !== null));
  return { kind: "spread", ...text, yLabel: "ms", series: measured };
}

function cdf(targets: readonly TargetSamples[], metric: MetricName, title: string): CdfPlot {
  const measured = targets.flatMap(({ label, samples }) => {
    const values = valuesOf(metric, samples);
    return values.length === 0 ? [] : [{ label, values: Float64Array.from(values).sort() }];
  });
  const steps = [...new Set(measured.flatMap(({ values }) => stepsOf(values)))].toSorted((a, b) => a - b);
  const [first, last] = [steps[0] ?? 0, steps.at(-1) ?? 0];
  // Curves rise from nothing and reach the right edge, also those of a single value.
  const x = [...(first > 0 ? [first * 0.97] : []), ...steps, ...(last > 0 ? [last * 1.03] : [])];
  const series = measured.map(({ label, values }) => {
    let passed = 0;
    const shares = x.map((limit) => {
      while (passed < values.length && values[passed]! <= limit) passed++; // passed is within
      return passed / values.length;
    });
    return { label, shares };
  });
  return {
    kind: "cdf",
    title,
    note: "Share of the answered requests that took at most so long.",
    xLabel: "ms",
    x,
    series,
  };
}

/** The values themselves, thinned evenly: a chart shows no more, and the file stays small. Both ends are kept. */
function stepsOf(sorted: Float64Array): number[] {
  const count = Math.min(sorted.length, 400);
  return Array.from(
    { length: count },
    (_, step) => sorted[Math.round((step * (sorted.length - 1)) / Math.max(1, count - 1))]!, // at most length - 1
  );
}

function throughputAgainstLatency(targets: readonly TargetSamples[], bench: string): ScatterPlot {
  const series = targets.map(({ label, samples }) => ({
    label,
    points: groupsOf(samples).flatMap((name) => {
      const group = samples.filter((sample) => sample.group === name);
      const [x, times] = [throughput(group), valuesOf("e2e", group.filter(isTimed))];
      return x === undefined || times.length === 0 ? [] : [{ name, x, y: median(times) }];
    }),
  }));
  return {
    kind: "scatter",
    joined: bench === "sweep",
    title: "Throughput against latency",
    note: "One point a group: right and low is good. Throughput counts the time from the first request to the end of the last, round by round.",
    xLabel: "output tokens/s of all requests together",
    yLabel: "end to end, median, ms",
    series: series.filter(({ points }) => points.length > 0),
  };
}
