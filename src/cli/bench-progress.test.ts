import { PassThrough } from "node:stream";
import { expect, test } from "vitest";
import { sampleResult } from "../../test/support/bench-result.ts";
import { showBenchProgress, TargetFigures } from "./bench-progress.ts";

const { samples } = sampleResult({ users: 40, turns: 5, rounds: 1 });
const own = samples.filter(({ target }) => target === "reprise");

test("a target's line counts every answer, and has the times of the last 200", () => {
  const figures = new TargetFigures("reprise");
  expect(figures.text()).toBe("reprise: 0 ok, 0 not");
  for (const sample of [...own, ...own]) figures.add(sample);
  const failed = own.filter(({ outcome }) => outcome !== "ok").length * 2;
  const text = figures.text();
  expect(text).toContain(`reprise: ${own.length * 2 - failed} ok, ${failed} not; TTFT `);
  expect(text).toMatch(/TTFT [\d.]+ ms mean, [\d.]+ p50, [\d.]+ p90, [\d.]+ p99; gap [\d.]+ ms \(last 200 answers\)$/);
});

test("on a terminal: the step, and a line per target", async () => {
  const terminal = new PassThrough();
  let shown = "";
  terminal.setEncoding("utf8").on("data", (text: string) => (shown += text));
  const stream = Object.assign(terminal, {
    isTTY: true,
    columns: 200,
    rows: 40,
    cursorTo: () => true,
    moveCursor: () => true,
    clearLine: () => true,
    clearScreenDown: () => true,
  }) as unknown as NodeJS.WriteStream; // as much of one as is used
  const progress = showBenchProgress(stream);
  progress.onStep("reprise, round 1 of 1, 3 answers", 0.5);
  for (const sample of own.filter(({ outcome }) => outcome === "ok").slice(0, 3)) progress.onSample(sample);
  await expect.poll(() => shown, { timeout: 5000 }).toContain("3 ok, 0 not; TTFT");
  expect(shown).toContain("50 % reprise, round 1 of 1, 3 answers");
  progress.end();
});
