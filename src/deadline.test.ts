import { stat } from "node:fs/promises";
import { expect, test } from "vitest";
import { within, withSignal } from "./deadline.ts";

test("what takes too long is late", async () => {
  expect(await within(new Promise(() => {}), 5)).toBe("late");
  expect(await within(Promise.resolve(7), 0)).toBe(7);
});

test("an answer that arrived while this process was busy is not late", async () => {
  const answer = within(stat(new URL(import.meta.url)), 5);
  const end = performance.now() + 100;
  while (performance.now() < end); // a decode
  expect(await answer).not.toBe("late");
});

test("work hears of its deadline, of a stop, and of nothing once it is done", async () => {
  const stop = new AbortController();
  const untilAborted = (signal: AbortSignal) =>
    new Promise<string>((resolve) => {
      if (signal.aborted) resolve("aborted");
      signal.addEventListener("abort", () => resolve("aborted"));
    });
  expect(await withSignal(untilAborted, { stop: stop.signal, deadlineMs: 5 })).toBe("aborted");
  let kept: AbortSignal | undefined;
  const done = (signal: AbortSignal) => Promise.resolve((kept = signal) && "done");
  expect(await withSignal(done, { stop: stop.signal, deadlineMs: 5 })).toBe("done");
  const stopped = withSignal(untilAborted, { stop: stop.signal, deadlineMs: 60_000 });
  stop.abort();
  expect(await stopped).toBe("aborted");
  expect(await withSignal(untilAborted, { stop: stop.signal, deadlineMs: 60_000 })).toBe("aborted");
  expect(kept?.aborted).toBe(false);
});
