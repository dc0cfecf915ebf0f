import { expect, test } from "vitest";
import { cutPrompts } from "./prefill-slices.ts";
import type { SliceLimits } from "./prefill-slices.ts";
import type { RunningSequence, Slice } from "./step.ts";
import { TiledAttention } from "./tiled-attention.ts";

type Reader = RunningSequence & { held: number };

let readers = 0;

function reader(promptTokens: number, { held = 0, lastUsed = 0 } = {}): Reader {
  const sequence = readers++;
  const prompt = new Uint32Array(promptTokens);
  return { sequence, context: 0, phase: "prefill", held, prompt, next: 0, propose: () => prompt, lastUsed };
}

/** Cuts one step after the other, with `next`. */
function slicer(change: Partial<SliceLimits> = {}) {
  const limits = {
    sliceTokens: undefined,
    batches: "all" as const,
    batchTokens: 512,
    shortSteps: false,
    stepMs: 200,
    unitMs: 1,
    contextTokens: 10_000,
  };
  const smallUnit = { smallUnitMs: change.smallUnitMs ?? change.unitMs ?? limits.unitMs };
  let turn = 0;
  const next = (decoding: number, reading: readonly Reader[]) =>
    cutPrompts(reading, decoding, { ...limits, attention: undefined, turn: ++turn, ...change, ...smallUnit });
  return { next };
}

function computed(slices: readonly Slice[], readers: readonly Reader[]): void {
  for (const { sequence, tokens } of slices) readers.find((each) => each.sequence === sequence)!.held += tokens.length;
}

const lengths = (slices: readonly Slice[]) => slices.map(({ tokens }) => tokens.length);

/** Reads all that `sequences` have. @returns the lengths, step by step. */
function readAll(slicing: ReturnType<typeof slicer>, decoding: number, sequences: readonly Reader[]): number[][] {
  const steps: number[][] = [];
  for (;;) {
    const left = sequences.filter(({ held, prompt }) => held < prompt.length);
    if (left.length === 0) return steps;
    const slices = slicing.next(decoding, left);
    computed(slices, left);
    steps.push(lengths(slices));
  }
}

test("no slice is smaller than a tile, unless the prompt is", () => {
  for (let tokens = 64; tokens < 1300; tokens += 7) {
    for (const decoding of [0, 3]) {
      const steps = readAll(slicer(), decoding, [reader(tokens)]);
      expect(steps.flat().reduce((a, b) => a + b)).toBe(tokens);
      expect(Math.min(...steps.flat())).toBeGreaterThanOrEqual(64);
    }
  }
});

test("while others decode, a step takes no more tokens than 200 ms have room for, in whole tiles", () => {
  expect(readAll(slicer(), 3, [reader(1000)]).slice(0, 4)).toEqual([[192], [192], [192], [192]]);
  expect(lengths(slicer({ unitMs: 6 }).next(1, [reader(1000)]))).toEqual([33]);
  expect(lengths(slicer({ unitMs: 10 }).next(1, [reader(1000)]))).toEqual([20]);
  expect(lengths(slicer({ unitMs: 6, smallUnitMs: 10 }).next(1, [reader(1000)]))).toEqual([20]);
  expect(lengths(slicer({ smallUnitMs: 10 }).next(1, [reader(1000)]))).toEqual([192]);
  expect(lengths(slicer().next(0, [reader(1000)]))).toEqual([512]);
  expect(lengths(slicer({ shortSteps: true }).next(0, [reader(1000)]))).toEqual([192]);
});

test("a short question does not wait for a long prompt, and a long prompt does not wait for ever", () => {
  const slicing = slicer();
  const book = reader(5000, { lastUsed: 1 });
  let bookTokens = 0;
  for (let step = 0; step < 8; step += 1) {
    const question = reader(800, { held: 600, lastUsed: 2 + step });
    const slices = slicing.next(2, [book, question]);
    const ofBook = slices.filter(({ sequence }) => sequence === book.sequence);
    bookTokens += ofBook.reduce((sum, { tokens }) => sum + tokens.length, 0);
    if (step % 4 !== 3) expect(slices[0]!.sequence).toBe(question.sequence);
    computed(slices, [book, question]);
  }
  expect(bookTokens).toBe(2 * 192);
  expect(lengths(slicing.next(2, [book, reader(200)]))).toEqual([136]);
});

test("room that a short prompt leaves is used by the next", () => {
  const slices = slicer().next(0, [reader(2000), reader(130)]);
  expect(lengths(slices)).toEqual([130, 320]);
});

test("deterministic mode cuts at multiples of the chunk size, whoever else reads or decodes", () => {
  const slicing = slicer({ sliceTokens: 64, unitMs: 50 });
  const one = reader(500, { held: 64 });
  const two = reader(300);
  expect(lengths(slicing.next(3, [one, two]))).toEqual([64, 64]);
  two.held = 256;
  expect(lengths(slicing.next(3, [two]))).toEqual([44]);
});

const small = { layers: 12, heads: 6, headSize: 64, parameters: 22e6 };

test("a piece of a tile is padded where attention row by row would cost more", () => {
  const attention = new TiledAttention({ ...small, threads: 1 });
  const padding = (promptTokens: number, held: number, change: Partial<SliceLimits> = {}) =>
    slicer({ attention, ...change }).next(0, [reader(promptTokens, { held })])[0]!.padding;
  // Measured after 1,260 tokens: 25 rows take 73 ms, 46 take 131, a tile takes 90.
  expect(padding(1285, 1260)).toBe(0);
  expect(padding(1306, 1260)).toBe(18);
  expect(padding(1260 + 64, 1260)).toBe(0);
  expect(padding(46, 0)).toBe(0);
  expect(padding(1306, 1260, { attention: undefined })).toBe(0);
  expect(padding(1306, 1260, { sliceTokens: 64 })).toBe(0);
  expect(padding(1306, 1260, { contextTokens: 1320 })).toBe(0);
  // A model of 8 billion parameters computes few rows more than it must.
  const large = new TiledAttention({ layers: 32, heads: 32, headSize: 128, parameters: 8e9, threads: 1 });
  expect(padding(1306, 1260, { attention: large })).toBe(0);
  expect(padding(1320, 1260, { attention: large })).toBe(4);
});

test("slices have the size that the threads can share in whole tiles", () => {
  const cut = (threads: number, unitMs: number) =>
    lengths(
      slicer({ attention: new TiledAttention({ ...small, threads }), unitMs }).next(2, [reader(5000, { held: 1000 })]),
    );
  expect(cut(1, 0.23)).toEqual([320]);
  expect(cut(2, 0.23)).toEqual([256]);
});
