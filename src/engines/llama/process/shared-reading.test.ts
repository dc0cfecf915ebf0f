/** Prompts that begin alike and come together: what is computed of them, by whom, and who is told what. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { FakeCache } from "../../../../test/support/fake-cache.ts";
import { Rig, chunkTokens, loadTiny } from "../../../../test/support/scheduler-rig.ts";
import type { Answer, RigOptions } from "../../../../test/support/scheduler-rig.ts";
import { numbers, someTokens } from "../../../../test/support/tokens.ts";
import type { Model } from "../model/model.ts";

let model: Model;
const rigs: Rig[] = [];

beforeAll(() => {
  model = loadTiny({ family: "llama" });
});

afterAll(async () => {
  for (const rig of rigs) await rig.close();
});

/** The cache has no room for anything: what is not computed comes from beside. */
function rigOf(layout: "unified" | "streams" | "deterministic", options: RigOptions = {}): Rig {
  const cells: RigOptions = layout === "deterministic" ? { deterministic: true } : { layout };
  const cache = new FakeCache({ chunkTokens, slotBytes: 0, slots: 0 });
  const rowMs = layout === "unified" ? 0.02 : 0.5; // so that a copy is worth it, on a busy machine too
  const made = new Rig(model, { ...cells, sequences: 8, rowMs, cache, ...options });
  rigs.push(made);
  return made;
}

const noCache = { salt: "", read: false, save: false };
const computed = (answers: readonly Answer[]) => answers.reduce((sum, { report }) => sum + report.computedTokens, 0);
/** Rows of several sequences are added up in another order: where two tokens are nearly as likely the other one may win. */
function expectSame(same: readonly boolean[], layout: string): void {
  expect(same.filter(Boolean).length / same.length).toBeGreaterThan(layout === "deterministic" ? 0.999 : 0.8);
}

const isRight = ({ report }: Answer) => {
  const reused = Object.values(report.reused).reduce((sum, tokens) => sum + tokens, 0);
  return report.computedTokens + reused === report.promptTokens;
};

/** Turns of the event loop until some sequence holds so many tokens. */
async function untilHeld(engine: Rig, tokens: number): Promise<void> {
  const most = () =>
    Math.max(...engine.contexts.flatMap((one) => Array.from({ length: one.sequences }, (_, id) => one.length(id))));
  while (most() < tokens) await new Promise((resolve) => setImmediate(resolve));
}

