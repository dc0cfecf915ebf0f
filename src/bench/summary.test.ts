import { expect, test } from "vitest";
import { samplesCsv } from "./csv.ts";
import type { Sample, TargetFacts } from "./result.ts";
import { distributionOf, summarize } from "./summary.ts";
import { renderTable } from "./table.ts";

const facts: TargetFacts = {
  label: "one",
  url: "http://127.0.0.1:1",
  model: "m",
  charactersPerToken: 4,
  metricsBefore: {},
  metricsAfter: {},
};

function sample(change: Partial<Sample> = {}): Sample {
  return {
    target: "one",
    round: 0,
    id: "request",
    group: "cold",
    outcome: "ok",
    dueMs: 0,
    sentMs: 1,
    firstTokenMs: 101,
    tokenMs: [101, 111, 131],
    endMs: 141,
    promptTokens: 1000,
    completionTokens: 3,
    cachedTokens: 250,
    reused: { memory: 200, disk: 50 },
    checked: false,
    ...change,
  };
}

test("percentiles are interpolated, as statistics.ts, NumPy and pandas do", () => {
  const values = Array.from({ length: 101 }, (_, index) => 100 - index);
  expect(distributionOf(values)).toEqual({ count: 101, mean: 50, p50: 50, p90: 90, p99: 99 });
  expect(distributionOf([1, 2])).toEqual({ count: 2, mean: 1.5, p50: 1.5, p90: 1.9, p99: 1.99 });
  expect(distributionOf([3])).toEqual({ count: 1, mean: 3, p50: 3, p90: 3, p99: 3 });
  expect(distributionOf([])).toBeUndefined();
});

test("times, rates and reuse of one group", () => {
  const [line, ...others] = summarize({ bench: "rag", targets: [facts], samples: [sample()] });
  expect(others).toEqual([]);
  expect(line).toMatchObject({
    count: 1,
    outcomes: { ok: 1 },
    firstToken: { p50: 100 },
    gap: { count: 2, mean: 15 },
    endToEnd: { p99: 140 },
    cachedShare: 0.25,
    reused: { memory: 200, disk: 50 },
    clientLagP99Ms: 1,
  });
  expect(line?.outputTokensPerSecond).toBeCloseTo(3 / 0.14);
  expect(line?.inputTokensPerSecond).toBeCloseTo(1000 / 0.14);
  expect(line?.rightShare).toBeUndefined();
});

test("failures are counted, and in no time; wrong answers are in the times and not right", () => {
  const samples = [
    sample({ checked: true }),
    sample({ checked: true, outcome: "wrong" }),
    sample({ checked: true, outcome: "stalled", endMs: 60_000 }),
    sample({ outcome: "http 429", tokenMs: [], endMs: 2 }),
  ];
  const [line] = summarize({ bench: "rag", targets: [facts], samples });
  expect(line).toMatchObject({
    count: 4,
    outcomes: { ok: 1, wrong: 1, stalled: 1, "http 429": 1 },
    endToEnd: { count: 2, p99: 140 },
    rightShare: 0.5,
  });
});

test("the time between a target's rounds is nobody's", () => {
  const later = sample({ round: 1, sentMs: 100_001, tokenMs: [100_101], endMs: 100_141 });
  const [line] = summarize({ bench: "rag", targets: [facts], samples: [sample(), later] });
  expect(line?.inputTokensPerSecond).toBeCloseTo(2000 / 0.28);
});

test("one line per group in the order of their beginnings, and one over all", () => {
  const samples = [sample({ group: "warm", dueMs: 5 }), sample()];
  const lines = summarize({ bench: "rag", targets: [facts], samples });
  expect(lines.map(({ group, count }) => [group, count])).toEqual([
    ["cold", 1],
    ["warm", 1],
    ["all", 2],
  ]);
});

test("groups that are other loads, or other states of a cache, have no line over all", () => {
  const samples = [sample({ group: "1/s" }), sample({ group: "2/s" })];
  expect(summarize({ bench: "sweep", targets: [facts], samples }).map(({ group }) => group)).toEqual(["1/s", "2/s"]);
});

test("the table: aligned, with what went wrong and where tokens came from below", () => {
  const samples = [
    sample(),
    sample({ outcome: "cut", error: "closed" }),
    sample({ target: "two", group: "warm reading" }),
  ];
  const text = renderTable(summarize({ bench: "rag", targets: [facts, { ...facts, label: "two" }], samples }));
  const lines = text.split("\n");
  expect(lines[0]).toMatch(/^target {2}group +ok {2}TTFT ms mean +p50/);
  expect(lines[1]).toMatch(/^one {5}cold {10}1\/2 +100 +100 /);
  expect(new Set(lines.slice(0, 3).map((line) => line.length)).size).toBe(1);
  expect(text).toContain("one, cold: 1 cut (closed)\n");
  expect(text).toContain("one, cold: reused 200 from memory, 50 from disk\n");
});

test("CSV: one line per sample, texts quoted where they must be", () => {
  const [header, line, ...rest] = samplesCsv([sample({ id: 'say "a,b"', error: "two\nlines" })]).split("\r\n");
  expect(header).toMatch(/^target,round,id,group,outcome,due_ms/);
  expect(line).toBe(
    'one,0,"say ""a,b""",cold,ok,0,1,101,141,3,1000,3,250,"{""memory"":200,""disk"":50}",false,"two\nlines"',
  );
  expect(rest).toEqual([""]);
});
