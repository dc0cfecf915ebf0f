import { expect, test } from "vitest";
import { parseDepth, parseSeed } from "./support/depth.ts";

test("the depth of soak tests is small, full, or a number of times full; anything else is refused by name", () => {
  expect([undefined, "", "small"].map(parseDepth)).toEqual([undefined, undefined, undefined]);
  expect(["full", "10", "0.5"].map(parseDepth)).toEqual([1, 10, 0.5]);
  for (const typed of ["deep", "0", "-1", "Infinity", "NaN"])
    expect(() => parseDepth(typed)).toThrow(/REPRISE_TEST_DEPTH/);
});

test("another seed is a whole number", () => {
  expect([undefined, "", "0", "21"].map(parseSeed)).toEqual([undefined, undefined, 0, 21]);
  for (const typed of ["-1", "1.5", "x", "12345678901"]) expect(() => parseSeed(typed)).toThrow(/REPRISE_TEST_SEED/);
});
