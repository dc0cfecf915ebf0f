import { expect, test } from "vitest";
import type { Context } from "./context.ts";
import type { Generation } from "./generation.ts";
import { PromptSlicer } from "./prompt-slicer.ts";
import type { PromptSlicerOptions, Slice } from "./prompt-slicer.ts";
import { Sequence } from "./sequence.ts";
import { TiledAttention } from "./tiled-attention.ts";

const nowhere = {} as Context; // cutting moves nothing

function reader(promptTokens: number, options: { held?: number; lastUsed?: number } = {}): Sequence {
  const sequence = new Sequence(nowhere, 0, 10_000);
  sequence.append(new Uint32Array(options.held ?? 0));
  sequence.lastUsed = options.lastUsed ?? 0;
  sequence.generation = { work: { tokens: new Uint32Array(promptTokens) } } as unknown as Generation; // all it reads
  return sequence;
}

function slicer(change: Partial<PromptSlicerOptions> = {}): PromptSlicer {
  return new PromptSlicer({
    sliceTokens: undefined,
    shortSteps: false,
    computeMsPerToken: 1,
    contextTokens: 10_000,
    attention: undefined,
    ...change,
  });
}

function computed(slices: readonly Slice[]): void {
  for (const { sequence, tokens } of slices) sequence.append(tokens);
}

const lengths = (slices: readonly Slice[]) => slices.map(({ tokens }) => tokens.length);

/** Reads all that `sequences` have. @returns the lengths, step by step. */
function readAll(slicing: PromptSlicer, decoding: number, sequences: readonly Sequence[]): number[][] {
  const steps: number[][] = [];
  for (;;) {
    const left = sequences.filter(({ count, generation }) => count < generation!.work.tokens.length);
    if (left.length === 0) return steps;
    const slices = slicing.next(decoding, left);
    computed(slices);
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
  expect(lengths(slicer({ computeMsPerToken: 6 }).next(1, [reader(1000)]))).toEqual([64]);
  expect(lengths(slicer({ computeMsPerToken: 10 }).next(1, [reader(1000)]))).toEqual([20]);
  expect(lengths(slicer().next(0, [reader(1000)]))).toEqual([512]);
  expect(lengths(slicer({ shortSteps: true }).next(0, [reader(1000)]))).toEqual([192]);
});

test("a short question does not wait for a long prompt, and a long prompt does not wait for ever", () => {
  const slicing = slicer();
  const book = reader(5000, { lastUsed: 1 });
  let bookTokens = 0;
  for (let step = 0; step < 8; step += 1) {
    const slices = slicing.next(2, [book, reader(800, { held: 600, lastUsed: 2 + step })]);
    bookTokens += slices
      .filter(({ sequence }) => sequence === book)
      .reduce((sum, { tokens }) => sum + tokens.length, 0);
    if (step % 4 !== 3) expect(slices[0]!.sequence).not.toBe(book);
    computed(slices);
  }
  expect(bookTokens).toBe(2 * 192);
  expect(lengths(slicing.next(2, [book, reader(200)]))).toEqual([136]);
});

test("room that a short prompt leaves is used by the next", () => {
  const slices = slicer().next(0, [reader(2000), reader(130)]);
  expect(lengths(slices)).toEqual([130, 320]);
});

test("small slices do not make prompt tokens look dear", () => {
  const slicing = slicer();
  slicing.measured(300, slicing.next(0, [reader(40)]));
  expect(slicing.computeMsPerToken).toBe(1);
  slicing.measured(20, slicing.next(0, [reader(40)]));
  expect(slicing.computeMsPerToken).toBe(0.5);
  slicing.measured(512, slicing.next(0, [reader(600)]));
  expect(slicing.computeMsPerToken).toBeGreaterThan(0.5);
});

test("deterministic mode cuts at multiples of the chunk size, whoever else reads or decodes", () => {
  const slicing = slicer({ sliceTokens: 64, computeMsPerToken: 50 });
  const one = reader(500, { held: 64 });
  const two = reader(300);
  expect(lengths(slicing.next(3, [one, two]))).toEqual([64, 64]);
  two.append(new Uint32Array(256));
  expect(lengths(slicing.next(3, [two]))).toEqual([44]);
});

const small = { layers: 12, heads: 6, headSize: 64, parameters: 22e6 };

test("a piece of a tile is padded where attention row by row would cost more", () => {
  const attention = new TiledAttention({ ...small, threads: 1 });
  const padding = (promptTokens: number, held: number, change: Partial<PromptSlicerOptions> = {}) =>
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
  const cut = (threads: number, computeMsPerToken: number) =>
    lengths(
      slicer({ attention: new TiledAttention({ ...small, threads }), computeMsPerToken }).next(2, [
        reader(5000, { held: 1000 }),
      ]),
    );
  expect(cut(1, 0.6)).toEqual([320]);
  expect(cut(2, 0.6)).toEqual([256]);
});
