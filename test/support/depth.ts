/**
 * How long soak tests go on: one setting for all of them, small by default, full in CI.
 *
 *     REPRISE_TEST_DEPTH=full npx vitest run test/durability.test.ts
 *     REPRISE_TEST_DEPTH=10 REPRISE_TEST_SEED=2 npx vitest run src/tiers/disk/crash.test.ts   # ten times full, other moments
 *
 * Python's side reads the same two (python/tests/support/depth.py).
 */

/** Rounds of a soak test. Both numbers find the faults that the test is for; `full` finds rare ones as well. */
export interface Rounds {
  readonly small: number;
  readonly full: number;
}

/** Undefined is small; else so many times full. */
const timesFull = parseDepth(process.env["REPRISE_TEST_DEPTH"]);
const otherSeed = parseSeed(process.env["REPRISE_TEST_SEED"]);

/** As many rounds as are asked for. */
export function rounds({ small, full }: Rounds): number {
  return timesFull === undefined ? small : Math.ceil(full * timesFull);
}

/** Whether everything is tried where trying some of it finds most faults. */
export const isFull = timesFull !== undefined && timesFull >= 1;

/** The seed of a test, where the run names no other. */
export function seedOr(own: number): number {
  return otherSeed ?? own;
}

/** The test's limit of time at full depth, and as many times as much beyond it. */
export function timeoutMs(fullMs: number): number {
  return fullMs * Math.max(1, timesFull ?? 1);
}

/** @throws Error naming the setting */
export function parseDepth(typed: string | undefined): number | undefined {
  if (typed === undefined || typed === "" || typed === "small") return undefined;
  const times = typed === "full" ? 1 : Number(typed);
  if (Number.isFinite(times) && times > 0) return times;
  throw new Error(`REPRISE_TEST_DEPTH is "small", "full" or how many times full, as 10; not ${JSON.stringify(typed)}`);
}

/** @throws Error naming the setting */
export function parseSeed(typed: string | undefined): number | undefined {
  if (typed === undefined || typed === "") return undefined;
  if (/^\d{1,9}$/.test(typed)) return Number(typed);
  throw new Error(`REPRISE_TEST_SEED is a whole number of up to nine digits; not ${JSON.stringify(typed)}`);
}
