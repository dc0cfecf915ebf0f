/** Answers with drafts are the answers without them, whatever is asked for and whatever happens to a step. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Rig, freeRows, loadModel, loadTiny } from "../../../../test/support/scheduler-rig.ts";
import type { Answer, RigOptions } from "../../../../test/support/scheduler-rig.ts";
import { shippedModelPath } from "../../../../test/support/repository.ts";
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

function rig(options: RigOptions, of: Model = model): Rig {
  const made = new Rig(of, options);
  rigs.push(made);
  return made;
}

/** What a client sees, with log-probabilities as exact as they are from one batch to another. */
function seen({ events }: Answer): unknown[] {
  return events.flatMap((event): unknown[] => {
    if (event.kind === "prompt") return [];
    if (event.kind === "end") return [{ reason: event.reason, completionTokens: event.completionTokens }];
    const logprobs = event.logprobs?.map(({ token, logprob, top }) => [token, logprob.toFixed(2), top.length]);
    return [{ text: event.text, tokens: event.tokens, logprobs }];
  });
}

function counts({ events }: Answer): { draftedTokens: number; acceptedTokens: number } {
  const { draftedTokens = 0, acceptedTokens = 0 } = events.at(-1) as {
    draftedTokens?: number;
    acceptedTokens?: number;
  };
  return { draftedTokens, acceptedTokens };
}

const noCache = { salt: "", read: false, save: false };
/** Of few different tokens: whatever is drawn, something followed it before. */
const repeating = someTokens(150, 9, 12);

describe.each(["unified", "streams"] as const)("%s", (layout) => {
  const drafting = () => rig({ layout, rowCost: freeRows });
  const plain = () => rig({ layout });
  const drawn = { ...greedy, temperature: 1, topK: 4, seed: 7 };

  test.each([
    ["greedy", {}],
    ["with a seed", { sampling: drawn }],
    ["few likely tokens", { sampling: { ...drawn, topK: 3 } }],
    ["penalties", { sampling: { ...drawn, repeatPenalty: 1.02, presencePenalty: 0.02, frequencyPenalty: 0.01 } }],
    ["greedy with a penalty", { sampling: { ...greedy, presencePenalty: 0.7 } }],
    ["log-probabilities", { logprobs: 3 }],
    ["the model's own end", { ignoreEnd: false, sampling: { ...drawn, temperature: 5 }, minTokens: 10 }],
    ["one token", { maxTokens: 1 }],
    ["two tokens", { maxTokens: 2 }],
  ])("%s: the answer is the same", async (_, request) => {
    const ask = { maxTokens: 120, cache: noCache, ...request };
    const [without, answer] = [await plain().ask(repeating, ask), await drafting().ask(repeating, ask)];
    expect(seen(answer)).toEqual(seen(without));
    const { draftedTokens, acceptedTokens } = counts(answer);
    if (answer.tokens.length > 20) expect(draftedTokens).toBeGreaterThan(0);
    expect(acceptedTokens).toBeLessThan(answer.tokens.length);
  });

  test("stop tokens and stop texts end the answer where they did, and so does the context", async () => {
    const [engine, without] = [drafting(), plain()];
    const ask = { maxTokens: 80, sampling: { ...drawn, topK: 4 }, cache: noCache };
    const whole = await without.ask(repeating, ask);
    for (const place of [3, 20, 41, 60]) {
      const stopTokens = [whole.tokens[place]!];
      const stop = [whole.text.slice(place, place + 2)].filter(Boolean);
      for (const request of [
        { ...ask, stopTokens },
        { ...ask, stop },
      ])
        expect(seen(await engine.ask(repeating, request))).toEqual(seen(await without.ask(repeating, request)));
    }
    for (const tokens of [1015, 1000]) {
      const long = { ...ask, maxTokens: 500, sampling: greedy };
      const prompt = someTokens(tokens, 5, 12);
      expect(seen(await engine.ask(prompt, long))).toEqual(seen(await without.ask(prompt, long)));
    }
  });

  test("drafts of all kinds were right and wrong: the tests above compare something", async () => {
    const engine = drafting();
    const right = counts(await engine.ask(repeating, { maxTokens: 100 }));
    expect(right.acceptedTokens).toBeGreaterThan(60);
    const wrong = counts(await engine.ask(repeating, { maxTokens: 100, sampling: drawn }));
    expect(wrong.draftedTokens).toBeGreaterThan(200);
    expect(wrong.acceptedTokens).toBeLessThan(100);
  });

  test("no draft that was refused is kept or stored: what comes next goes on from the answer's own tokens", async () => {
    const engine = drafting();
    const sampling = { ...drawn, topK: 2 };
    const first = await engine.ask(repeating, { maxTokens: 100, sampling });
    await engine.settled();
    const held = Uint32Array.from([...repeating, ...first.tokens]);
    const next = Uint32Array.from([...held, ...someTokens(20, 3)]);
    const expected = (await plain().ask(next, { cache: noCache })).tokens;
    const stored = await rig({ layout, cache: engine.cache }).ask(next);
    expect(stored.report.reused).toEqual({ memory: held.length - 1 });
    expect(stored.tokens).toEqual(expected);
    const resident = await engine.ask(next);
    expect(resident.report.reused).toEqual({ resident: held.length - 1 });
    expect(resident.tokens).toEqual(expected);
  });

  test("a step that is stopped changes nothing: the request goes on", async () => {
    const engine = drafting();
    const [context] = engine.contexts;
    const decode = context!.decode.bind(context);
    let stopped = 0;
    context!.decode = (cost, drafts) => ((drafts ?? 0) > 0 && stopped++ % 3 === 0 ? "aborted" : decode(cost, drafts));
    const ask = { maxTokens: 60, sampling: { ...drawn, topK: 3 } };
    expect(seen(await engine.ask(repeating, ask))).toEqual(seen(await plain().ask(repeating, ask)));
    expect(stopped).toBeGreaterThan(3);
    await engine.settled();
  });

  test("several at a time, cancelled or not: every answer is its own, and the books are right", async () => {
    // Who else is in a batch changes the last bits: answers of a few words that are clearly told apart.
    const clear = { ...greedy, logitBias: Array.from({ length: 6 }, (_, i) => [6 + i, 20 + 0.37 * i * i] as const) };
    const random = numbers(12);
    const [engine, without] = [rig({ layout, rowCost: freeRows, sequences: 3 }), plain()];
    const asked = Array.from({ length: 24 }, (_, index) => {
      const prompt = someTokens(40 + random(200), 60 + index, 12);
      const request = { maxTokens: 1 + random(60), sampling: { ...clear, frequencyPenalty: 1.7 * random(2) } };
      return { prompt, request, ...engine.start(prompt, request) };
    });
    for (const { id } of asked) {
      for (let turns = random(20); turns > 0; turns -= 1) await new Promise((resolve) => setImmediate(resolve));
      if (random(5) === 0) engine.scheduler.cancel(id);
    }
    await engine.settled();
    let compared = 0;
    for (const { prompt, request, answer } of asked) {
      const done = await Promise.race([answer, Promise.resolve(undefined)]);
      if (done === undefined) continue; // cancelled
      expect(seen(done)).toEqual(seen(await without.ask(prompt, { ...request, cache: noCache })));
      compared += 1;
    }
    expect(compared).toBeGreaterThan(10);
  });
});

