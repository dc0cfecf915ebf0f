import { expect, test } from "vitest";
import { figureSource } from "../../figures.ts";
import { EventLoopDelay, processFigures } from "./event-loop-delay.ts";

/** Ticks that each come so many milliseconds late. */
function after(lateMs: readonly number[]): EventLoopDelay {
  let now = 1000;
  const delay = new EventLoopDelay(now);
  for (const late of lateMs) {
    now += 50 + late;
    delay.came(now);
  }
  return delay;
}

test("the figures are the median, the 99th percentile and the longest wait of the last minute, in seconds", () => {
  const late = Array.from({ length: 1200 }, (_, i) => (i % 100 < 2 ? 30 : i % 3 === 0 ? 2 : 1));
  const figures: [string, number, unknown][] = [];
  const source = figureSource(processFigures, () => after([...late, 40]));
  source.visit((name, value, label) => figures.push([name, value, label]));
  expect(figures).toEqual([
    ["reprise_event_loop_delay_seconds", 0.001, "0.5"],
    ["reprise_event_loop_delay_seconds", 0.03, "0.99"],
    ["reprise_event_loop_delay_seconds", 0.04, "1"],
  ]);
});

test("a stall counts as long as it lasts: what was due in it waited too", () => {
  const delay = after([...Array.from({ length: 95 }, () => 0), 200]); // 200, 150, 100, 50 and 0
  expect([0.96, 0.97, 0.99, 1].map((share) => delay.quantile(share))).toEqual([0, 0.05, 0.15, 0.2]);
});

test("what lies more than a minute back is forgotten, and the longest stall is bounded work", () => {
  const delay = after([900_000, ...Array.from({ length: 1200 }, () => 3)]);
  expect(delay.quantile(1)).toBe(0.003);
  expect(new EventLoopDelay(0).quantile(0.99)).toBe(0);
});

test("a tick before its time is not late, and a sample like any other", () => {
  expect(after([-1, -1, -1, 30]).quantile(0.75)).toBe(0);
});

test("in a process whose loop is held, the wait is seen", async () => {
  using delay = EventLoopDelay.start();
  const until = performance.now() + 400;
  while (performance.now() < until);
  await expect.poll(() => delay.quantile(1)).toBeGreaterThan(0.3);
});
