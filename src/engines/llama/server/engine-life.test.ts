import { expect, test } from "vitest";
import { EngineBench, ask, request, until } from "../../../../test/support/engine.ts";
import { someTokens } from "../../../../test/support/tokens.ts";
import { codeOf } from "../../../errors.ts";
import { silentLog } from "../../../log.ts";

test("a queue that one tenant has filled has room for another", async () => {
  await using bench = new EngineBench();
  const engine = bench.start({ sequences: 1 }, { maxWaiting: 4 });
  await engine.ready;
  // By each request's first event: an end may be heard of late, behind the events of a long answer.
  const turns: string[] = [];
  const run = async (name: string, tenant: string, maxTokens: number) => {
    const asked = request(someTokens(20, 8), { cache: { salt: "", tenant, read: true, save: true }, maxTokens });
    try {
      for await (const { kind } of engine.generate(asked, new AbortController().signal))
        if (kind === "prompt") turns.push(name);
    } catch (error) {
      turns.push(`${name} ${codeOf(error)}`);
    }
  };
  const long = run("running", "a", 600);
  await until(() => engine.stats().runningRequests === 1);
  const waiting = ["a1", "a2", "a3", "a4"].map((name) => run(name, "a", 8));
  await run("a5", "a", 8);
  await until(() => turns.includes("running"));
  expect(turns.sort(), "alone it may fill the queue, and no more").toEqual(["a5 QUEUE_FULL", "running"]);
  const others = ["b1", "b2", "b3"].map((name) => run(name, "b", 1));
  await Promise.all([long, ...waiting, ...others]);
  expect(turns.slice(2, 5).sort()).toEqual(["a3 QUEUE_FULL", "a4 QUEUE_FULL", "b3 QUEUE_FULL"]);
  expect(turns.slice(5)).toEqual(["b1", "a1", "b2", "a2"]);
});

const impatient = { silentMs: 500, hungMs: 1500, busyMs: 60_000, tickMs: 100 };

test.runIf(process.platform === "linux")(
  "an engine that hangs is told, refuses at once, fails what it had, and is started again",
  async () => {
    await using bench = new EngineBench();
    const engine = bench.start({}, { watchLimits: impatient });
    await engine.ready;
    const running = ask(engine, someTokens(20, 12), { maxTokens: 900 });
    running.catch(() => {}); // expected below
    await until(() => engine.stats().runningRequests === 1);
    const { pid } = engine;
    process.kill(pid!, "SIGSTOP");
    await until(() => engine.stats().state === "hung");
    await expect(ask(engine, someTokens(20, 13))).rejects.toMatchObject({ code: "ENGINE_FAILED" });
    await expect(running).rejects.toMatchObject({ code: "ENGINE_FAILED" });
    expect(engine.stats()).toMatchObject({ state: "loading" });
    expect((await ask(engine, someTokens(20, 13))).tokens).toHaveLength(8);
    expect(engine.stats()).toMatchObject({ state: "ready", restarts: 1 });
    expect(engine.pid).not.toBe(pid);
  },
);

test("an engine that idles does not hang", async () => {
  await using bench = new EngineBench();
  const engine = bench.start({}, { watchLimits: impatient });
  await engine.ready;
  await new Promise((resolve) => setTimeout(resolve, 2 * impatient.hungMs));
  expect((await ask(engine, someTokens(20, 6))).tokens).toHaveLength(8);
  expect(engine.stats()).toMatchObject({ state: "ready", restarts: 0 });
});

test("settings that have no effect here are told at the start, each in a line", async () => {
  const warned: string[] = [];
  const log = { ...silentLog, warn: (line: string) => void warned.push(line), named: () => log };
  await using bench = new EngineBench();
  await bench.start({ gpuLayers: 5, maxGapMs: 20, deterministic: true, sequences: 1 }, { log }).ready;
  expect(warned).toEqual([
    "--gpu-layers 5 has no effect: no GPU is used",
    expect.stringMatching(/^--max-gap 20 has no effect/),
  ]);
});