test("nothing is drafted that the answer has no room for", async () => {
  const engine = rig({ rowCost: freeRows });
  const decoded = watched(engine);
  const sampling = { ...greedy, logitBias: [[300, 100] as const] };
  await engine.ask(new Uint32Array(20).fill(300), { sampling, maxTokens: 6 });
  // One comes of the prompt, one of a step without drafts, and four of the last.
  expect(decoded.map(({ drafts }) => drafts)).toEqual([0, 0, 3]);
});

test("cells run out: drafts go before what others have left there", async () => {
  const engine = rig({ contextTokens: 500, cells: 512, rowCost: freeRows });
  const idle = someTokens(250, 90);
  await engine.ask(idle, { maxTokens: 1 });
  // 62 cells are left. It ends when they are nearly taken, which nobody knows before.
  const [end, word] = [300, 301];
  const sampling = { ...greedy, logitBias: [[end, 200] as const, [word, 100] as const] };
  const decoded = watched(engine);
  const until = { maxTokens: 200, stopTokens: [end], minTokens: 60 };
  const answer = await engine.ask(someTokens(200, 9), { sampling, ...until });
  expect(answer.tokens).toHaveLength(60);
  expect(decoded.filter(({ result, drafts }) => result === "no room" && drafts > 0)).not.toEqual([]);
  expect(decoded.filter(({ result, drafts }) => result === "no room" && drafts === 0)).toEqual([]);
  expect((await engine.ask(idle, { maxTokens: 1 })).report.reused).toEqual({ resident: 249 });
  await engine.settled();
});

test("the shipped model writes the same with drafts: where it repeats itself, and where it does not", async () => {
  const shipped = loadModel(shippedModelPath);
  const options = { contextTokens: 1024, layout: "streams" } as const;
  const [without, engine] = [rig(options, shipped), rig({ ...options, rowCost: freeRows }, shipped)];
  const rooms = Array.from({ length: 6 }, (_, room) => `The key of room ${room} is ${(room * 37) % 100}.`).join(" ");
  const note = "Note 1. The Oslo bakery keeps its spare keys in drawer 12. It is run by Anna Berg.";
  const story = "Once there was a small dog who lived by the sea. Every morning the dog barked at the waves.";
  const asked = `<|user|>\n${note}\n\nQuestion: Who runs the Oslo bakery?<|end|>\n<|assistant|>\n`;
  const total = { draftedTokens: 0, acceptedTokens: 0 };
  for (const prompt of [asked, rooms, `${note}\n\n${note}`, `${story} ${story}`, "The history of the city begins"]) {
    for (const ignoreEnd of [false, true]) {
      const ask = { maxTokens: 80, ignoreEnd, cache: noCache };
      const answer = await engine.ask(prompt, ask);
      expect(answer.text).toBe((await without.ask(prompt, ask)).text);
      total.draftedTokens += counts(answer).draftedTokens;
      total.acceptedTokens += counts(answer).acceptedTokens;
    }
  }
  expect(total.acceptedTokens).toBeGreaterThan(50);
  expect(total.acceptedTokens).toBeLessThan(total.draftedTokens);
});

/** Every decode from now on. */
function watched(engine: Rig): { readonly result: unknown; readonly drafts: number }[] {
  const decoded: { result: unknown; drafts: number }[] = [];
  const [context] = engine.contexts;
  const decode = context!.decode.bind(context);
  context!.decode = (cost, drafts) => {
    const result = decode(cost, drafts);
    decoded.push({ result, drafts: drafts ?? 0 });
    return result;
  };
  return decoded;
}
