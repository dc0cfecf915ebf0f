import { expect, test } from "vitest";
import type { Tokens } from "../../cache/chunk.ts";
import type { Context } from "./context.ts";
import type { Generation } from "./generation.ts";
import { place } from "./placement.ts";
import { Sequence } from "./sequence.ts";

const nowhere = {} as Context; // placement moves nothing

function slot(
  held: number[],
  options: { lastUsed?: number; busy?: boolean; save?: boolean; salt?: string } = {},
): Sequence {
  const sequence = new Sequence(nowhere, 0, 100);
  sequence.append(Uint32Array.from(held));
  sequence.lastUsed = options.lastUsed ?? 0;
  sequence.salt = options.salt ?? "";
  const { save = true } = options;
  if (options.busy === true) sequence.generation = { work: { cache: { save } } } as unknown as Generation; // all it reads
  return sequence;
}

function placeIn(sequences: Sequence[], prompt: number[], change: { reuse?: boolean; sliceTokens?: number } = {}) {
  const tokens: Tokens = Uint32Array.from(prompt);
  const { reuse = true, sliceTokens } = change;
  const placement = place(sequences, { prompt: tokens, salt: "", reuse, sliceTokens });
  if (placement === undefined) return undefined;
  const { sequence, prefix, donor } = placement;
  return { slot: sequences.indexOf(sequence), prefix, donor: donor === undefined ? -1 : sequences.indexOf(donor) };
}

test("the idle slot that holds most of the prompt goes on", () => {
  const slots = [slot([1, 2]), slot([1, 2, 3]), slot([9])];
  expect(placeIn(slots, [1, 2, 3, 4])).toEqual({ slot: 1, prefix: 3, donor: -1 });
});

test("a slot that would lose most of what it holds gives its prefix to the one used longest ago", () => {
  const slots = [
    slot([1, 2, 3, 4, 5, 6, 7, 8], { lastUsed: 1 }),
    slot([9], { lastUsed: 3 }),
    slot([8], { lastUsed: 2 }),
  ];
  expect(placeIn(slots, [1, 2, 30])).toEqual({ slot: 0, prefix: 2, donor: -1 });
  slots[0]!.lastUsed = 9;
  expect(placeIn(slots, [1, 2, 30])).toEqual({ slot: 2, prefix: 2, donor: 0 });
});

test("a busy slot shares what it has computed, unless it must leave no trace", () => {
  expect(placeIn([slot([1, 2, 3], { busy: true }), slot([])], [1, 2, 3, 4])).toEqual({ slot: 1, prefix: 3, donor: 0 });
  const silent = slot([1, 2, 3], { busy: true, save: false });
  expect(placeIn([silent, slot([])], [1, 2, 3, 4])).toEqual({ slot: 1, prefix: 0, donor: -1 });
});

test("the last token of a prompt is always computed", () => {
  expect(placeIn([slot([1, 2, 3])], [1, 2, 3])).toEqual({ slot: 0, prefix: 2, donor: -1 });
});

test("nothing is shared across salts, or when reuse is not allowed", () => {
  expect(placeIn([slot([1, 2, 3], { salt: "a" }), slot([])], [1, 2, 3])).toEqual({ slot: 1, prefix: 0, donor: -1 });
  expect(placeIn([slot([1, 2, 3])], [1, 2, 3], { reuse: false })).toEqual({ slot: 0, prefix: 0, donor: -1 });
});

test("deterministic mode reuses whole slices that were computed as such", () => {
  const exact = slot([1, 2, 3, 4]);
  exact.markExact();
  exact.append(Uint32Array.of(5));
  expect(placeIn([exact], [1, 2, 3, 4, 5, 6], { sliceTokens: 2 })).toEqual({ slot: 0, prefix: 4, donor: -1 });
  expect(placeIn([exact], [1, 2, 3, 4], { sliceTokens: 2 })).toEqual({ slot: 0, prefix: 2, donor: -1 });
});

test("no free slot, no place", () => {
  expect(placeIn([slot([1], { busy: true })], [1, 2])).toBeUndefined();
});
