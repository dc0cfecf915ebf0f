/** What may be drawn and how likely it is, beside llama.cpp's own samplers and a plain computation that sorts everything. */
import { expect, test } from "vitest";
import { LlamaSamplers } from "../../../../test/support/llama-samplers.ts";
import { SeededDraws } from "./seeded-draws.ts";
import { greedy, type Sampling } from "../../../engine.ts";
import { Candidates } from "./candidates.ts";

type Shape = "peaked" | "flat" | "equal";

/** Logits as models have them, hardly any differences, and few different ones. */
function someLogits(size: number, shape: Shape, seed: number): Float32Array {
  const draws = new SeededDraws(seed);
  const normal = () => Math.sqrt(-2 * Math.log(1 - draws.next())) * Math.cos(2 * Math.PI * draws.next());
  const logits = Float32Array.from({ length: size }, () => normal() * (shape === "flat" ? 0.5 : 2.2));
  if (shape === "equal") return logits.map((logit) => Math.round(logit));
  if (shape === "peaked") {
    for (let rank = 1; rank <= 50; rank += 1) logits[Math.floor(draws.next() * size)] = 16 - 3 * Math.log(rank);
  }
  return logits;
}

const filters: readonly Partial<Sampling>[] = [
  { topP: 0.95 },
  { topP: 0.5 },
  { topP: 0 },
  { topP: 0.9999 },
  { minP: 0.05 },
  { minP: 1 },
  { topK: 1 },
  { topK: 40 },
  { topK: 3000 },
  { topK: 1_000_000 },
  { topK: 40, topP: 0.9 },
  { topK: 3000, topP: 0.95, minP: 0.02 },
  { topP: 0.8, minP: 0.2 },
];

function total(logits: Float32Array, of: Iterable<number> = logits.keys()): number {
  const max = logits.reduce((a, b) => Math.max(a, b));
  let sum = 0;
  for (const token of of) sum += Math.exp(logits[token]! - max);
  return sum;
}

test.each<Shape>(["peaked", "flat", "equal"])("what is kept of %s logits is what llama.cpp keeps", (shape) => {
  for (const [seed, filter] of filters.entries()) {
    const logits = someLogits(5003, shape, seed);
    const sampling = { ...greedy, temperature: 1, ...filter };
    using llama = new LlamaSamplers({ sampling, vocabularySize: logits.length });
    const theirs = [...llama.probabilities(logits).keys()];
    const ours = [...new Candidates(logits.length).kept(logits, sampling)];
    const name = `${shape} ${JSON.stringify(filter)}`;
    // Of equal logits others may be taken. Where the last ones hardly weigh anything its floats are too coarse to tell how many.
    const sorted = (tokens: readonly number[]) => tokens.toSorted((a, b) => logits[b]! - logits[a]!);
    const shorter = Math.min(ours.length, theirs.length);
    const logitsOf = (tokens: readonly number[]) => tokens.slice(0, shorter).map((token) => logits[token]!);
    expect(logitsOf(sorted(ours)), name).toEqual(logitsOf(sorted(theirs)));
    const further = [...sorted(ours).slice(shorter), ...sorted(theirs).slice(shorter)];
    const exact = further.length <= 1 || total(logits, further) / total(logits) < 2e-5;
    expect(exact, `${name}: ${ours.length} and ${theirs.length}`).toBe(true);
  }
});

test("what is kept has the share that was asked for, and would not without its last token", () => {
  for (const [seed, topP] of [0.1, 0.5, 0.9, 0.99].entries()) {
    const logits = someLogits(20_000, "flat", seed);
    const kept = [...new Candidates(logits.length).kept(logits, { topK: 0, topP, minP: 0 })];
    const all = total(logits);
    const least = kept.reduce((a, b) => (logits[b]! < logits[a]! ? b : a));
    expect(total(logits, kept) / all).toBeGreaterThanOrEqual(topP * (1 - 1e-7));
    expect(
      total(
        logits,
        kept.filter((token) => token !== least),
      ) / all,
    ).toBeLessThan(topP);
  }
});

test("forbidden tokens are not kept, however many are asked for", () => {
  const logits = someLogits(1000, "flat", 3).map((logit, token) => (token % 2 === 0 ? -Infinity : logit));
  const candidates = new Candidates(logits.length);
  for (const filter of [{ topK: 900 }, { topP: 0.999_999 }, { minP: 1e-9 }, { topK: 300, topP: 0.9 }]) {
    const kept = candidates.kept(logits, { topK: 0, topP: 1, minP: 0, ...filter });
    expect(kept.length).toBeGreaterThan(100);
    expect(kept.every((token) => token % 2 === 1)).toBe(true);
  }
});

test.each([{}, { topP: 0.9 }, { topK: 20, minP: 0.01 }])(
  "tokens are drawn as often as llama.cpp finds them likely: %j",
  (filter) => {
    const logits = someLogits(600, "peaked", 8);
    const sampling = { ...greedy, temperature: 0.8, ...filter };
    using llama = new LlamaSamplers({ sampling, vocabularySize: logits.length });
    const candidates = new Candidates(logits.length);
    const likely = llama.probabilities(logits);
    // Shares in even steps: what a token has of them is its probability, to a step at each end.
    const steps = 20_000;
    const drawn = new Map<number, number>();
    for (let step = 0; step < steps; step += 1) {
      const token = candidates.draw(logits, sampling, sampling.temperature, (step + 0.5) / steps);
      drawn.set(token, (drawn.get(token) ?? 0) + 1);
    }
    for (const [token, probability] of likely) {
      expect(Math.abs((drawn.get(token) ?? 0) - steps * probability)).toBeLessThan(1.1);
      drawn.delete(token);
    }
    expect(drawn.size).toBe(0);
  },
);

test("the likeliest of equal tokens is the first, wherever it lies", () => {
  const logits = someLogits(1027, "flat", 4);
  const candidates = new Candidates(logits.length);
  for (const token of [1026, 1000, 256, 255, 3, 0]) {
    logits[token] = 9;
    expect(candidates.likeliest(logits)).toBe(token);
  }
});

test("a broken model's logits draw a token of the vocabulary", () => {
  const candidates = new Candidates(300);
  for (const value of [NaN, -Infinity, Infinity]) {
    const logits = new Float32Array(300).fill(value);
    expect(candidates.likeliest(logits)).toBe(0);
    for (const filter of [{}, { topK: 5 }, { topP: 0.5 }, { minP: 0.1 }])
      expect(candidates.draw(logits, { topK: 0, topP: 1, minP: 0, ...filter }, 1, 0.5)).toBe(0);
  }
});
