import { expect, test } from "vitest";
import { bootstrapRatio, mean, median, percentile } from "./statistics.ts";

test("mean and median of known values", () => {
  expect(mean([1, 2, 3, 10])).toBe(4);
  expect(median([10, 1, 3, 2])).toBe(2.5);
  expect(median([7])).toBe(7);
});

test("percentiles interpolate linearly, as NumPy's default does", () => {
  const values = [15, 20, 35, 40, 50];
  expect(percentile(values, 0)).toBe(15);
  expect(percentile(values, 0.4)).toBeCloseTo(29, 12); // numpy.percentile([15, 20, 35, 40, 50], 40)
  expect(percentile(values, 0.95)).toBeCloseTo(48, 12);
  expect(percentile(values, 1)).toBe(50);
});

test("the input is left as it was", () => {
  const values = [3, 1, 2];
  percentile(values, 0.5);
  bootstrapRatio(values, values, { centre: "median", seed: 1 });
  expect(values).toEqual([3, 1, 2]);
});

test("nothing has neither mean nor percentile", () => {
  expect(() => mean([])).toThrow("the mean of nothing");
  expect(() => percentile([], 0.5)).toThrow("a percentile of nothing");
});

test("constant samples have an exact ratio", () => {
  const result = bootstrapRatio([2, 2, 2], [3, 3, 3], { centre: "median", seed: 1 });
  expect(result).toEqual({ ratio: 1.5, low: 1.5, high: 1.5 });
});

test("the interval of a ratio of means agrees with the normal approximation", () => {
  // Uniform grids: means 50 and 100, standard error of each mean 28.87/sqrt(101) of 100 wide.
  const a = Array.from({ length: 101 }, (_, index) => index);
  const b = Array.from({ length: 101 }, (_, index) => 50 + index);
  const { ratio, low, high } = bootstrapRatio(a, b, { centre: "mean", seed: 7 });
  expect(ratio).toBe(2);
  // Delta method: relative error = sqrt((2.9/50)² + (2.9/100)²) = 0.065; 1.96 of it = 0.127.
  expect(low).toBeGreaterThan(2 * (1 - 0.127) - 0.05);
  expect(low).toBeLessThan(2 * (1 - 0.127) + 0.05);
  expect(high).toBeGreaterThan(2 * (1 + 0.127) - 0.05);
  expect(high).toBeLessThan(2 * (1 + 0.127) + 0.1);
});

test("about 95 of 100 intervals hold the true ratio", () => {
  let state = 12_345;
  const random = () => (state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0) / 2 ** 32;
  const normal = () => Math.sqrt(-2 * Math.log(random() + 1e-12)) * Math.cos(2 * Math.PI * random());
  const sample = (centre: number) => Array.from({ length: 30 }, () => centre + normal());
  let held = 0;
  for (let run = 0; run < 100; run++) {
    const { low, high } = bootstrapRatio(sample(10), sample(12), { centre: "mean", seed: run });
    if (low <= 1.2 && 1.2 <= high) held++;
  }
  expect(held).toBeGreaterThanOrEqual(88);
  expect(held).toBeLessThanOrEqual(100);
});

test("the same seed gives the same interval, another seed another", () => {
  const [a, b] = [
    [1, 2, 4, 8, 16],
    [2, 3, 5, 7, 11],
  ];
  const once = bootstrapRatio(a, b, { centre: "median", seed: 3 });
  expect(bootstrapRatio(a, b, { centre: "median", seed: 3 })).toEqual(once);
  const means = [1, 2].map((seed) => bootstrapRatio(a, b, { centre: "mean", seed }).low);
  expect(means[0]).not.toBe(means[1]);
});

test("a baseline of zero gives Infinity, and zero over zero no number", () => {
  expect(bootstrapRatio([0, 0], [1, 1], { centre: "mean", seed: 1 })).toEqual({
    ratio: Infinity,
    low: Infinity,
    high: Infinity,
  });
  expect(bootstrapRatio([0, 0], [0, 0], { centre: "mean", seed: 1 }).ratio).toBeNaN();
});
