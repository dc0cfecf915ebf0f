import { expect, test } from "vitest";
import { noDrafts } from "./drafts.ts";
import { planBeside, planStep } from "./plan-step.ts";
import type { SliceLimits } from "./prefill-slices.ts";
import type { RunningSequence } from "./step.ts";
import { TiledAttention } from "./tiled-attention.ts";

/** A GPU's engine, where all sequences share a context, unless `change` says otherwise. */
function limits(change: Partial<SliceLimits> = {}): SliceLimits {
  const plain = {
    sliceTokens: undefined,
    batches: "all" as const,
    batchTokens: 512,
    shortSteps: false,
    contextTokens: 10_000,
    attention: undefined,
  };
  return { ...plain, stepMs: 200, unitMs: 1, smallUnitMs: change.unitMs ?? 1, turn: 1, ...change };
}

function running(sequence: number, change: Partial<RunningSequence>): RunningSequence {
  const idle = { held: 0, prompt: new Uint32Array(0), next: 0, propose: () => noDrafts, lastUsed: sequence };
  return { sequence, context: 0, phase: "prefill", ...idle, ...change };
}

const prompt = (tokens: number) => Uint32Array.from({ length: tokens }, (_, index) => index);

const answering = (sequence: number, change: Partial<RunningSequence> = {}) =>
  running(sequence, { phase: "decoding", prompt: prompt(20), held: 30 + sequence, next: 700 + sequence, ...change });

test("nobody runs, or all wait for the cache: nothing is computed", () => {
  expect(planStep([], limits())).toEqual({ batches: [], decoding: 0 });
  const loading = running(0, { phase: "loading", prompt: prompt(300) });
  expect(planStep([loading], limits())).toEqual({ batches: [], decoding: 0 });
});

test("a step is written down whole: tokens, positions, what ends a prompt and what it costs", () => {
  const step = planStep([running(0, { prompt: prompt(70), held: 50 }), answering(3)], limits());
  expect(step).toEqual({
    decoding: 1,
    batches: [
      {
        context: 0,
        decodes: [{ sequence: 3, position: 33, token: 703, drafts: noDrafts }],
        slices: [{ sequence: 0, position: 50, tokens: prompt(70).subarray(50), padding: 0, last: true }],
        cost: 21,
      },
    ],
  });
});

test("every answer goes on while others prefill, and those who load wait", () => {
  const all = [
    answering(0),
    running(1, { prompt: prompt(900) }),
    running(2, { phase: "loading", prompt: prompt(90) }),
    answering(3),
  ];
  const { batches, decoding } = planStep(all, limits());
  expect(decoding).toBe(2);
  expect(batches).toHaveLength(1);
  expect(batches[0]!.decodes.map(({ sequence }) => sequence)).toEqual([0, 3]);
  expect(batches[0]!.slices).toMatchObject([{ sequence: 1, position: 0, last: false }]);
});

test("drafts are computed where few answer: beside no prompt in the batch, and alone where all have as many rows", () => {
  const propose = () => prompt(3);
  const drafting = (sequence: number) => answering(sequence, { propose });
  const reading = running(9, { prompt: prompt(400) });
  const drafted = (all: RunningSequence[], isAlike: boolean) =>
    planStep(all, limits({ batches: isAlike ? "sequences" : "all" })).batches.map(({ decodes }) =>
      decodes.map(({ drafts }) => drafts.length),
    );
  for (const alike of [false, true]) expect(drafted([drafting(0)], alike)).toEqual([[3]]);
  expect(drafted([drafting(0), drafting(1)], false)).toEqual([[3, 3]]);
  expect(drafted([drafting(0), drafting(1)], true)).toEqual([[0, 0]]);
  expect(drafted([drafting(0), drafting(1), drafting(2)], false)).toEqual([[0, 0, 0]]);
  expect(drafted([drafting(0), reading], false)).toEqual([[0]]);
  expect(drafted([drafting(0), reading], true)).toEqual([[3], []]);
  expect(planStep([drafting(0)], limits()).batches[0]).toMatchObject({ cost: 4 });
});

test("the shortest rest comes first, but for every fourth step", () => {
  const book = running(0, { prompt: prompt(2000), lastUsed: 1 });
  const question = running(1, { prompt: prompt(1900), held: 1800, lastUsed: 2 });
  const orders = [1, 2, 3, 4].map((turn) =>
    planStep([book, question], limits({ turn })).batches[0]!.slices.map(({ sequence }) => sequence),
  );
  expect(orders).toEqual([[1, 0], [1, 0], [1, 0], [0]]);
});

