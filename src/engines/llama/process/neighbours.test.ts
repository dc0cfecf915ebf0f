import { afterAll, expect, test } from "vitest";
import { FakeCache } from "../../../../test/support/fake-cache.ts";
import { Rig, chunkTokens, loadTiny } from "../../../../test/support/scheduler-rig.ts";
import type { RigOptions } from "../../../../test/support/scheduler-rig.ts";
import { someTokens } from "../../../../test/support/tokens.ts";
import { measureLayout } from "./family.ts";
import type { Generation } from "./generation.ts";
import { Neighbours } from "./neighbours.ts";
import { ResidentMatches } from "./resident-matches.ts";
import { Sequence } from "./sequence.ts";
import type { PayloadLayout } from "./sequence-state.ts";

const model = loadTiny({ family: "llama" });
const rigs: Rig[] = [];
/** A cache that has no room for anything: what is found is found beside it. */
const emptyCache = () => new FakeCache({ chunkTokens, slotBytes: 0, slots: 0 });

function rig(options: RigOptions = {}): Rig {
  const made = new Rig(model, { layout: "streams", sequences: 4, rowMs: 0.5, cache: emptyCache(), ...options });
  rigs.push(made);
  return made;
}

afterAll(async () => {
  for (const rig of rigs) await rig.close();
});

const branch = (common: Uint32Array, own: number) => Uint32Array.from([...common, ...someTokens(8, own)]);

test("chats that branch early share what they have in common, token for token", async () => {
  const engine = rig();
  const common = someTokens(14, 1);
  const long = Uint32Array.from([...common, ...someTokens(40, 2)]);
  await engine.ask(long);
  for (const own of [3, 4, 5]) {
    const prompt = branch(common, own);
    const { report, tokens } = await engine.ask(prompt);
    expect(report).toMatchObject({ promptTokens: 22, computedTokens: 8, reused: { resident: 14 } });
    expect(tokens).toEqual((await rig().ask(prompt)).tokens);
  }
  await engine.settled();
});

test("a request shares what one that runs beside it holds, and a long beginning comes in pieces", async () => {
  const engine = rig();
  const common = someTokens(500, 6);
  await engine.ask(branch(common, 7), { maxTokens: 1 });
  const running = engine.start(branch(common, 7), { maxTokens: 200 }); // in the sequence that holds it
  const { report, tokens } = await engine.ask(branch(common, 8));
  expect(report).toMatchObject({ computedTokens: 8, reused: { resident: 500 } });
  expect(tokens).toEqual((await rig().ask(branch(common, 8))).tokens);
  await running.answer;
  await engine.settled();
});

test("what is stored is loaded, and only the rest is copied from beside", async () => {
  const cache = new FakeCache({ chunkTokens, slotBytes: 1 << 20, slots: 200 });
  const engine = rig({ cache });
  const common = someTokens(100, 10);
  await engine.ask(Uint32Array.from([...common, ...someTokens(300, 11)]), { maxTokens: 1 });
  await engine.settled();
  const { report } = await engine.ask(branch(common, 12));
  expect(report.computedTokens).toBe(8);
  expect((report.reused.memory ?? 0) + (report.reused.resident ?? 0)).toBe(100);
  await engine.settled();
});

test("deterministic: whole slices are shared between sequences, and the answer is the cold one bit for bit", async () => {
  const engine = rig({ deterministic: true });
  const common = someTokens(150, 13);
  const long = Uint32Array.from([...common, ...someTokens(300, 14)]);
  await engine.ask(long);
  const running = engine.start(long, { maxTokens: 200 }); // in the sequence that holds it
  const prompt = branch(common, 15);
  const ask = { logprobs: 5, maxTokens: 20 };
  const warm = await engine.ask(prompt, ask);
  expect(warm.report).toMatchObject({ computedTokens: 158 - 128, reused: { resident: 128 } });
  const cold = await rig({ deterministic: true }).ask(prompt, ask);
  expect(warm.events.slice(1)).toEqual(cold.events.slice(1));
  await running.answer;
  await engine.settled();
});

test("nothing is shared across salts, from requests that leave no trace, or with those that read nothing", async () => {
  const engine = rig();
  const common = someTokens(30, 16);
  const cache = { salt: "", read: true, save: true };
  const long = Uint32Array.from([...common, ...someTokens(60, 17)]);
  await engine.ask(long, { cache: { ...cache, salt: "a" } });
  expect((await engine.ask(branch(common, 18), { cache: { ...cache, salt: "b" } })).report.computedTokens).toBe(38);
  expect((await engine.ask(branch(common, 19), { cache: { ...cache, salt: "a" } })).report.computedTokens).toBe(8);
  const silent = { ...cache, salt: "c" };
  const running = engine.start(long, { cache: { ...silent, save: false }, maxTokens: 100 });
  expect((await engine.ask(branch(common, 20), { cache: silent })).report.computedTokens).toBe(38);
  await running.answer;
  expect((await engine.ask(branch(common, 21), { cache: { ...cache, read: false } })).report.computedTokens).toBe(38);
  await engine.settled();
});

/** Two sequences, of which one holds a prompt of 70 tokens. */
function holding(): { donor: Sequence; target: Sequence; prompt: Uint32Array; layout: PayloadLayout } {
  const { contexts } = rig({ sequences: 2, layout: "own" });
  const layout = contexts.map((context) => measureLayout(context).layout!)[0]!; // a family that is reused
  const [donor, target] = contexts.map((context) => new Sequence(context, 0, 1024)) as [Sequence, Sequence];
  const prompt = someTokens(70, 22);
  for (const [position, token] of prompt.entries()) {
    donor.context.begin();
    donor.context.add(0, position, token, false);
    expect(donor.context.decode()).toBe("done");
  }
  donor.append(prompt);
  return { donor, target, prompt, layout };
}

/** All that a copy looks at. */
function asking(tokens: Uint32Array): Generation {
  const request = { tokens, cache: { salt: "", read: true } };
  return { request, countReused: () => {}, loadMs: 0 } as unknown as Generation;
}

test("KV that has more bytes than a buffer may have is copied in pieces", async () => {
  const { donor, target, prompt, layout } = holding();
  const neighbours = new Neighbours({
    sequences: [donor, target],
    layout: { ...layout, keys: [{ type: 1, bytes: 2 ** 29 }] }, // as room is made for it: none of it is touched
    matches: new ResidentMatches(undefined),
    sliceTokens: undefined,
    computeMsPerToken: () => 1e6,
  });
  await neighbours.takeInto(target, asking(prompt.subarray(0, 16)));
  expect(target.count).toBe(15);
});

test("where copying costs more than computing it is not done, and it is tried again later", async () => {
  const { donor, target, prompt, layout } = holding();
  let computeMsPerToken = 0;
  const neighbours = new Neighbours({
    sequences: [donor, target],
    layout,
    matches: new ResidentMatches(undefined),
    sliceTokens: undefined,
    computeMsPerToken: () => computeMsPerToken,
  });
  const copied = async () => {
    await neighbours.takeInto(target, asking(prompt));
    const { count } = target;
    target.truncate(0);
    return count;
  };
  expect(await copied()).toBe(0);
  computeMsPerToken = 1000;
  expect(await copied()).toBe(69);
  computeMsPerToken = 1e-9;
  expect(await copied()).toBe(0);
  for (let tries = 0; (await copied()) === 0; tries += 1) expect(tries).toBeLessThan(1000);
});
