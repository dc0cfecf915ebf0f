import { expect, test } from "vitest";
import { mix32 } from "../index/linked-index.ts";
import { GramSampler, gramTokens, windowGrams, windowTokens } from "./grams.ts";
import type { Tokens } from "../../identity/tokens.ts";

/** Samples as a reader names them: where they end, and their hashes. */
function samplesOf(sampler: GramSampler): string[] {
  return Array.from({ length: sampler.count }, (_, i) => `${sampler.ends[i]} ${sampler.hashes[i]}`);
}

function sample(tokens: Tokens, salt = 7): string[] {
  const sampler = new GramSampler(salt);
  sampler.begin(0);
  sampler.feed(tokens, 0, tokens.length);
  return samplesOf(sampler);
}

const tokens = Uint32Array.from({ length: 20_000 }, (_, i) => mix32(i) % 100_000);

test("every window of a text has a sample, and two are half a window apart on average", () => {
  const ends = sample(tokens).map((each) => Number(each.split(" ")[0]));
  expect(ends[0]).toBeLessThan(windowTokens);
  for (const [i, end] of ends.entries()) if (i > 0) expect(end - ends[i - 1]!).toBeLessThanOrEqual(windowGrams); // there is one before
  const apart = tokens.length / ends.length;
  expect(apart).toBeGreaterThan(0.95 * ((windowGrams + 1) / 2));
  expect(apart).toBeLessThan(1.05 * ((windowGrams + 1) / 2));
});

test("a window's sample does not depend on what stands around it", () => {
  for (let at = 0; at < 500; at += 1) {
    const window = tokens.subarray(at, at + windowTokens);
    const [alone] = sample(window);
    const [end, hash] = alone!.split(" ").map(Number); // one window has one
    const around = sample(Uint32Array.from([...tokens.subarray(900, 957), ...window, ...tokens.subarray(1200, 1300)]));
    expect(around).toContain(`${end! + 57} ${hash}`);
  }
});

test("a text that is fed in pieces has the samples that it has in one", () => {
  const sampler = new GramSampler(7);
  sampler.begin(0);
  const inPieces: string[] = [];
  for (let at = 0; at < tokens.length;) {
    const end = Math.min(tokens.length, at + 1 + (mix32(at) % 100));
    sampler.clear();
    sampler.feed(tokens, at, end);
    inPieces.push(...samplesOf(sampler));
    at = end;
  }
  expect(inPieces).toEqual(sample(tokens));
});

test("texts shorter than a window have none, and another salt chooses others", () => {
  expect(sample(tokens.subarray(0, windowTokens - 1))).toEqual([]);
  expect(sample(tokens.subarray(0, windowTokens))).toHaveLength(1);
  const other = new Set(sample(tokens, 8).map((each) => each.split(" ")[0]));
  const both = sample(tokens).filter((each) => other.has(each.split(" ")[0]));
  expect(both.length / other.size).toBeLessThan(0.2);
});

test("the same gram has the same hash wherever it stands", () => {
  const gram = tokens.subarray(0, gramTokens);
  const hashes = [0, 1, 17, 64].map((before) => {
    const sampler = new GramSampler(7);
    sampler.begin(0);
    const repeated = Uint32Array.from([
      ...tokens.subarray(50, 50 + before),
      ...Array.from({ length: 60 }, () => [...gram]).flat(),
    ]);
    sampler.feed(repeated, 0, repeated.length);
    return sampler.hashes[sampler.count - 1];
  });
  expect(new Set(hashes).size).toBe(1);
});
