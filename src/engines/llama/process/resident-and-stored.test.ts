/** What the engine reuses and keeps, however the cells of its sequences lie. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Rig, chunkTokens, loadTiny } from "../../../../test/support/scheduler-rig.ts";
import type { RigOptions } from "../../../../test/support/scheduler-rig.ts";
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

function rigOf(layout: NonNullable<RigOptions["layout"]>, options: RigOptions): Rig {
  const made = new Rig(model, { layout, rowMs: 0.5, ...options }); // so that a copy is worth it
  rigs.push(made);
  return made;
}

const noCache = { salt: "", read: false, save: false };

describe.each(["unified", "streams", "device"] as const)("cells are %s:", (layout) => {
  const rig = (options: RigOptions = {}) => rigOf(layout, options);

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
      const restoring = await context!.copies.restore(1, entry.firstToken, to);
      const at = { from: entry.firstToken, to, tokenCount: to - entry.firstToken };
      expect(restoring.add(payload, at)).toBe("restored");
      await restoring.arrived();
      expect(restoring.end()).toBe(true);
      const copy = new Uint8Array(payload.length);
      expect(context!.copies.save(1, entry.firstToken, to, copy)).toBe(payload.length);
      expect(Buffer.compare(copy, payload)).toBe(0);
    }
  });

  test("what is saved of a sequence is what it holds now, whoever had it before", async () => {
    const prompts = [someTokens(200, 41), someTokens(200, 42)] as const;
    const fresh = rig({ sequences: 1 });
    await fresh.ask(prompts[1], { maxTokens: 1 });
    await fresh.settled();
    const used = rig({ sequences: 1 });
    for (const prompt of prompts) {
      await used.ask(prompt, { maxTokens: 1 });
      await used.settled();
    }
    const saved = (one: Rig) => one.cache.payloads().slice(-fresh.cache.entries.length);
    expect(saved(used)).toEqual(saved(fresh));
  });

  test("a running request's prompt is shared with another while it runs", async () => {
    const engine = rig();
    const prompt = someTokens(300, 9);
    const first = engine.start(prompt, { maxTokens: 200 });
    const events = first.answer;
    await engine.ask(someTokens(20, 10)); // by now the first one decodes
    const second = await engine.ask(prompt);
    expect(second.report.computedTokens).toBe(1);
    if (layout !== "streams") expect(second.report.reused).toEqual({ resident: 299 }); // by reference
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
    const other = engine.start(someTokens(160, 49)); // it comes after the first, which has less to compute
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

  test("whatever is asked, shared, saved and cancelled: the books are right, and answers those of an engine with no memory", async () => {
    const random = numbers(4712);
    const engine = rig({ sequences: 3 });
    const plain = rigOf("own", { sequences: 1, deterministic: true });
    const shared = someTokens(300, 102);
    const same: boolean[] = [];
    for (let round = 0; round < 6; round += 1) {
      const running = Array.from({ length: 8 }, (_, index) => {
        const begin = shared.subarray(0, random(300));
        const prompt = Uint32Array.from([...begin, ...someTokens(1 + random(80), 200 + 10 * round + index)]);
        const cache = { salt: "", read: true, save: random(4) > 0 };
        return { prompt, ...engine.start(prompt, { cache, maxTokens: 1 + random(20) }) };
      });
      for (const { id } of running) {
        await new Promise((resolve) => setImmediate(resolve));
        if (random(3) === 0) engine.scheduler.cancel(id);
      }
      await engine.settled();
      expect(engine.cache.leases.size).toBe(0);
      for (const { prompt, answer } of running) {
        const done = await Promise.race([answer, Promise.resolve(undefined)]);
        if (done === undefined) continue; // cancelled
        const alone = await plain.ask(prompt, { cache: noCache, maxTokens: done.tokens.length });
        same.push(done.tokens.join() === alone.tokens.join());
      }
    }
    expect(same.length).toBeGreaterThan(20);
    // Rows of several sequences are added up in another order: where two tokens are nearly as likely the other one may win.
    expect(same.filter(Boolean).length / same.length).toBeGreaterThan(0.9);
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
});
