import { afterAll, beforeAll, expect, test } from "vitest";
import { Rig, chunkTokens, loadTiny } from "../../../../test/support/scheduler-rig.ts";
import type { RigOptions } from "../../../../test/support/scheduler-rig.ts";
import { someTokens } from "../../../../test/support/tokens.ts";
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

/** Random whole numbers below what is asked for, always the same ones. */
function numbers(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

const noCache = { salt: "", read: false, save: false };

test("a report's computed and reused tokens are the prompt's", async () => {
  const engine = rig();
  const prompt = someTokens(300, 1);
  const cold = await engine.ask(prompt);
  expect(cold.report).toMatchObject({ promptTokens: 300, computedTokens: 300, reused: {} });
  const again = await engine.ask(prompt);
  expect(again.report).toMatchObject({ promptTokens: 300, computedTokens: 1, reused: { resident: 299 } });
  expect(again.tokens).toEqual(cold.tokens);
});

test("a next turn goes on token-exactly from the answer before it", async () => {
  const engine = rig();
  const first = someTokens(100, 2);
  const { tokens } = await engine.ask(first, { maxTokens: 10 });
  const second = Uint32Array.from([...first, ...tokens, ...someTokens(20, 3)]);
  // The last token of an answer is drawn but never computed.
  const { report } = await engine.ask(second);
  expect(report).toMatchObject({ promptTokens: 130, computedTokens: 21, reused: { resident: 109 } });
});

test("stored KV is loaded beyond what is resident, partial chunks included", async () => {
  const one = rig();
  const prompt = someTokens(200, 4);
  const cold = await one.ask(prompt);
  await one.settled();
  expect(one.savedChunks).toBe(Math.ceil((200 + 7) / chunkTokens));
  expect(one.cache.leases.size).toBe(0);

  const two = rig({ cache: one.cache });
  const warm = await two.ask(prompt);
  expect(warm.report).toMatchObject({ computedTokens: 1, reused: { memory: 199 } });
  expect(warm.tokens).toEqual(cold.tokens);

  const other = Uint32Array.from([...prompt.subarray(0, 150), ...someTokens(50, 5)]);
  const three = rig({ cache: one.cache });
  const partly = await three.ask(other);
  expect(partly.report).toMatchObject({ computedTokens: 50, reused: { memory: 150 } });
  expect(partly.tokens).toEqual((await three.ask(other, { cache: noCache })).tokens);
  expect(one.cache.leases.size).toBe(0);
});

test("resident and stored KV add up in one prompt", async () => {
  const one = rig({ sequences: 1 });
  const prompt = someTokens(400, 6);
  await one.ask(prompt);
  await one.settled();
  await one.ask(Uint32Array.from([...prompt.subarray(0, 100), ...someTokens(30, 7)]));
  const both = await one.ask(prompt);
  expect(both.report).toMatchObject({ computedTokens: 1, reused: { resident: 100, memory: 299 } });
});

test("what is restored is what was saved, bit for bit", async () => {
  const one = rig();
  await one.ask(someTokens(150, 8), { maxTokens: 1 });
  await one.settled();
  const [context] = one.contexts;
  for (const [index, entry] of one.cache.entries.entries()) {
    const payload = one.cache.payloads()[index]!;
    const to = entry.text.length;
    context!.truncate(1, 0);
    expect(context!.restore(1, entry.firstToken, to, { pointer: payload, bytes: payload.length })).toBe("restored");
    const copy = new Uint8Array(payload.length);
    expect(context!.save(1, entry.firstToken, to, copy, copy.length)).toBe(payload.length);
    expect(Buffer.compare(copy, payload)).toBe(0);
  }
});

test("a running request's prompt is shared with another while it runs", async () => {
  const engine = rig();
  const prompt = someTokens(300, 9);
  const first = engine.start(prompt, { maxTokens: 200 });
  const events = first.answer;
  await engine.ask(someTokens(20, 10)); // by now the first one decodes
  const second = await engine.ask(prompt);
  expect(second.report.reused).toEqual({ resident: 299 });
  expect((await events).tokens.slice(0, 8)).toEqual(second.tokens);
});

test("salts never share, neither resident nor stored", async () => {
  const engine = rig();
  const prompt = someTokens(200, 11);
  await engine.ask(prompt, { cache: { salt: "a", read: true, save: true } });
  await engine.settled();
  const other = await engine.ask(prompt, { cache: { salt: "b", read: true, save: true } });
  expect(other.report.reused).toEqual({});
  const same = await engine.ask(prompt, { cache: { salt: "a", read: true, save: true } });
  expect(same.report.computedTokens).toBe(1);
});

test("save: false leaves nothing behind, read: false takes nothing", async () => {
  const engine = rig();
  const prompt = someTokens(200, 12);
  await engine.ask(prompt, { cache: { salt: "", read: true, save: false } });
  await engine.settled();
  expect(engine.cache.entries).toEqual([]);
  expect((await engine.ask(prompt)).report.reused).toEqual({});
  expect((await engine.ask(prompt, { cache: { salt: "", read: false, save: true } })).report.reused).toEqual({});
});

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
  const apart = rig({ apart: true });
  const known = someTokens(200, 31);
  for (const length of [40, 63, 240, 263]) {
    const prompt = Uint32Array.from([...known, ...someTokens(100, 32)]).subarray(0, length);
    const padded = await apart.ask(prompt);
    await apart.settled();
    expect(padded.tokens).toEqual((await rig().ask(prompt, { cache: noCache })).tokens);
  }
  const { report } = await apart.ask(Uint32Array.from([...known, ...someTokens(100, 32)]).subarray(0, 290));
  expect(report.reused).toEqual({ resident: 263 });
  const near = await apart.ask(someTokens(1020, 33), { maxTokens: 2 });
  expect(near.tokens).toHaveLength(2);
  await apart.settled();
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

test("a cancelled request leaves its sequence, and what it computed stays", async () => {
  const engine = rig({ sequences: 1 });
  const prompt = someTokens(900, 40);
  const { id } = engine.start(prompt, { maxTokens: 100 });
  await new Promise((resolve) => setImmediate(resolve));
  engine.scheduler.cancel(id);
  const next = await engine.ask(prompt);
  expect(next.report.promptTokens).toBe(900);
  engine.scheduler.cancel(12_345);
});

test("an answer is saved before the next request takes its sequence", async () => {
  const engine = rig({ sequences: 1 });
  engine.cache.faults.slow = "reserve";
  const prompt = someTokens(150, 48);
  const first = engine.start(prompt, { maxTokens: 60 });
  const other = engine.start(someTokens(100, 49));
  const { tokens } = await first.answer;
  await other.answer;
  await engine.settled();
  const { report } = await engine.ask(Uint32Array.from([...prompt, ...tokens, ...someTokens(20, 47)]));
  expect(report.reused).toEqual({ memory: 209 });
});

test("a cache that hangs, fails or is full costs no request", async () => {
  const healthy = rig();
  const prompt = someTokens(200, 50);
  const { tokens } = await healthy.ask(prompt);
  await healthy.settled();
  for (const faults of [{ hang: "lookup" }, { hang: "load" }, { fail: "lookup" }, { fail: "load" }] as const) {
    const engine = rig({ cache: healthy.cache });
    Object.assign(healthy.cache.faults, { hang: undefined, fail: undefined }, faults);
    const started = performance.now();
    const answer = await engine.ask(prompt, { cache: { salt: "", read: true, save: false } });
    expect(answer.tokens).toEqual(tokens);
    expect(performance.now() - started).toBeLessThan(1000);
  }
  for (const faults of [{ hang: "reserve" }, { fail: "reserve" }, { full: true }, { fail: "commit" }] as const) {
    const engine = rig();
    Object.assign(engine.cache.faults, faults);
    expect((await engine.ask(prompt)).tokens).toEqual(tokens);
    expect((await engine.ask(someTokens(100, 51))).tokens).toHaveLength(8);
    expect(engine.savedChunks).toBe(0);
  }
});

test("an answer goes on at nearly its speed while another request waits for the cache", async () => {
  const engine = rig({ apart: true });
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

test("the same disorder in one shared context keeps the books right", async () => {
  const random = numbers(4712);
  const engine = rig({ sequences: 3 });
  const shared = someTokens(300, 102);
  for (let round = 0; round < 6; round += 1) {
    const running = Array.from({ length: 8 }, (_, index) => {
      const begin = shared.subarray(0, random(300));
      const prompt = Uint32Array.from([...begin, ...someTokens(1 + random(80), 200 + 10 * round + index)]);
      return engine.start(prompt, { cache: { salt: "", read: true, save: random(4) > 0 }, maxTokens: 1 + random(20) });
    });
    for (const { id } of running) {
      await new Promise((resolve) => setImmediate(resolve));
      if (random(3) === 0) engine.scheduler.cancel(id);
    }
    await engine.settled();
    expect(engine.cache.leases.size).toBe(0);
  }
});

test("a payload that is not this space's is a miss", async () => {
  const one = rig();
  const prompt = someTokens(200, 60);
  const { tokens } = await one.ask(prompt);
  await one.settled();
  one.cache.payloads()[1]!.fill(7, 16, 40);
  const two = rig({ cache: one.cache });
  const answer = await two.ask(prompt);
  expect(answer.report.reused).toEqual({ memory: chunkTokens });
  expect(answer.tokens).toEqual(tokens);
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
