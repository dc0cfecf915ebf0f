/** What biases, penalties and seeds do to a choice, beside llama.cpp's own samplers. */
import { expect, test } from "vitest";
import { LlamaSamplers } from "../../../../test/support/llama-samplers.ts";
import { type Sampling, greedy } from "../../../engine.ts";
import { Candidates } from "./candidates.ts";
import { Sampler } from "./sampler.ts";
import { SeededDraws } from "./seeded-draws.ts";

const vocabularySize = 2000;
const prompt = Uint32Array.from({ length: 90 }, (_, i) => (i * 7) % 300);

function someLogits(seed: number): Float32Array {
  const draws = new SeededDraws(seed);
  return Float32Array.from({ length: vocabularySize }, () => 6 * draws.next() - 3);
}

function place(logits: Float32Array): { logits: () => Float32Array; candidates: Candidates } {
  return { logits: () => logits, candidates: new Candidates(logits.length) };
}

const changes: readonly Partial<Sampling>[] = [
  { repeatPenalty: 1.3 },
  { frequencyPenalty: 0.1 },
  { presencePenalty: 0.4 },
  { repeatPenalty: 0.9, frequencyPenalty: -0.02, presencePenalty: 0.3 },
  {
    repeatPenalty: 1.2,
    frequencyPenalty: 0.1,
    logitBias: [
      [3, 2.5],
      [700, -100],
      [3, 1],
    ],
  }, // twice: both count
];

test.each(changes)("the likeliest token after %j is llama.cpp's, all along an answer", (change) => {
  const logits = someLogits(5);
  for (const [token, logit] of [
    [14, 3.3],
    [3, 3.2],
    [700, 3.4],
    [1999, 3.1],
  ] as const)
    logits[token] = logit;
  const before = logits.slice();
  const sampling = { ...greedy, ...change };
  const sampler = new Sampler({ sampling, never: [], prompt });
  const answer: number[] = [];
  for (let step = 0; step < 150; step += 1) {
    using llama = new LlamaSamplers({
      sampling: { ...sampling, temperature: 1, topK: 1 },
      vocabularySize,
      prompt,
      answer,
    });
    answer.push(sampler.sample(place(logits), 0, []));
    expect([...llama.probabilities(logits).keys()]).toEqual(answer.slice(-1));
    expect(logits).toEqual(before);
  }
  if (change.frequencyPenalty !== -0.02) expect(new Set(answer).size).toBeGreaterThan(1);
});

test("tokens that are never to come, or not yet, are not drawn, whatever favours them", () => {
  const logits = someLogits(6);
  const sampling: Sampling = {
    ...greedy,
    logitBias: [
      [5, 50],
      [6, 40],
      [7, 30],
    ],
  };
  const sampler = new Sampler({ sampling, never: [5], prompt });
  expect(sampler.sample(place(logits), 0, [6])).toBe(7);
  expect(sampler.sample(place(logits), 0, [])).toBe(6);
});

test("a seed draws the same tokens again, and another one others", () => {
  const logits = someLogits(7);
  const drawn = (seed: number | undefined) => {
    const sampling = { ...greedy, temperature: 1, ...(seed === undefined ? {} : { seed }) };
    const sampler = new Sampler({ sampling, never: [], prompt });
    return Array.from({ length: 8 }, () => sampler.sample(place(logits), 0, []));
  };
  for (const seed of [0, 1, 2 ** 32 - 1]) expect(drawn(seed)).toEqual(drawn(seed));
  const answers = [0, 1, 2, 2 ** 31, 2 ** 32 - 1, undefined, undefined].map((seed) => drawn(seed).join());
  expect(new Set(answers).size).toBe(answers.length);
});

test("draws are spread evenly, and do not follow from the one before", () => {
  const draws = new SeededDraws(11);
  const cells = new Uint32Array(64);
  let last = draws.next();
  for (let i = 0; i < 64_000; i += 1) {
    const next = draws.next();
    cells[8 * Math.floor(8 * last) + Math.floor(8 * next)]! += 1;
    last = next;
  }
  // 1,000 are due in each; a deviation of five standard ones would come once in tens of thousands of seeds.
  for (const count of cells) expect(Math.abs(count - 1000)).toBeLessThan(5 * Math.sqrt(1000));
});
