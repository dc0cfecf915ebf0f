import { afterAll, beforeAll, expect, test } from "vitest";
import { FakeCache } from "../../../../test/support/fake-cache.ts";
import { Rig, chunkTokens, loadTiny } from "../../../../test/support/scheduler-rig.ts";
import type { RigOptions } from "../../../../test/support/scheduler-rig.ts";
import { numbers, someTokens } from "../../../../test/support/tokens.ts";
import { greedy } from "../../../engine.ts";
import type { Model } from "../model/model.ts";

let model: Model;
const rigs: Rig[] = [];

beforeAll(() => {
  model = loadTiny({ family: "llama" });
});

afterAll(async () => {
  for (const rig of rigs) await rig.close();
});

function rig(options: RigOptions = {}, of: Model = model): Rig {
  const made = new Rig(of, options);
  rigs.push(made);
  return made;
}

const noCache = { salt: "", read: false, save: false };

test("four at a time answer as each would alone, and more wait their turn", async () => {
  const engine = rig({ sequences: 4, deterministic: true });
  const prompts = Array.from({ length: 7 }, (_, index) => someTokens(90 + 40 * index, 20 + index));
  const together = await Promise.all(prompts.map((prompt) => engine.ask(prompt, { maxTokens: 20 })));
  const alone = rig({ sequences: 1, deterministic: true });
  for (const [index, prompt] of prompts.entries()) {
    const answer = await alone.ask(prompt, { maxTokens: 20, cache: noCache });
    expect(together[index]!.tokens).toEqual(answer.tokens);
  }
});

test("padded prompt pieces leave no trace: neither in answers nor in slots nor in the cache", async () => {
  const streams = rig({ layout: "streams" });
  const known = someTokens(200, 31);
  for (const length of [40, 63, 240, 263]) {
    const prompt = Uint32Array.from([...known, ...someTokens(100, 32)]).subarray(0, length);
    const padded = await streams.ask(prompt);
    await streams.settled();
    expect(padded.tokens).toEqual((await rig().ask(prompt, { cache: noCache })).tokens);
  }
  const { report } = await streams.ask(Uint32Array.from([...known, ...someTokens(100, 32)]).subarray(0, 290));
  expect(report.reused).toEqual({ resident: 263 });
  const near = await streams.ask(someTokens(1020, 33), { maxTokens: 2 });
  expect(near.tokens).toHaveLength(2);
  await streams.settled();
});

test("deterministic mode: cold, resident and stored give the same logits bit for bit", async () => {
  const prompt = someTokens(333, 30);
  const ask = { maxTokens: 12, logprobs: 5 };
  const cold = rig({ deterministic: true });
  const first = await cold.ask(prompt, ask);
  await cold.settled();
  const resident = await cold.ask(prompt, ask);
  expect(resident.report.reused).toEqual({ resident: 320 });

  const stored = rig({ deterministic: true, cache: cold.cache, sequences: 3 });
  const busy = stored.start(someTokens(500, 31), { maxTokens: 100 });
  const loaded = await stored.ask(prompt, ask);
  expect(loaded.report.reused).toEqual({ memory: 320 });
  await busy.answer;

  const words = (answer: typeof first) => answer.events.filter((event) => event.kind === "text");
  expect(words(resident)).toEqual(words(first));
  expect(words(loaded)).toEqual(words(first));
});

test("an answer goes on at nearly its speed while another request waits for the cache", async () => {
  const engine = rig({ layout: "streams" });
  const first = engine.start(someTokens(20, 52), { maxTokens: 900 });
  const started = new Promise<void>((resolve) => {
    const look = (): void =>
      engine.contexts.some((context) => context.length(0) > 25) ? resolve() : void setImmediate(look);
    look();
  });
  await started;
  engine.cache.faults.hang = "lookup"; // for 150 ms, at 25 ms a step: no more than 6 tokens
  const second = engine.start(someTokens(30, 53), { maxTokens: 1 });
  const before = Math.max(...engine.contexts.map((context) => context.length(0)));
  await second.answer;
  expect(Math.max(...engine.contexts.map((context) => context.length(0))) - before).toBeGreaterThan(12);
  expect((await first.answer).tokens).toHaveLength(900);
});

