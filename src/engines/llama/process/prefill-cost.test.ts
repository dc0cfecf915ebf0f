import { expect, test } from "vitest";
import { PrefillCost } from "./prefill-cost.ts";

/** A batch of prompt pieces that costs `dear` times its tokens. */
const slices = (...lengths: number[]) => batch(lengths);

function batch(lengths: readonly number[], dear = 1) {
  const slice = { sequence: 0, position: 0, padding: 0, last: false };
  const tokens = lengths.reduce((sum, length) => sum + length, 0);
  return { slices: lengths.map((length) => ({ ...slice, tokens: new Uint32Array(length) })), cost: dear * tokens };
}

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

test("a unit of cost is the same wherever in a prompt it is spent; a token is not", () => {
  const cost = new PrefillCost(1);
  cost.measured(512, batch([512], 1));
  cost.measured(2048, batch([512], 4));
  expect(cost.unitMs).toBe(1);
  expect(cost.msPerToken).toBeGreaterThan(1.5);
});

test("small batches have a unit of their own: what they cost is not foretold as well", () => {
  const cost = new PrefillCost(5);
  cost.measured(512, batch([512]));
  expect(cost.smallUnitMs).toBe(1);
  cost.measured(60, batch([20]));
  expect(cost.smallUnitMs).toBe(3);
  cost.measured(80, batch([20]));
  expect(cost.smallUnitMs).toBeCloseTo(3.3);
  cost.measured(10, batch([20]));
  expect(cost.unitMs).toBe(1);
});

test("steps that a device is still at are counted with the one that waits for them", () => {
  const cost = new PrefillCost(100);
  cost.measured(2, batch([512]), false);
  cost.measured(2, batch([512]), false);
  expect(cost.msPerToken).toBe(100);
  cost.measured(1532, batch([512]), true);
  expect(cost.msPerToken).toBe(1);
});
