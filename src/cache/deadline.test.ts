import { stat } from "node:fs/promises";
import { expect, test } from "vitest";
import { within } from "./deadline.ts";

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
