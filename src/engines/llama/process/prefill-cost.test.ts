import { expect, test } from "vitest";
import { PrefillCost } from "./prefill-cost.ts";

const slices = (...lengths: number[]) =>
  lengths.map((length) => ({ sequence: 0, position: 0, tokens: new Uint32Array(length), padding: 0, last: false }));

test("small slices do not make prompt tokens look dear", () => {
  const cost = new PrefillCost(1);
  cost.measured(300, slices(40));
  expect(cost.msPerToken).toBe(1);
  cost.measured(20, slices(40));
  expect(cost.msPerToken).toBe(0.5);
  cost.measured(512, slices(512));
  expect(cost.msPerToken).toBeGreaterThan(0.5);
});

test("the first step of a long prompt leaves nothing of the guess; later ones are believed in part", () => {
  const cost = new PrefillCost(100);
  cost.measured(512, slices(512));
  expect(cost.msPerToken).toBe(1);
  cost.measured(1024, slices(512));
  expect(cost.msPerToken).toBeCloseTo(1.3);
});

test("a step of next tokens tells nothing of prompts", () => {
  const cost = new PrefillCost(1);
  cost.measured(0.1, slices());
  cost.measured(0.1, slices(15));
  expect(cost.msPerToken).toBe(1);
});
