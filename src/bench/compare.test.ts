import { expect, test } from "vitest";
import { sampleResult } from "../../test/support/bench-result.ts";
import { breaches, compare, parseLimits } from "./compare.ts";
import { metricNames } from "./metrics.ts";
import type { BenchResult } from "./result.ts";

test("a run against itself has the ratio 1 everywhere, and the interval holds it", () => {
  const result = sampleResult();
  const { rows, notes } = compare(result, result);
  expect(notes).toEqual([]);
  for (const row of rows.filter(({ ratio }) => !Number.isNaN(ratio))) {
    expect(row.ratio).toBe(1);
    expect(row.low).toBeLessThanOrEqual(1);
    expect(row.high).toBeGreaterThanOrEqual(1);
  }
  expect(new Set(rows.map(({ metric }) => metric))).toEqual(new Set(metricNames));
});

test("a run that is half slower shows it in times and rates, and in nothing else", () => {
  const { rows } = compare(sampleResult(), sampleResult({ slowness: 1.5 }));
  for (const { metric, ratio } of rows) {
    if (metric === "ttft" || metric === "itl") expect(ratio).toBeCloseTo(1.5, 6);
    if (metric === "tokens/s") expect(ratio).toBeCloseTo(1 / 1.5, 2);
    if (metric === "reused" && !Number.isNaN(ratio)) expect(ratio).toBe(1);
  }
});

test("the only targets are compared whatever their names; groups of one run are told", () => {
  const [a, b] = [only(sampleResult({ turns: 2 }), "reprise"), only(sampleResult({ turns: 3 }), "llama-server")];
  const { rows, notes } = compare(a, b);
  expect(new Set(rows.map(({ target }) => target))).toEqual(new Set(["reprise → llama-server"]));
  expect(notes).toContain('reprise → llama-server: only one run has "round 3"');
  expect(notes.some((note) => note.startsWith("options differs:"))).toBe(true);
});

test("runs with nothing in common are refused", () => {
  const result = sampleResult();
  expect(() => compare(result, { ...result, samples: [] })).toThrow("share no target and group");
});

test("limits are parsed together, and every fault is named", () => {
  expect(parseLimits({ max: ["ttft=1.1"], min: ["tokens/s=0.9", "ttft=0.5"] })).toEqual({
    max: new Map([["ttft", 1.1]]),
    min: new Map([
      ["tokens/s", 0.9],
      ["ttft", 0.5],
    ]),
  });
  const faulty = () => parseLimits({ max: ["ttft", "speed=1", "e2e=1", "e2e=2"], min: ["itl=x"] });
  expect(faulty).toThrow('--max-ratio "ttft" is not METRIC=NUMBER');
  expect(faulty).toThrow('--max-ratio "speed" is no metric');
  expect(faulty).toThrow('--min-ratio "itl=x" is not METRIC=NUMBER');
  expect(faulty).toThrow("--max-ratio e2e has two limits");
});

test("only ratios above their greatest or below their least are outside", () => {
  const comparison = compare(sampleResult(), sampleResult({ slowness: 1.5 }));
  expect(breaches(comparison, parseLimits({ max: ["ttft=1.51", "reused=1"], min: ["ttft=1.49"] }))).toEqual([]);
  const above = breaches(comparison, parseLimits({ max: ["ttft=1.49"], min: [] }));
  expect(new Set(above.map(({ metric, side }) => `${metric} ${side}`))).toEqual(new Set(["ttft above"]));
  expect(above).toHaveLength(10);
  const below = breaches(comparison, parseLimits({ max: [], min: ["tokens/s=0.9"] }));
  expect(new Set(below.map(({ metric, side }) => `${metric} ${side}`))).toEqual(new Set(["tokens/s below"]));
});

test("a limit on what nobody measured is refused, not passed", () => {
  const unchecked = sampleResult();
  const samples = unchecked.samples.map((sample) => ({ ...sample, checked: false }));
  const comparison = compare({ ...unchecked, samples }, { ...unchecked, samples });
  expect(() => breaches(comparison, parseLimits({ max: [], min: ["right=1"] }))).toThrow("no ratio of it in common");
});

function only(result: BenchResult, label: string): BenchResult {
  const targets = result.targets.filter((target) => target.label === label);
  return { ...result, targets, samples: result.samples.filter(({ target }) => target === label) };
}
