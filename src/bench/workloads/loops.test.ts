import { expect, test } from "vitest";
import type { BenchRequest } from "./workload.ts";
import { closedLoop } from "./closed-loop.ts";
import { openLoop } from "./open-loop.ts";
import { requestList } from "./request-list.ts";

const request: BenchRequest = { id: "a", group: "g", path: "/v1/chat/completions", body: {} };
const many = requestList("many", () => Array.from({ length: 20_000 }, () => ({ startMs: 5, make: () => request })), 3);

test("a request of a list is asked once", () => {
  const [actor] = many.actors();
  expect(actor?.next(undefined)).toBe(request);
  expect(actor?.next("answer")).toBeUndefined();
});

test("an open loop's arrivals are a Poisson process of the rate", () => {
  const open = openLoop(many, { ratePerSecond: 50, seed: 1 });
  expect(open.concurrency).toBeUndefined();
  const starts = Array.from(open.actors(), ({ startMs }) => startMs);
  const gaps = starts.map((startMs, index) => startMs - (starts[index - 1] ?? 0));
  const mean = gaps.reduce((sum, gap) => sum + gap, 0) / gaps.length;
  const variance = gaps.reduce((sum, gap) => sum + (gap - mean) ** 2, 0) / gaps.length;
  expect(Math.min(...gaps)).toBeGreaterThanOrEqual(0);
  expect(mean / 20).toBeCloseTo(1, 1);
  // Of an exponential distribution, deviation and mean are equal.
  expect(Math.sqrt(variance) / mean).toBeCloseTo(1, 1);
});

test("an open loop's seed fixes its arrivals", () => {
  const starts = (seed: number) =>
    Array.from(openLoop(many, { ratePerSecond: 1, seed }).actors(), ({ startMs }) => startMs);
  expect(starts(1)).toEqual(starts(1));
  expect(starts(1)).not.toEqual(starts(2));
});

test("a closed loop has no times, and a fixed number at work", () => {
  const closed = closedLoop(many, 8);
  expect(closed.concurrency).toBe(8);
  const actors = [...closed.actors()];
  expect(actors.length).toBe(20_000);
  expect(actors.every(({ startMs, gapMs }) => startMs === 0 && gapMs === 0)).toBe(true);
  expect(actors[0]?.next(undefined)).toBe(request);
});
