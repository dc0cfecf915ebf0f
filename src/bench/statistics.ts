/**
 * Statistics of the benchmarks: means, percentiles, and how sure a ratio of two runs is.
 *
 * All pure: the same numbers and the same seed give the same answer. Empty input is a caller's bug.
 */
import { assert } from "../errors.ts";

export function mean(values: readonly number[]): number {
  assert(values.length > 0, "the mean of nothing");
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/**
 * The value below which `share` of `values` lie, by linear interpolation between the two nearest: position
 * `share × (n - 1)` in ascending order. Type 7 of Hyndman and Fan, "Sample Quantiles in Statistical Packages", The
 * American Statistician 50 (1996); what NumPy, R and spreadsheets do by default.
 *
 * @param share from 0 to 1; 0.5 is the median.
 */
export function percentile(values: readonly number[], share: number): number {
  return percentileOfSorted(Float64Array.from(values).sort(), share);
}

export function median(values: readonly number[]): number {
  return percentile(values, 0.5);
}

/** What a sample is reduced to before two samples are divided. */
export type Centre = "median" | "mean";

export interface RatioInterval {
  /** Centre of `b` over centre of `a`: Infinity or NaN where the centre of `a` is zero. */
  readonly ratio: number;
  /** Where 95 of 100 such intervals hold the true ratio. */
  readonly low: number;
  readonly high: number;
}

/**
 * The ratio B/A with its 95 % interval: both samples are drawn anew with replacement 2,000 times, independently, and the
 * interval runs from the 2.5th to the 97.5th percentile of the ratios. The percentile method of Efron and Tibshirani, "An
 * Introduction to the Bootstrap" (1993), chapter 13. With fewer than about ten values a side it is too narrow.
 *
 * Resamples whose ratio is 0/0 say nothing and are left out; where all are, the bounds are NaN.
 */
export function bootstrapRatio(
  a: readonly number[],
  b: readonly number[],
  options: { readonly centre: Centre; readonly seed: number },
): RatioInterval {
  assert(a.length > 0 && b.length > 0, "a ratio needs values on both sides");
  const { centre, seed } = options;
  const random = mulberry32(seed);
  const [fromA, fromB] = [Float64Array.from(a), Float64Array.from(b)];
  const [drawnA, drawnB] = [new Float64Array(a.length), new Float64Array(b.length)];

  const ratios = new Float64Array(resamples);
  let known = 0;
  for (let round = 0; round < resamples; round++) {
    drawInto(drawnA, fromA, random);
    drawInto(drawnB, fromB, random);
    const ratio = centreOf(drawnB, centre) / centreOf(drawnA, centre);
    if (!Number.isNaN(ratio)) ratios[known++] = ratio;
  }

  const ratio = centreOf(fromB, centre) / centreOf(fromA, centre);
  if (known === 0) return { ratio, low: NaN, high: NaN };
  const sorted = ratios.subarray(0, known).sort();
  return { ratio, low: percentileOfSorted(sorted, 0.025), high: percentileOfSorted(sorted, 0.975) };
}

/** Enough that the bounds of a 95 % interval move by less than the digits shown. */
const resamples = 2000;

/** Sorts `values` in place for the median: they are the caller's scratch. */
function centreOf(values: Float64Array, centre: Centre): number {
  if (centre === "median") return percentileOfSorted(values.sort(), 0.5);
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** The same of values in ascending order. */
export function percentileOfSorted(sorted: Float64Array, share: number): number {
  assert(sorted.length > 0, "a percentile of nothing");
  assert(share >= 0 && share <= 1, "a percentile's share is between 0 and 1");
  const position = share * (sorted.length - 1);
  const below = Math.floor(position);
  const lower = sorted[below]!; // within bounds: share <= 1
  const upper = sorted[Math.ceil(position)]!;
  // Equal neighbours are not interpolated: Infinity minus itself is not a number.
  return lower === upper ? lower : lower + (upper - lower) * (position - below);
}

function drawInto(drawn: Float64Array, from: Float64Array, random: () => number): void {
  for (let index = 0; index < drawn.length; index++) drawn[index] = from[Math.floor(random() * from.length)]!;
}

/** A small seeded generator of numbers in [0, 1). */
function mulberry32(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}
