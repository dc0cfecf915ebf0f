import { expect, test } from "vitest";
import { StepThreads, ThreadChoice, mostThreads } from "./thread-choice.ts";

/** Runs steps whose time is a function of the thread count; counts which were used. */
function run(choice: ThreadChoice, steps: number, costMs: (threads: number) => number): Map<number, number> {
  const used = new Map<number, number>();
  for (let step = 0; step < steps; step += 1) {
    const threads = choice.next();
    used.set(threads, (used.get(threads) ?? 0) + 1);
    choice.measured(threads, costMs(threads));
  }
  return used;
}

test("the fastest count is used, and the choice follows when the machine becomes busy and free again", () => {
  const choice = new ThreadChoice(4, "small");
  const free = (threads: number) => 8 / threads;
  const busy = (threads: number) => (threads === 1 ? 8 : 50 * threads);
  expect(run(choice, 400, free).get(4)).toBeGreaterThan(350);
  const under = run(choice, 400, busy);
  expect(under.get(1)).toBeGreaterThan(350);
  expect(run(choice, 4000, free).get(4)).toBeGreaterThan(1000);
});

test("a step that met another program, now and then, does not take the threads away", () => {
  const choice = new ThreadChoice(2, "small");
  let step = 0;
  const used = run(choice, 2000, (threads) => {
    step += 1;
    return threads === 2 && step % 12 === 0 ? 60 : 5 / threads;
  });
  expect(used.get(2)).toBeGreaterThan(1850);
});

test("all threads are used again soon after the machine was busy for a moment", () => {
  const choice = new ThreadChoice(2, "small");
  run(choice, 100, (threads) => 5 / threads);
  expect(run(choice, 100, (threads) => (threads === 1 ? 5 : 60)).get(1)).toBeGreaterThan(80);
  expect(run(choice, 400, (threads) => 5 / threads).get(2)).toBeGreaterThan(150);
});

test("a slow first step takes no threads away", () => {
  let step = 0;
  const used = run(new ThreadChoice(2, "small"), 200, (threads) => {
    step += 1;
    return step === 1 ? 200 : 5 / threads;
  });
  expect(used.get(2)).toBeGreaterThan(190);
});

test("the first prompt is read with all threads: others are tried later, once for all contexts", () => {
  const used = run(new ThreadChoice(2, "large"), 15, (threads) => 500 / threads);
  expect([...used.keys()]).toEqual([2]);
  expect(run(new ThreadChoice(2, "large"), 200, (threads) => 500 / threads).get(1)).toBeLessThan(5);
});

test("slices never try a single thread of many", () => {
  const used = run(new ThreadChoice(8, "large"), 200, (threads) => 100 * threads);
  expect(new Set(used.keys())).toEqual(new Set([4, 8]));
});

test("deterministic mode keeps its count", () => {
  const used = run(new ThreadChoice(4, "deterministic"), 100, (threads) => 1000 * threads);
  expect([...used.keys()]).toEqual([4]);
});

test("after a rest all threads are used at once, though the machine was busy when the last answer ended", () => {
  const threads = new StepThreads(2, { deterministic: false });
  const free = (count: number) => 5 / count;
  let now = 0;
  const answer = (steps: number, costMs: (count: number) => number) => {
    const used: number[] = [];
    for (let step = 0; step < steps; step += 1) {
      threads.begin(now);
      const count = threads.small.next();
      used.push(count);
      threads.small.measured(count, costMs(count));
      now += costMs(count);
      threads.end(now);
    }
    now += 5000;
    return used;
  };
  answer(100, free);
  expect(answer(100, (count) => (count === 1 ? 5 : 60)).filter((count) => count === 1).length).toBeGreaterThan(70);
  expect(answer(50, free)).toEqual(Array.from({ length: 50 }, () => 2));
  // Another server's threads go on spinning for a few steps.
  let steps = 0;
  const spinning = answer(50, (count) => (count === 2 && (steps += 1) < 6 ? 60 : free(count)));
  expect(spinning.filter((count) => count === 2).length).toBeGreaterThan(40);
  // Of a machine that stays busy each answer tries twice.
  answer(200, (count) => (count === 1 ? 5 : 60));
  expect(answer(50, (count) => (count === 1 ? 5 : 60)).filter((count) => count === 2).length).toBeLessThanOrEqual(4);
});

test.each(["small", "large"] as const)("less than one %s step in a hundred tries fewer threads in vain", (kind) => {
  const choice = new ThreadChoice(2, kind);
  run(choice, 100, (threads) => 100 / threads);
  const tried = run(choice, 3000, (threads) => 100 / threads).get(1);
  expect(tried).toBeGreaterThan(3);
  expect(tried).toBeLessThan(15);
});

test("more threads than processors are not used, and a line says so", () => {
  const warned: string[] = [];
  const options = { deterministic: false, log: { warn: (line: string) => warned.push(line) } };
  expect(mostThreads(4, options, 4)).toBe(4);
  expect(warned).toEqual([]);
  expect(mostThreads(64, options, 2)).toBe(2);
  expect(warned).toEqual(["--threads 64: this process may use 2 processors, and no more threads than that compute"]);
});

test("deterministic mode keeps the threads that were asked for: their number shows in the last bits", () => {
  const warned: string[] = [];
  const log = { warn: (line: string) => warned.push(line) };
  expect(mostThreads(4, { deterministic: true, log }, 1)).toBe(4);
  expect(warned).toEqual([
    "--threads 4: this process may use 1 processor, and more threads than that make every step much slower; use --threads 1 or less",
  ]);
});