test("cells run out: idle sequences go first, then the longest request fails and the others go on", async () => {
  const engine = rig({ contextTokens: 400, cells: 512 });
  await engine.ask(someTokens(380, 90));
  const second = await engine.ask(someTokens(300, 91));
  expect(second.tokens).toHaveLength(8);
  const outcomes = await Promise.allSettled([engine.ask(someTokens(380, 92)), engine.ask(someTokens(300, 93))]);
  expect(outcomes.filter(({ status }) => status === "rejected")).toEqual([
    { status: "rejected", reason: expect.objectContaining({ code: "ENGINE_FAILED" }) },
  ]);
  await engine.settled();
});

test("idle conversations stay until their room is needed, and then no more of them go than must, the least recent first", async () => {
  const cache = new FakeCache({ chunkTokens, slotBytes: 0, slots: 0 });
  const engine = rig({ sequences: 4, contextTokens: 400, cells: 1024, cache });
  const [first, second, third] = [someTokens(300, 94), someTokens(300, 95), someTokens(300, 96)] as const;
  for (const prompt of [first, second, third]) await engine.ask(prompt);
  await engine.ask(first); // by now the second one is the least recent
  await engine.settled();
  expect((await engine.ask(someTokens(200, 97))).report.computedTokens).toBe(200);
  await engine.settled();
  for (const prompt of [first, third]) {
    expect((await engine.ask(prompt)).report).toMatchObject({ computedTokens: 1, reused: { resident: 299 } });
  }
  expect((await engine.ask(second)).report).toMatchObject({ computedTokens: 300 });
  await engine.settled();
});

test("what is stored finds room as well: as many idle conversations go as it needs", async () => {
  const stored = rig();
  const known = someTokens(384, 98);
  await stored.ask(known, { maxTokens: 1 });
  await stored.settled();
  const engine = rig({ sequences: 4, contextTokens: 400, cells: 1024, cache: stored.cache });
  const cache = { salt: "", read: false, save: true };
  const others = [someTokens(300, 99), someTokens(300, 100), someTokens(300, 101)] as const;
  for (const prompt of others) await engine.ask(prompt, { cache });
  await engine.settled();
  expect((await engine.ask(known)).report).toMatchObject({ computedTokens: 1, reused: { memory: 383 } });
  const held = others.map((_, id) => engine.contexts[0]!.length(id));
  expect(held).toEqual([0, 307, 307]);
  await engine.settled();
});

test("whatever is asked, shared, saved and cancelled: every answer is that of an engine with no memory", async () => {
  const random = numbers(4711);
  const plain = rig({ sequences: 1, deterministic: true });
  const engine = rig({ sequences: 3, deterministic: true });
  const shared = [someTokens(300, 100), someTokens(200, 101)];
  const prompts = Array.from({ length: 40 }, (_, index) => {
    const begin = shared[random(2)]!.subarray(0, random(300));
    return Uint32Array.from([...begin, ...someTokens(1 + random(100), 110 + index)]);
  });
  const running = prompts.map((prompt) => {
    const cache = { salt: ["", "a"][random(2)]!, read: random(5) > 0, save: random(5) > 0 };
    return { prompt, ...engine.start(prompt, { cache, maxTokens: 1 + random(12) }) };
  });
  for (const { id } of running) {
    if (random(4) > 0) continue;
    for (let turns = random(30); turns > 0; turns -= 1) await new Promise((resolve) => setImmediate(resolve));
    engine.scheduler.cancel(id);
  }
  await engine.settled();
  expect(engine.cache.leases.size).toBe(0);

  let compared = 0;
  for (const { prompt, answer } of running) {
    const done = await Promise.race([answer, Promise.resolve(undefined)]);
    if (done === undefined) continue; // cancelled
    const { report, tokens } = done;
    const reused = Object.values(report.reused).reduce((sum, count) => sum + count, 0);
    expect(report.computedTokens + reused).toBe(prompt.length);
    const alone = await plain.ask(prompt, { cache: noCache, maxTokens: tokens.length });
    expect(tokens).toEqual(alone.tokens);
    compared += 1;
  }
  expect(compared).toBeGreaterThan(20);
});

