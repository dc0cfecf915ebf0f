import { expect, test } from "vitest";
import { numbers, someTokens } from "../../../../test/support/tokens.ts";
import { Drafts, mostDrafts } from "./drafts.ts";
import { MeasuredRowCost } from "./row-cost.ts";
import type { RowCost } from "./row-cost.ts";

const rows = (share: number): RowCost => ({ share, measured: () => {} });

/** An answer of `tokens`, written with drafts. @returns its steps and what they cost: 1 is a step without drafts */
function write(prompt: Uint32Array, answer: Uint32Array, rowCost: RowCost, realShare = rowCost.share) {
  const drafts = new Drafts({ prompt, mostTokens: prompt.length + answer.length + 1, rowCost });
  let [at, steps, cost] = [0, 0, 0];
  let most = 0;
  while (at < answer.length) {
    const proposed = drafts.propose(answer.length - at - 1);
    drafts.computed(proposed);
    let row = 0;
    while (row < proposed.length && proposed[row] === answer[at + row]) row += 1;
    for (const token of answer.subarray(at, at + row + 1)) drafts.drawn(token);
    at += row + 1;
    steps += 1;
    const stepMs = 10 * (1 + realShare * proposed.length);
    cost += stepMs / 10;
    drafts.stepped(stepMs, 1, proposed.length);
    most = Math.max(most, proposed.length);
  }
  return { ...drafts.counts, steps, cost, most };
}

const text = someTokens(600, 1, 5000);

test("an answer that quotes the prompt is drafted as far as a row is worth it", () => {
  const quoted = text.subarray(100, 500);
  const free = write(text, quoted, rows(0.02));
  expect(free.most).toBe(mostDrafts);
  expect(free.acceptedTokens).toBeGreaterThan(320);
  expect(free.cost).toBeLessThan(0.25 * quoted.length);
  const dear = write(text, quoted, rows(0.5));
  expect(dear.cost).toBeLessThan(0.75 * quoted.length);
  // Where another row costs as much as another step nothing is won, and next to nothing is lost.
  const useless = write(text, quoted, rows(1));
  expect(useless.cost).toBeLessThan(1.02 * quoted.length);
});

test("drafts of an answer that never goes on as before cost two percent at most", () => {
  // Of some twenty words, so that most runs have been there and nothing follows from them.
  const random = numbers(5);
  const words = (count: number) => Uint32Array.from({ length: count }, () => random(20));
  for (const share of [0.25, 0.5, 1]) {
    const { cost, draftedTokens } = write(words(1000), words(1000), rows(share));
    expect(draftedTokens).toBeGreaterThan(0);
    expect(cost).toBeLessThan(1020);
  }
  expect(write(text, someTokens(600, 2, 5000), rows(0.5)).draftedTokens).toBeLessThan(5);
});

test("what failed is tried again: an answer that begins to quote later is drafted as well", () => {
  const random = numbers(6);
  const words = Uint32Array.from({ length: 800 }, () => random(20));
  const answer = Uint32Array.from([...words.subarray(400), ...text.subarray(100, 500)]);
  const prompt = Uint32Array.from([...text, ...words.subarray(0, 400)]);
  expect(write(prompt, answer, rows(0.3)).acceptedTokens).toBeGreaterThan(250);
});

test("what a row costs is learned from steps", () => {
  for (const real of [0.02, 0.6]) {
    const cost = new MeasuredRowCost();
    write(text, text.subarray(100, 500), cost, real);
    expect(cost.share).toBeCloseTo(real, 1);
  }
});

test("one step in 33 has no drafts, and after a lack of room none has for a while", () => {
  const drafts = new Drafts({ prompt: new Uint32Array(20), mostTokens: 1000, rowCost: rows(0) });
  const drafted = () => {
    const proposed = drafts.propose(2);
    drafts.computed(proposed);
    for (let row = 0; row <= proposed.length; row += 1) drafts.drawn(0);
    drafts.stepped(1, 1, proposed.length);
    return proposed.length;
  };
  const steps = Array.from({ length: 66 }, drafted);
  expect(steps.flatMap((count, step) => (count === 0 ? [step] : []))).toEqual([0, 33]);
  drafts.rest();
  expect(Array.from({ length: 64 }, drafted).every((count) => count === 0)).toBe(true);
  expect(drafted()).toBe(2);
});

test("never more are proposed than the answer has room for", () => {
  const drafts = new Drafts({ prompt: new Uint32Array(20), mostTokens: 1000, rowCost: rows(0) });
  drafts.drawn(0);
  drafts.stepped(1, 1, 0);
  expect([0, 1, 3, 100].map((most) => drafts.propose(most).length)).toEqual([0, 1, 3, mostDrafts]);
});