test("a step has 512 tokens at most, and while answers run no more than 200 ms have room for", () => {
  const book = running(0, { prompt: prompt(2000) });
  const rows = (all: RunningSequence[], change: Partial<SliceLimits> = {}) => {
    const { decodes, slices } = planStep(all, limits(change)).batches[0]!;
    return { decodes: decodes.length, prefill: slices.reduce((sum, { tokens }) => sum + tokens.length, 0) };
  };
  expect(rows([book])).toEqual({ decodes: 0, prefill: 512 });
  expect(rows([book, answering(1)])).toEqual({ decodes: 1, prefill: 192 });
  const many = Array.from({ length: 254 }, (_, index) => answering(index + 1));
  expect(rows([book, ...many], { unitMs: 0.01 })).toEqual({ decodes: 254, prefill: 256 });
  expect(rows([book, answering(1)], { unitMs: 50 })).toEqual({ decodes: 1, prefill: 16 });
});

test("a context for every sequence: a batch for each that has something to do, in the contexts' order", () => {
  const all = [
    answering(0, { context: 2 }),
    running(1, { context: 0, prompt: prompt(40) }),
    running(2, { context: 1, phase: "loading" }),
  ];
  const { batches } = planStep(all, limits());
  expect(batches.map(({ context }) => context)).toEqual([0, 2]);
  expect(batches).toMatchObject([
    { decodes: [], slices: [{ sequence: 1 }], cost: 40 },
    { decodes: [{ sequence: 0 }], slices: [], cost: 1 },
  ]);
});

test("pieces are padded only where attention has tiles and the context has room", () => {
  const attention = new TiledAttention({ layers: 12, heads: 6, headSize: 64, parameters: 22e6, threads: 1 });
  const padding = (change: Partial<SliceLimits>) =>
    planStep([running(0, { prompt: prompt(1326), held: 1280 })], limits(change)).batches[0]!.slices[0]!.padding;
  expect(padding({ attention })).toBe(18);
  expect(padding({ attention: undefined })).toBe(0);
  expect(padding({ attention, sliceTokens: 64 })).toBe(0);
  expect(padding({ attention, contextTokens: 1340 })).toBe(0);
});

test("deterministic mode: one request a decode, cut where the chunks end, whoever else is there", () => {
  const asked = running(1, { context: 1, prompt: prompt(300), held: 100 });
  const slicesOf = (others: RunningSequence[]) => {
    const { batches } = planStep([asked, ...others], limits({ sliceTokens: 64, unitMs: 90 }));
    for (const { decodes, slices } of batches) expect(decodes.length + slices.length).toBe(1);
    return batches.find(({ context }) => context === 1)!.slices;
  };
  const alone = slicesOf([]);
  expect(alone).toEqual([{ sequence: 1, position: 100, tokens: prompt(128).subarray(100), padding: 0, last: false }]);
  const others = [answering(0), answering(2, { context: 2 }), running(3, { context: 3, prompt: prompt(500) })];
  expect(slicesOf(others)).toEqual(alone);
});

test("loading and saving have as much time as does not slow answers down", () => {
  const loading = running(0, { phase: "loading" });
  expect(planBeside([], 10)).toEqual({ loadMs: 0, saveMs: 20 });
  expect(planBeside([loading], 10)).toEqual({ loadMs: 25, saveMs: 5 });
  expect(planBeside([loading, answering(1)], 10)).toEqual({ loadMs: 5, saveMs: 2 });
  expect(planBeside([answering(1)], 10)).toEqual({ loadMs: 0, saveMs: 2 });
  expect(planBeside([loading, answering(1)], 1000)).toEqual({ loadMs: 25, saveMs: 5 });
  expect(planBeside([loading, answering(1)], Infinity)).toEqual({ loadMs: 25, saveMs: 5 });
});

test("where cells lie in streams the next tokens are a batch; prompts are one together on a device, and each one on a CPU", () => {
  const all = [
    answering(0),
    running(1, { prompt: prompt(40) }),
    answering(2),
    running(3, { prompt: prompt(60), held: 10 }),
  ];
  const shapes = (batches: SliceLimits["batches"]) =>
    planStep(all, limits({ batches, stepMs: 1000 })).batches.map(({ decodes, slices, cost }) => ({
      decodes: decodes.map(({ sequence }) => sequence),
      slices: slices.map(({ sequence }) => sequence),
      cost,
    }));
  expect(shapes("all")).toEqual([{ decodes: [0, 2], slices: [1, 3], cost: 92 }]);
  expect(shapes("prompts")).toEqual([
    { decodes: [0, 2], slices: [], cost: 2 },
    { decodes: [], slices: [1, 3], cost: 90 },
  ]);
  expect(shapes("sequences")).toEqual([
    { decodes: [0, 2], slices: [], cost: 2 },
    { decodes: [], slices: [1], cost: 40 },
    { decodes: [], slices: [3], cost: 50 },
  ]);
  expect(planStep([answering(0)], limits({ batches: "prompts" })).batches).toHaveLength(1);
});
