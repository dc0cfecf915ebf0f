import { expect, test } from "vitest";
import { numbers, someTokens } from "../../../../test/support/tokens.ts";
import { greedy } from "../../../engine.ts";
import type { EngineRequest } from "../messages.ts";
import type { Context } from "./context.ts";
import type { Generation } from "./generation.ts";
import { ResidentMatches } from "./resident-matches.ts";
import { reusable } from "./sequence-choice.ts";
import { Sequence } from "./sequence.ts";

const nowhere = { layout: "unified", truncate: () => {} } as unknown as Context; // comparing moves nothing

function request(tokens: Uint32Array, salt = "", read = true): EngineRequest {
  return { id: 1, tokens, sampling: greedy, maxTokens: 8, stop: [], cache: { salt, read, save: true } };
}

/** Counts what is compared. */
class Watched extends Sequence {
  readonly compared: number[] = [];

  override common(prompt: Uint32Array, salt: string, known = 0): number {
    const common = super.common(prompt, salt, known);
    this.compared.push(common - known);
    return common;
  }
}

test("tokens are compared once: what a sequence adds is compared, and all of it when it has lost some", () => {
  const prompt = someTokens(1000, 1);
  const [asked, sequence] = [request(prompt), new Watched(nowhere, 0, 2000)];
  const matches = new ResidentMatches(undefined);
  const look = () => [1, 2, 3].map(() => matches.of(asked, sequence))[2];
  sequence.append(prompt.subarray(0, 400));
  expect([look(), sequence.compared]).toEqual([400, [400]]);
  sequence.append(prompt.subarray(400, 600));
  expect([look(), sequence.compared]).toEqual([600, [400, 200]]);
  sequence.append(Uint32Array.of(1, 2, 3)); // another text from here on
  expect([look(), sequence.compared]).toEqual([600, [400, 200, 0]]);
  sequence.append(someTokens(100, 2));
  expect([look(), sequence.compared]).toEqual([600, [400, 200, 0]]);
  sequence.truncate(500);
  sequence.append(prompt.subarray(500, 700));
  expect([look(), sequence.compared]).toEqual([700, [400, 200, 0, 700]]);
});

test.each([undefined, 16])(
  "whatever a sequence goes through, it is what comparing everything gives; slices of %s",
  (slices) => {
    const random = numbers(77);
    const text = someTokens(300, 3);
    const requests = [request(text), request(text.subarray(0, 150)), request(text, "a"), request(someTokens(300, 4))];
    const sequence = new Sequence(nowhere, 0, 2000);
    const matches = new ResidentMatches(slices);
    for (let step = 0; step < 500; step += 1) {
      const { count } = sequence;
      if (random(4) === 0 || count > 1500) sequence.truncate(random(Math.min(count, 300) + 1));
      else if (random(6) === 0) sequence.taint(random(400));
      else if (random(3) > 0 && count < 300) sequence.append(text.subarray(count, Math.min(300, count + random(60))));
      else sequence.append(someTokens(random(20), step));
      if (sequence.count === 0) sequence.salt = ["", "a"][random(2)]!;
      if (random(3) === 0) sequence.markReproducible();
      const save = random(3) > 0;
      sequence.generation = random(2) === 0 ? undefined : ({ request: { cache: { save } } } as unknown as Generation); // all it reads
      if (random(2) === 0) continue; // several changes between two looks
      for (const asked of requests) {
        const { tokens: prompt, cache } = asked;
        const plain = reusable(sequence, { prompt, salt: cache.salt, reuse: true, sliceTokens: slices });
        expect(matches.of(asked, sequence)).toBe(plain);
      }
    }
  },
);

test("who reads nothing has nothing", () => {
  const sequence = new Sequence(nowhere, 0, 100);
  sequence.append(Uint32Array.of(1, 2, 3));
  const matches = new ResidentMatches(undefined);
  expect(matches.of(request(Uint32Array.of(1, 2, 3, 4)), sequence)).toBe(3);
  expect(matches.of(request(Uint32Array.of(1, 2, 3, 4), "", false), sequence)).toBe(0);
});
