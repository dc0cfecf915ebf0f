import { expect, test } from "vitest";
import type { Tokens } from "../../../identity/tokens.ts";
import type { Context } from "./context.ts";
import type { Generation } from "./generation.ts";
import { place } from "./sequence-choice.ts";
import { Sequence } from "./sequence.ts";

const nowhere = { isShareable: true, leastShared: 0, truncate: () => {} } as unknown as Context; // placement moves nothing

function holding(
  held: number[],
  options: { lastUsed?: number; busy?: boolean; save?: boolean; salt?: string } = {},
): Sequence {
  const sequence = new Sequence(nowhere, 0, 100);
  sequence.append(Uint32Array.from(held));
  sequence.lastUsed = options.lastUsed ?? 0;
  sequence.salt = options.salt ?? "";
  const { save = true } = options;
  if (options.busy === true) sequence.generation = { request: { cache: { save } } } as unknown as Generation; // all it reads
  return sequence;
}

interface Change {
  readonly reuse?: boolean;
  readonly sliceTokens?: number;
  /** Tokens that are lost with each of the sequences. */
  readonly lost?: readonly number[];
}

function placeIn(sequences: Sequence[], prompt: number[], change: Change = {}) {
  const tokens: Tokens = Uint32Array.from(prompt);
  const { reuse = true, sliceTokens } = change;
  const lost = (sequence: Sequence) => change.lost?.[sequences.indexOf(sequence)] ?? 0;
  const placement = place(sequences, { prompt: tokens, salt: "", reuse, sliceTokens, lost });
  if (placement === undefined) return undefined;
  const { sequence, prefix, donor } = placement;
  return { index: sequences.indexOf(sequence), prefix, donor: donor === undefined ? -1 : sequences.indexOf(donor) };
}

test("the idle sequence that holds most of the prompt goes on", () => {
  const sequences = [holding([1, 2]), holding([1, 2, 3]), holding([9])];
  expect(placeIn(sequences, [1, 2, 3, 4])).toEqual({ index: 1, prefix: 3, donor: -1 });
});

test("a sequence that would lose most of what it holds gives its prefix to the one used longest ago", () => {
  const sequences = [
    holding([1, 2, 3, 4, 5, 6, 7, 8], { lastUsed: 1 }),
    holding([9], { lastUsed: 3 }),
    holding([8], { lastUsed: 2 }),
  ];
  expect(placeIn(sequences, [1, 2, 30])).toEqual({ index: 0, prefix: 2, donor: -1 });
  sequences[0]!.lastUsed = 9;
  expect(placeIn(sequences, [1, 2, 30])).toEqual({ index: 2, prefix: 2, donor: 0 });
});

test("a busy sequence shares what it has computed, unless it must leave no trace", () => {
  expect(placeIn([holding([1, 2, 3], { busy: true }), holding([])], [1, 2, 3, 4])).toEqual({
    index: 1,
    prefix: 3,
    donor: 0,
  });
  const silent = holding([1, 2, 3], { busy: true, save: false });
  expect(placeIn([silent, holding([])], [1, 2, 3, 4])).toEqual({ index: 1, prefix: 0, donor: -1 });
});

test("the last token of a prompt is always computed", () => {
  expect(placeIn([holding([1, 2, 3])], [1, 2, 3])).toEqual({ index: 0, prefix: 2, donor: -1 });
});

test("nothing is shared across salts, or when reuse is not allowed", () => {
  expect(placeIn([holding([1, 2, 3], { salt: "a" }), holding([])], [1, 2, 3])).toEqual({
    index: 1,
    prefix: 0,
    donor: -1,
  });
  expect(placeIn([holding([1, 2, 3])], [1, 2, 3], { reuse: false })).toEqual({ index: 0, prefix: 0, donor: -1 });
});

test("deterministic mode reuses whole slices that were computed as such", () => {
  const whole = holding([1, 2, 3, 4]);
  whole.markReproducible();
  whole.append(Uint32Array.of(5));
  expect(placeIn([whole], [1, 2, 3, 4, 5, 6], { sliceTokens: 2 })).toEqual({ index: 0, prefix: 4, donor: -1 });
  expect(placeIn([whole], [1, 2, 3, 4], { sliceTokens: 2 })).toEqual({ index: 0, prefix: 2, donor: -1 });
});

test("what is approximate of a sequence nobody else reads, also when it was cut and went on", () => {
  const moved = holding([1, 2, 3, 4]);
  moved.taint(3);
  moved.taint(4); // what is approximate already stays it
  expect(placeIn([moved], [1, 2, 3, 4, 5])).toEqual({ index: 0, prefix: 3, donor: -1 });
  moved.truncate(3);
  moved.append(Uint32Array.of(4));
  expect(placeIn([moved], [1, 2, 3, 4, 5])).toEqual({ index: 0, prefix: 4, donor: -1 });
});

test("a sequence that somebody waits for is given away only when no other one would do", () => {
  const sequences = [holding([9, 8], { lastUsed: 1 }), holding([7, 6], { lastUsed: 2 })];
  expect(placeIn(sequences, [1, 2])).toMatchObject({ index: 0 });
  expect(placeIn(sequences, [1, 2], { lost: [500, 0] })).toMatchObject({ index: 1 });
  expect(placeIn(sequences, [1, 2], { lost: [500, 600] })).toMatchObject({ index: 0 });
  expect(placeIn(sequences, [1, 2], { lost: [500, 0], reuse: false })).toMatchObject({ index: 1 });
  expect(placeIn([...sequences, holding([])], [1, 2], { lost: [0, 0, 0] })).toMatchObject({ index: 2 });
});

test("nor is it extended in place: its beginning goes to another one", () => {
  const sequences = [holding([1, 2, 3, 4], { lastUsed: 2 }), holding([9], { lastUsed: 1 })];
  expect(placeIn(sequences, [1, 2, 3, 9])).toEqual({ index: 0, prefix: 3, donor: -1 });
  expect(placeIn(sequences, [1, 2, 3, 9], { lost: [500, 0] })).toEqual({ index: 1, prefix: 3, donor: 0 });
  const twice = [holding([1, 2, 3]), holding([1, 2, 3])];
  expect(placeIn(twice, [1, 2, 3, 9], { lost: [500, 0] })).toEqual({ index: 1, prefix: 3, donor: -1 });
  for (const each of sequences) each.markReproducible();
  expect(placeIn(sequences, [1, 2, 9], { sliceTokens: 2 })).toMatchObject({ index: 0, prefix: 2 });
  expect(placeIn(sequences, [1, 2, 9], { sliceTokens: 2, lost: [500, 0] })).toMatchObject({ index: 1, prefix: 0 });
});

test("no free sequence, no place", () => {
  expect(placeIn([holding([1], { busy: true })], [1, 2])).toBeUndefined();
});