describe.each(["unified", "streams", "deterministic"] as const)("%s:", (layout) => {
  /** What is computed of a prompt of which all was read by another request. */
  const least = (tokens: number) =>
    layout === "deterministic" ? tokens - chunkTokens * Math.floor((tokens - 1) / chunkTokens) : 1;

  test("identical prompts that come together are computed once, and every answer is that of one alone", async () => {
    const prompt = someTokens(700, 1);
    const engine = rigOf(layout);
    if (layout === "unified") {
      engine.contexts[0]!.copies.save = () => expect.fail("nothing is copied where sequences can have the same cells");
    }
    const together = await Promise.all(Array.from({ length: 8 }, () => engine.ask(prompt)));
    expect(computed(together)).toBe(700 + 7 * least(700));
    expect(together.map(({ report }) => report.reused.resident ?? 0).sort((a, b) => a - b)).toEqual([
      0,
      ...Array.from({ length: 7 }, () => 700 - least(700)),
    ]);
    const alone = await rigOf(layout).ask(prompt);
    expectSame(
      together.map(({ tokens }) => tokens.join() === alone.tokens.join()),
      layout,
    );
    await engine.settled();
  });

  test("so are they when they are more than there are sequences", async () => {
    const prompt = someTokens(400, 2);
    const engine = rigOf(layout, { sequences: 3 });
    const answers = await Promise.all(Array.from({ length: 9 }, () => engine.ask(prompt, { maxTokens: 2 })));
    expect(computed(answers)).toBe(400 + 8 * least(400));
    await engine.settled();
  });

  test("prompts that differ in their ends share the reading of what is before", async () => {
    const common = someTokens(600, 3);
    const prompts = Array.from({ length: 6 }, (_, index) =>
      Uint32Array.from([...common, ...someTokens(20, 10 + index)]),
    );
    const engine = rigOf(layout);
    const answers = await Promise.all(prompts.map((prompt) => engine.ask(prompt)));
    const own = 620 - (layout === "deterministic" ? chunkTokens * Math.floor(600 / chunkTokens) : 600);
    expect(computed(answers)).toBe(620 + 5 * own);
    const plain = rigOf(layout, { sequences: 1 });
    const same: boolean[] = [];
    for (const [index, { tokens }] of answers.entries()) {
      same.push((await plain.ask(prompts[index]!, { cache: noCache })).tokens.join() === tokens.join());
    }
    expectSame(same, layout);
    await engine.settled();
  });

  test("a request that comes later takes what is read by then, and follows for the rest", async () => {
    const prompt = someTokens(1000, 4);
    const engine = rigOf(layout, { rowMs: 0.5 });
    const first = engine.start(prompt);
    await untilHeld(engine, 1);
    const answers = [await engine.ask(prompt), await first.answer];
    expect(computed(answers)).toBe(1000 + least(1000));
    await engine.settled();
  });

  test("when the one that reads leaves, the next goes on from where it was", async () => {
    const prompt = someTokens(1000, 5);
    const engine = rigOf(layout, { rowMs: 0.3, sequences: 4 });
    const started = Array.from({ length: 4 }, () => engine.start(prompt, { maxTokens: 2 }));
    const next = engine.start(someTokens(1010, 9), { maxTokens: 2 }); // waits for the sequence of the first one that leaves
    for (const [index, { id }] of started.slice(0, 3).entries()) {
      await untilHeld(engine, 500 + 100 * index);
      engine.scheduler.cancel(id);
    }
    const { report } = await started[3]!.answer;
    expect(report.reused.resident).toBeGreaterThanOrEqual(448);
    await next.answer;
    await engine.settled();
    const other = await engine.ask(prompt);
    expect(computed([other])).toBe(least(1000));
  });

  test("nobody follows across salts, one that leaves no trace, or while it reads nothing", async () => {
    const prompt = someTokens(300, 6);
    const cache = { salt: "", read: true, save: true };
    const ask = (...uses: (typeof cache)[]) => {
      const engine = rigOf(layout);
      return Promise.all(uses.map((cache) => engine.ask(prompt, { cache, maxTokens: 2 })));
    };
    expect(computed(await ask({ ...cache, salt: "a" }, { ...cache, salt: "b" }))).toBe(600);
    expect(computed(await ask({ ...cache, save: false }, { ...cache, save: false }))).toBe(600);
    expect(computed(await ask(cache, { ...cache, read: false }))).toBe(600);
    expect(computed(await ask(cache, { ...cache, save: false }))).toBe(300 + least(300));
  });

  test("a failure of the one that reads costs the others nothing but its work", async () => {
    const prompt = someTokens(600, 7);
    const engine = rigOf(layout, { sequences: 3 });
    let fails = 1;
    for (const context of engine.contexts) {
      const decode = context.decode.bind(context);
      context.decode = (cost) => (fails-- > 0 ? { failed: -3 } : decode(cost));
    }
    const outcomes = await Promise.allSettled(Array.from({ length: 3 }, () => engine.ask(prompt)));
    expect(outcomes.map(({ status }) => status).sort()).toEqual(["fulfilled", "fulfilled", "rejected"]);
    const answers = outcomes.flatMap((outcome) => (outcome.status === "fulfilled" ? [outcome.value] : []));
    expect(computed(answers)).toBe(600 + least(600));
    await engine.settled();
  });

  test("whoever comes, shares and leaves at whatever time: all end, reports are right, and so are the books", async () => {
    const random = numbers(20_261);
    const engine = rigOf(layout, {
      sequences: 5,
      rowMs: 0.01,
      cache: new FakeCache({ chunkTokens, slotBytes: 2 ** 18, slots: 60 }),
    });
    const plain = rigOf("deterministic", { sequences: 1, rowMs: 0 });
    const texts = [someTokens(900, 30), someTokens(500, 31)];
    const same: boolean[] = [];
    for (let round = 0; round < 8; round += 1) {
      const running = Array.from({ length: 9 }, (_, index) => {
        const begin = texts[random(2)]!.subarray(0, [900, 500, 300, random(900)][random(4)]);
        const prompt = Uint32Array.from([
          ...begin,
          ...someTokens(1 + random(100), 100 + 10 * round + random(3) + index),
        ]);
        const cache = { salt: ["", "", "a"][random(3)]!, read: random(8) > 0, save: random(6) > 0 };
        return { prompt, ...engine.start(prompt, { cache, maxTokens: 1 + random(10) }) };
      });
      for (const { id } of running) {
        for (let turns = random(12); turns > 0; turns -= 1) await new Promise((resolve) => setImmediate(resolve));
        if (random(3) === 0) engine.scheduler.cancel(id);
      }
      await engine.settled();
      expect(engine.cache.leases.size).toBe(0);
      for (const { prompt, answer } of running) {
        const done = await Promise.race([answer, Promise.resolve(undefined)]);
        if (done === undefined) continue; // cancelled
        expect(isRight(done)).toBe(true);
        const alone = await plain.ask(prompt, { cache: noCache, maxTokens: done.tokens.length });
        same.push(done.tokens.join() === alone.tokens.join());
      }
    }
    expect(same.length).toBeGreaterThan(40);
    expectSame(same, layout);
  });
});

test("where copying costs more than computing nobody follows", async () => {
  const engine = rigOf("streams", { rowMs: 0 });
  const prompts = [someTokens(300, 8), someTokens(300, 8)];
  const [context] = engine.contexts;
  const save = context!.copies.save.bind(context!.copies);
  context!.copies.save = (...range) => {
    const end = performance.now() + 500;
    while (performance.now() < end); // a slow machine's copy
    return save(...range);
  };
  await engine.ask(someTokens(100, 9));
  const running = engine.start(someTokens(100, 9), { maxTokens: 400 });
  await engine.ask(someTokens(100, 9)); // copies, and so learns what that costs
  expect(computed(await Promise.all(prompts.map((prompt) => engine.ask(prompt))))).toBe(600);
  await running.answer;
  await engine.settled();
});