test("the same seed draws the same answer, another seed another", async () => {
  const engine = rig({ sequences: 1 });
  const prompt = someTokens(50, 70);
  const sampling = { ...greedy, temperature: 1, topP: 0.95, topK: 100, seed: 7 };
  const ask = (seed: number) => engine.ask(prompt, { sampling: { ...sampling, seed }, cache: noCache, maxTokens: 30 });
  const first = await ask(7);
  expect((await ask(7)).tokens).toEqual(first.tokens);
  expect((await ask(8)).tokens).not.toEqual(first.tokens);
});

test("log-probabilities are the distribution's", async () => {
  const engine = rig();
  const all = await engine.ask(someTokens(20, 71), { logprobs: model.vocabularySize, maxTokens: 2 });
  for (const event of all.events) {
    if (event.kind !== "text") continue;
    for (const entry of event.logprobs!) {
      const sum = entry.top.reduce((sum, { logprob }) => sum + Math.exp(logprob), 0);
      expect(sum).toBeCloseTo(1, 4);
      expect(entry.logprob).toBe(entry.top[0]!.logprob); // greedy draws the likeliest
    }
  }
});

test("penalties keep a greedy answer from repeating itself", async () => {
  const engine = rig();
  const sampling = { ...greedy, presencePenalty: 100 };
  const { tokens } = await engine.ask(someTokens(20, 72), { sampling, maxTokens: 40 });
  expect(new Set(tokens).size).toBe(40);
});

test("an answer that must not end never draws an end token, however likely", async () => {
  const engine = rig();
  const ask = (seed: number, ignoreEnd: boolean) =>
    engine.ask(someTokens(12, 300), { sampling: { ...greedy, temperature: 10, seed }, ignoreEnd, maxTokens: 60 });
  const ended: number[] = [];
  for (let seed = 1; seed <= 60; seed += 1) if ((await ask(seed, false)).tokens.length < 60) ended.push(seed);
  expect(ended.length).toBeGreaterThan(0);
  for (const seed of ended) {
    const { tokens } = await ask(seed, true);
    expect(tokens).toHaveLength(60);
    expect(tokens.filter((token) => model.isEnd(token))).toEqual([]);
  }
});

test("the context's end is a length end", async () => {
  const engine = rig({ contextTokens: 256 });
  const answer = await engine.ask(someTokens(250, 73), { maxTokens: 100 });
  expect(answer.tokens).toHaveLength(6);
  expect(answer.events.at(-1)).toEqual({ kind: "end", reason: "length", completionTokens: 6 });
});

test.each(["mamba", "gemma3", "qwen2vl"] as const)("%s is served without reuse", async (family) => {
  const engine = rig({}, loadTiny({ family }));
  expect(engine.reuse).toBe(false);
  const prompt = someTokens(150, 80);
  const first = await engine.ask(prompt);
  expect((await engine.ask(prompt)).report.reused).toEqual({});
  expect((await engine.ask(prompt)).tokens).toEqual(first.tokens);
  expect(engine.cache.entries).toEqual([]);
});

test.each(["yarn", "qwen3"] as const)("%s reuses stored KV", async (family) => {
  const dense = loadTiny({ family });
  const one = rig({}, dense);
  const prompt = someTokens(200, 81);
  const { tokens } = await one.ask(prompt);
  await one.settled();
  const warm = await rig({ cache: one.cache }, dense).ask(prompt);
  expect(warm.report.reused).toEqual({ memory: 199 });
  expect(warm.tokens).toEqual(tokens);
});
