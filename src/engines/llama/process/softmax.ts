/**
 * The loops over a vocabulary's logits, relative to the highest of them: how much weight they have together, and where.
 *
 * Exponentials come from a table: over 151,936 logits Math.exp took 1.24 ms, and this 0.37. The table and what loops over it share
 * this file and are not exported, since a loop would look up what is imported in every round, and take half as long again.
 *
 *     buckets  │ max │ a sixteenth of a unit below │ … │ all the rest │
 */
const stepsPerUnit = 128;
/** What lies further below counts as nothing: 10^-28. */
const tableSteps = 64 * stepsPerUnit;
const stepsPerBucketBits = 3;
const lastBucket = (tableSteps >> stepsPerBucketBits) - 1;

const table = Float64Array.from({ length: tableSteps }, (_, step) => Math.exp(-step / stepsPerUnit));

/** e^-x, to 8e-8 of it: closer than a logit's own last bit. `steps` is x in steps of the table. */
function expMinus(steps: number): number {
  if (!(steps < tableSteps)) return 0; // or no number
  const whole = steps | 0;
  const rest = (steps - whole) * (1 / stepsPerUnit);
  return table[whole]! * (1 - rest + 0.5 * rest * rest); // within the table
}

/** A run of logits, the highest of all, and the temperature at which they weigh. */
export interface Weighed {
  readonly logits: Float32Array;
  readonly from: number;
  readonly to: number;
  readonly max: number;
  readonly temperature: number;
}

/** What a run weighs; the highest logit weighs 1. */
export function massOf({ logits, from, to, max, temperature }: Weighed): number {
  const steps = stepsPerUnit / temperature;
  let mass = 0;
  for (let i = from; i < to; i += 1) mass += expMinus((max - logits[i]!) * steps);
  return mass;
}

/** Where in a run the weight passes `mass`; -1 when it does not. */
export function placeOf({ logits, from, to, max, temperature }: Weighed, mass: number): number {
  const steps = stepsPerUnit / temperature;
  let left = mass;
  for (let i = from; i < to; i += 1) {
    left -= expMinus((max - logits[i]!) * steps);
    if (left < 0) return i;
  }
  return -1;
}

export const bucketCount = lastBucket + 1;

/** Adds to every bucket's sum what its logits weigh. */
export function addMasses(sums: Float64Array, logits: Float32Array, max: number): void {
  for (let i = 0; i < logits.length; i += 1) {
    const steps = (max - logits[i]!) * stepsPerUnit;
    if (steps < tableSteps) sums[(steps | 0) >> stepsPerBucketBits]! += expMinus(steps);
  }
}

/** Adds to every bucket's sum how many of the logits lie in it. */
export function addCounts(sums: Float64Array, logits: Float32Array, max: number): void {
  for (let i = 0; i < logits.length; i += 1) {
    const steps = (max - logits[i]!) * stepsPerUnit;
    sums[steps < tableSteps ? (steps | 0) >> stepsPerBucketBits : lastBucket]! += 1;
  }
}

export function bucketOf(logit: number, max: number): number {
  const steps = (max - logit) * stepsPerUnit;
  return steps < tableSteps ? (steps | 0) >> stepsPerBucketBits : lastBucket;
}

/** A logit that every one of a bucket and of those above it reaches. */
export function leastOf(bucket: number, max: number): number {
  if (bucket === lastBucket) return -Infinity;
  return max - ((bucket + 1.01) * 2 ** stepsPerBucketBits) / stepsPerUnit; // a little lower: both are rounded
}
