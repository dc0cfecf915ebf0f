import { expect, test } from "vitest";
import { someTokens } from "../../../../test/support/tokens.ts";
import { greedy } from "../../../engine.ts";
import type { EngineRequest } from "../messages.ts";
import type { Context } from "./context.ts";
import { ResidentMatches } from "./resident-matches.ts";
import { Sequence } from "./sequence.ts";
import { WaitingMatches } from "./waiting-matches.ts";

const nowhere = { layout: "unified", truncate: () => {} } as unknown as Context; // comparing moves nothing
const text = someTokens(500, 1);

function request(tokens: number): EngineRequest {
  const cache = { salt: "", read: true, save: true };
  return { id: 1, tokens: text.subarray(0, tokens), sampling: greedy, maxTokens: 8, stop: [], cache };
}

/** What is lost with each of the sequences, that hold so many tokens of the text. */
function lost(waiting: readonly number[], held: readonly number[], kept = 0): number[] {
  const sequences = held.map((tokens, id) => {
    const sequence = new Sequence(nowhere, id, 1000);
    sequence.append(text.subarray(0, tokens));
    return sequence;
  });
  const matches = new WaitingMatches(waiting.map(request), sequences, new ResidentMatches(undefined));
  return sequences.map((sequence) => matches.lost(sequence, kept));
}

test("what only one sequence holds of a waiting conversation is lost with it, the most that one of several loses", () => {
  expect(lost([], [300, 0])).toEqual([0, 0]);
  expect(lost([400], [300, 0])).toEqual([300, 0]);
  expect(lost([200, 400], [300, 0])).toEqual([300, 0]);
});

test("what others hold as well is not lost, and neither is what stays", () => {
  expect(lost([400], [300, 200])).toEqual([100, 0]);
  expect(lost([400], [200, 300])).toEqual([0, 100]);
  expect(lost([400], [300, 300])).toEqual([0, 0]);
  expect(lost([400], [300, 100, 0], 220)).toEqual([80, 0, 0]);
});

test("few tokens are no conversation", () => {
  expect(lost([400], [63, 0])).toEqual([0, 0]);
  expect(lost([400], [64, 0])).toEqual([64, 0]);
  expect(lost([400], [300, 240])).toEqual([0, 0]);
});
