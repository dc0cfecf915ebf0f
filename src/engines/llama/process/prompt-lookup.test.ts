import { expect, test } from "vitest";
import { numbers, someTokens } from "../../../../test/support/tokens.ts";
import { PromptLookup } from "./prompt-lookup.ts";
import type { Continuation } from "./prompt-lookup.ts";

const tokens = (...list: number[]) => Uint32Array.from(list);

function lookupOf(prompt: Uint32Array, room = 100): PromptLookup {
  return new PromptLookup(prompt, prompt.length + room);
}

/** The same by looking at every place, from the last to the first. */
function naive(text: readonly number[], most: number): Continuation | undefined {
  for (const matched of [4, 3, 2]) {
    const run = text.slice(-matched).join();
    for (let end = text.length - 1; end >= matched; end -= 1) {
      if (run !== text.slice(end - matched, end).join()) continue;
      const whole = [...text];
      while (whole.length < end + most) whole.push(whole[whole.length - text.length + end]!);
      return { matched, tokens: Uint32Array.from(whole.slice(end, end + most)) };
    }
  }
  return undefined;
}

test("what followed the same words before may follow again: the longest run counts, and where it stood last", () => {
  const lookup = lookupOf(tokens(1, 2, 3, 10, 9, 2, 3, 20, 9, 9, 1, 2, 3));
  expect(lookup.continuation(3)).toEqual({ matched: 3, tokens: tokens(10, 9, 2) });
  lookup.append(10);
  expect(lookup.continuation(2)).toEqual({ matched: 4, tokens: tokens(9, 2) });
  const last = lookupOf(tokens(1, 2, 30, 1, 2, 40, 1, 2));
  expect(last.continuation(1)).toEqual({ matched: 2, tokens: tokens(40) });
});

test("a text in which nothing came before has no continuation, however short it is", () => {
  for (const length of [0, 1, 2, 3, 50])
    expect(lookupOf(someTokens(length, 1).map((_, index) => index)).continuation(4)).toBe(undefined);
});

test("what reaches the end of the text goes on with itself", () => {
  expect(lookupOf(tokens(5, 7, 7, 7)).continuation(5)).toEqual({ matched: 2, tokens: tokens(7, 7, 7, 7, 7) });
  const ha = lookupOf(tokens(1, 2, 1, 2));
  expect(ha.continuation(5)).toEqual({ matched: 2, tokens: tokens(1, 2, 1, 2, 1) });
});

test.each([2, 3, 8, 200])("over texts of %i different tokens it finds what looking everywhere finds", (vocabulary) => {
  const random = numbers(vocabulary);
  for (let round = 0; round < 20; round += 1) {
    const text = Array.from({ length: 1 + random(60) }, () => random(vocabulary));
    const lookup = lookupOf(Uint32Array.from(text), 150);
    for (let step = 0; step < 150; step += 1) {
      // Not asked at every token: what was left out is taken in later.
      if (random(3) > 0) expect(lookup.continuation(6)).toEqual(naive(text, 6));
      text.push(random(vocabulary));
      lookup.append(text.at(-1)!);
    }
  }
});

test("a token costs some microseconds, however long the text is", () => {
  const lookup = lookupOf(someTokens(32_000, 3, 5000), 4000);
  lookup.continuation(8);
  const started = performance.now();
  for (let step = 0; step < 4000; step += 1) {
    lookup.append(6 + (step % 900));
    lookup.continuation(8);
  }
  // Measured: 1 µs. Looking everywhere would take some 100 µs.
  expect((performance.now() - started) / 4000).toBeLessThan(0.02);
});
