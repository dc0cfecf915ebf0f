import { expect, test } from "vitest";
import { sampleResult } from "../../../test/support/bench-result.ts";
import type { BenchResult, Sample } from "../result.ts";
import { errorBars, reuseBars } from "./bars.ts";
import { type Plot, plotsOf } from "./plots.ts";

test("a CDF counts what took at most x, from none to all", () => {
  const plot = plotOf("cdf", resultOf([100, 200, 200, 400]), "Time to first token, all requests");
  expect(plot.x).toEqual([97, 100, 200, 400, 412]);
  expect(plot.series).toEqual([{ label: "reprise", shares: [0, 0.25, 0.75, 1, 1] }]);
});

test("a CDF of many requests is thinned to some hundred steps and keeps its ends", () => {
  const plot = plotOf(
    "cdf",
    resultOf(Array.from({ length: 5000 }, (_, index) => 1000 + index)),
    "Time to first token, all requests",
  );
  expect(plot.x.length).toBeLessThanOrEqual(402);
  expect([plot.x[1], plot.x.at(-2)]).toEqual([1000, 5999]);
  expect(plot.series[0]?.shares.at(-2)).toBe(1);
});

test("a spread has the median and the outer tenths of each group", () => {
  const times = Array.from({ length: 11 }, (_, index) => 100 + index * 10);
  const plot = plotOf("spread", resultOf(times), "Time to first token by group");
  expect(plot.places).toEqual(["cold"]);
  expect(plot.series[0]?.values).toEqual([{ low: 110, middle: 150, high: 190 }]);
});

test("a target without an answer in a group has a gap there, and none at all no line", () => {
  const { samples, ...rest } = sampleResult({ turns: 2 });
  const lost: Partial<Sample> = { outcome: "stalled" };
  const gapped = samples.map((sample) => {
    const isLost = sample.target === "llama-server" && sample.group === "round 2";
    return isLost ? { ...sample, ...lost } : sample;
  });
  const plot = plotOf("spread", { ...rest, samples: gapped }, "Time to first token by group");
  expect(plot.series[1]?.values[1]).toBeNull();
  expect(plotsOf({ ...rest, samples: samples.map((sample) => ({ ...sample, ...lost })) })).toEqual([]);
});

test("a group's throughput stands against its median latency", () => {
  const plot = plotOf("scatter", resultOf([500, 500]), "Throughput against latency");
  // Two requests at the same time, 10 tokens each, 1 second.
  expect(plot.series[0]?.points).toEqual([{ name: "cold", x: 20, y: 1000 }]);
});

test("the steps of a sweep are joined in their order, other groups are not", () => {
  const result = resultOf([500, 500]);
  expect(plotOf("scatter", result, "Throughput against latency").joined).toBe(false);
  const [first] = result.samples;
  const samples = ["1/s", "2/s", "4/s"].map((group) => ({ ...first!, group })); // there are two
  const swept = plotOf("scatter", { ...result, bench: "sweep", samples }, "Throughput against latency");
  expect(swept.joined).toBe(true);
  expect(swept.series[0]?.points.map(({ name }) => name)).toEqual(["1/s", "2/s", "4/s"]);
});

test("a bar's parts are all of the prompt: tiers, reuse without a tier, and what was computed", () => {
  const { targets, samples, ...rest } = resultOf([1, 1]);
  const told = samples.map((sample) => ({ ...sample, promptTokens: 100, cachedTokens: 60, reused: { memory: 50 } }));
  const [bar] = reuseBars({ ...rest, targets, samples: told });
  expect(bar?.name).toBe("reprise, cold");
  expect(bar?.parts).toEqual(
    new Map([
      ["memory", 0.5],
      ["reused", 0.1],
      ["computed", 0.4],
    ]),
  );
  expect(reuseBars({ ...rest, targets, samples })).toEqual([]);
});

test("errors are counted by kind, and right answers are none", () => {
  const result = resultOf([1, 1, 1]);
  const outcomes = ["ok", "http 429", "http 429"] as const;
  const samples = result.samples.map((sample, index) => ({ ...sample, outcome: outcomes[index] ?? "ok" }));
  expect(errorBars({ ...result, samples })[0]?.parts).toEqual(new Map([["http 429", 2]]));
});

/** One target, one group: requests sent together, whose first tokens took `times` and whose ends one second. */
function resultOf(times: readonly number[]): BenchResult {
  const { targets, ...rest } = sampleResult({ users: 1, turns: 1, rounds: 1 });
  const names = { target: "reprise", round: 1, id: "one", group: "cold", outcome: "ok", checked: false } as const;
  const samples = times.map((ttft) => {
    const endMs = Math.max(1000, ttft);
    return { ...names, dueMs: 0, sentMs: 0, firstTokenMs: ttft, tokenMs: [ttft], endMs, completionTokens: 10 };
  });
  return { ...rest, targets: targets.slice(0, 1), samples };
}

function plotOf<Kind extends Plot["kind"]>(
  kind: Kind,
  result: BenchResult,
  title: string,
): Extract<Plot, { kind: Kind }> {
  const isWanted = (plot: Plot): plot is Extract<Plot, { kind: Kind }> => plot.kind === kind && plot.title === title;
  const plot = plotsOf(result).find(isWanted);
  if (plot === undefined) throw new Error(`no ${kind} plot is called "${title}"`);
  return plot;
}
