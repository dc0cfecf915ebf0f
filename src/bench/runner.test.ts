import { expect, test } from "vitest";
import type { Clock } from "./clock.ts";
import { runRound, type RoundOptions } from "./runner.ts";
import { runTargets } from "./run-targets.ts";
import type { StreamedAnswer } from "./stream-client.ts";
import type { Actor, BenchRequest, Workload } from "./workloads/workload.ts";

/** Time that stands still until everybody waits, and then goes to the next moment that somebody waits for. */
class FakeClock implements Clock {
  #now = 1000;
  readonly #waiting: { at: number; resolve: () => void }[] = [];
  #scheduled = false;

  now(): number {
    return this.#now;
  }

  until(at: number, signal: AbortSignal): Promise<void> {
    if (at <= this.#now || signal.aborted) return Promise.resolve();
    return new Promise((resolve) => {
      this.#waiting.push({ at, resolve });
      signal.addEventListener("abort", () => resolve());
      if (this.#scheduled) return;
      this.#scheduled = true;
      setImmediate(() => this.#advance());
    });
  }

  #advance(): void {
    this.#scheduled = false;
    const next = this.#waiting.sort((a, b) => a.at - b.at).shift();
    if (next === undefined) return;
    this.#now = Math.max(this.#now, next.at);
    next.resolve();
    this.#scheduled = true;
    setImmediate(() => this.#advance());
  }
}

const running = new AbortController().signal;

function requestOf(id: string): BenchRequest {
  return { id, group: "g", path: "/v1/completions", body: {} };
}

function actorOf(name: string, count: number, times: Partial<Pick<Actor, "startMs" | "gapMs">> = {}): Actor {
  let asked = 0;
  return {
    startMs: 0,
    gapMs: 0,
    ...times,
    next() {
      asked += 1;
      return asked > count ? undefined : requestOf(`${name} ${asked}`);
    },
  };
}

function workloadOf(actors: Iterable<Actor>, concurrency?: number): Workload {
  return { name: "test", actors: () => actors, concurrency };
}

/** A server whose every answer takes `tookMs`, on the fake clock. */
function serverOf(
  clock: FakeClock,
  tookMs: number,
  outcome: StreamedAnswer["outcome"] = "ok",
): RoundOptions["prepare"] {
  return () => async (signal) => {
    const sentAt = clock.now();
    await clock.until(sentAt + tookMs, signal);
    return { outcome, text: "x", sentAt, tokenAt: [sentAt + 1], endAt: clock.now() };
  };
}

function round(clock: FakeClock, workload: Workload, change: Partial<RoundOptions> = {}) {
  return runRound({
    workload,
    label: "t",
    round: 0,
    prepare: serverOf(clock, 10),
    originMs: 1000,
    timeLimitMs: 10_000,
    signal: running,
    clock,
    ...change,
  });
}

test("actors start when they are due, whoever is still at work", async () => {
  const starts = [0, 5, 5, 40];
  const samples = await round(
    new FakeClock(),
    workloadOf(starts.map((startMs, index) => actorOf(`user ${index}`, 1, { startMs }))),
  );
  expect(samples.map(({ sentMs }) => sentMs)).toEqual(starts);
  expect(samples.map(({ dueMs }) => dueMs)).toEqual(starts);
  expect(samples[0]).toMatchObject({ target: "t", id: "user 0 1", outcome: "ok", firstTokenMs: 1, endMs: 10 });
});

test("a gap holds between the beginnings of an actor's requests; a slow answer makes the next due at its end", async () => {
  const clock = new FakeClock();
  const fast = await round(clock, workloadOf([actorOf("user", 3, { gapMs: 25 })]));
  expect(fast.map(({ sentMs }) => sentMs)).toEqual([0, 25, 50]);
  const later = new FakeClock();
  const slow = await round(later, workloadOf([actorOf("user", 3, { gapMs: 25 })]), { prepare: serverOf(later, 40) });
  expect(slow.map(({ sentMs, dueMs }) => [sentMs, dueMs])).toEqual([
    [0, 0],
    [40, 40],
    [80, 80],
  ]);
});

test("no more actors than allowed at a time; waiting for a place is not the client's lag", async () => {
  const clock = new FakeClock();
  const actors = Array.from({ length: 6 }, (_, index) => actorOf(`user ${index}`, 1));
  const samples = await round(clock, workloadOf(actors, 2));
  expect(samples.map(({ sentMs }) => sentMs)).toEqual([0, 0, 10, 10, 20, 20]);
  expect(samples.every(({ sentMs, dueMs }) => sentMs === dueMs)).toBe(true);
});

test("an endless workload ends at the time limit, and what is under way is heard to its end", async () => {
  const clock = new FakeClock();
  function* endless(): Generator<Actor> {
    for (let index = 0; ; index += 1) yield actorOf(`request ${index}`, 1, { startMs: index * 30 });
  }
  const samples = await round(clock, workloadOf(endless()), { timeLimitMs: 100, prepare: serverOf(clock, 500) });
  expect(samples.map(({ sentMs }) => sentMs)).toEqual([0, 30, 60, 90]);
  expect(samples.every(({ outcome }) => outcome === "ok")).toBe(true);
});

test("a server that refuses everything is asked again after a pause, not in a tight loop", async () => {
  const clock = new FakeClock();
  const samples = await round(clock, workloadOf([actorOf("user", 3)]), {
    prepare: serverOf(clock, 1, "http 429"),
  });
  expect(samples.map(({ sentMs }) => sentMs)).toEqual([0, 1001, 2002]);
});

test("a run that is ended leaves the samples that were complete", async () => {
  const clock = new FakeClock();
  const stop = new AbortController();
  const samples = await round(clock, workloadOf([actorOf("user", 100)]), {
    signal: stop.signal,
    onSample: ({ id }) => id === "user 3" && stop.abort(),
  });
  expect(samples.map(({ id }) => id)).toEqual(["user 1", "user 2", "user 3"]);
});

test("what a workload throws ends the round", async () => {
  const broken: Actor = {
    startMs: 0,
    gapMs: 0,
    next(previous) {
      if (previous !== undefined) throw new Error("cannot read the answer");
      return requestOf("first");
    },
  };
  await expect(round(new FakeClock(), workloadOf([broken, actorOf("user", 100)]))).rejects.toThrow("cannot read");
});

test("targets take turns, in reversed order every other round, each with a fresh workload of the round's seed", async () => {
  const clock = new FakeClock();
  const turns: string[] = [];
  const target = (label: string) => ({ label, prepare: serverOf(clock, 10) });
  const samples = await runTargets({
    targets: [target("a"), target("b")],
    rounds: 3,
    seed: 7,
    timeLimitMs: 1000,
    signal: running,
    clock,
    originMs: 1000,
    steps: [(seed) => workloadOf([actorOf(`seed ${seed}`, 1)])],
    onTurn: ({ label, round }) => turns.push(`${label}${round}`),
  });
  expect(turns).toEqual(["a0", "b0", "b1", "a1", "a2", "b2"]);
  expect(samples.map(({ id }) => id)).toEqual(["seed 7 1", "seed 7 1", "seed 8 1", "seed 8 1", "seed 9 1", "seed 9 1"]);
  expect(samples.map(({ dueMs }) => dueMs)).toEqual([0, 10, 20, 30, 40, 50]);
});
