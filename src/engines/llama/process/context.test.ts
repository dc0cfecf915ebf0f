import { readdirSync } from "node:fs";
import { expect, test } from "vitest";
import { library, loadTiny } from "../../../../test/support/scheduler-rig.ts";
import type { Pointer } from "../../../ffi/posix.ts";
import { Context } from "./context.ts";
import { StepThreads } from "./thread-choice.ts";

const model = loadTiny({ family: "llama" });
const threads = new StepThreads(2, { deterministic: true });

function context(threadPool: Pointer | undefined): Context {
  return Context.create({ library, model, cells: 512, sequences: 1, threads, threadPool, abortFlag: undefined });
}

function logitsAfter(on: Context, tokens: readonly number[], from: number): number[] {
  on.begin();
  for (const [i, token] of tokens.entries()) on.add(0, from + i, token, i === tokens.length - 1);
  expect(on.decode()).toBe("done");
  return [...on.logits(tokens.length - 1)];
}

test("steps on threads that are kept have the bits of steps that start their own, in every context that shares them", () => {
  const pool = library.createThreadPool(2);
  const [own, first, second] = [context(undefined), context(pool), context(pool)];
  const prompt = Array.from({ length: 40 }, (_, i) => 3 + (i % 7));
  const expected = logitsAfter(own, prompt, 0);
  const expectedNext = logitsAfter(own, [5], prompt.length);
  expect(logitsAfter(first, prompt, 0)).toEqual(expected);
  expect(logitsAfter(second, prompt, 0)).toEqual(expected);
  expect(logitsAfter(first, [5], prompt.length)).toEqual(expectedNext);
  expect(logitsAfter(second, [5], prompt.length)).toEqual(expectedNext);
});

test.runIf(process.platform === "linux")(
  "a pool has one thread less than steps run on: the caller computes as well",
  () => {
    const count = () => readdirSync("/proc/self/task").length;
    const before = count();
    expect(library.createThreadPool(4)).toBeTypeOf("bigint");
    expect(count() - before).toBe(3);
  },
);
