import { expect, test } from "vitest";
import { groupsOf, metricNames, metrics, throughput, valuesOf } from "./metrics.ts";
import type { Sample } from "./result.ts";

const answered: Sample = {
  target: "a",
  round: 1,
  id: "one",
  group: "cold",
  outcome: "ok",
  dueMs: 90,
  sentMs: 100,
  firstTokenMs: 300,
  tokenMs: [300, 340, 400],
  endMs: 600,
  promptTokens: 200,
  completionTokens: 3,
  cachedTokens: 50,
  checked: true,
};

test("an answered request has every metric, counted from its sending", () => {
  const values = metricNames.map((name) => metrics[name].of(answered));
  expect(values).toEqual([200, 50, 500, 6, 0.25, 1]);
});

test("a wrong answer has times; a broken one has none, and both are not right", () => {
  const wrong: Sample = { ...answered, outcome: "wrong" };
  const cut: Sample = { ...answered, outcome: "cut" };
  expect(metrics.ttft.of(wrong)).toBe(200);
  for (const name of ["ttft", "itl", "e2e", "tokens/s"] as const) expect(metrics[name].of(cut)).toBeUndefined();
  expect(valuesOf("right", [wrong, cut, answered])).toEqual([0, 0, 1]);
});

test("what the server did not tell is not counted", () => {
  const { promptTokens, completionTokens, cachedTokens, ...silent } = answered;
  expect(valuesOf("reused", [silent])).toEqual([]);
  expect(valuesOf("tokens/s", [silent])).toEqual([]);
  expect(valuesOf("right", [{ ...silent, checked: false }])).toEqual([]);
  expect(throughput([silent])).toBe(throughput([{ ...silent, completionTokens: silent.tokenMs.length }]));
  expect(throughput([{ ...silent, outcome: "cut" }])).toBeUndefined();
  expect([promptTokens, completionTokens, cachedTokens]).toEqual([200, 3, 50]);
});

test("throughput is over the whole of each round, idle time included, and not over the time between rounds", () => {
  const at = (sentMs: number, endMs: number, round = 0): Sample => ({ ...answered, sentMs, endMs, round });
  expect(throughput([at(0, 1000), at(500, 1500), at(200, 300)])).toBe(6);
  expect(throughput([at(0, 1000), at(2000, 3000)])).toBe(2);
  expect(throughput([at(0, 1000), at(90_000, 91_000, 1)])).toBe(3);
});

test("groups keep the order in which they appear", () => {
  const groups = ["warm", "cold", "warm"].map((group) => ({ ...answered, group }));
  expect(groupsOf(groups)).toEqual(["warm", "cold"]);
});
