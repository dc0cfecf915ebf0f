/** What is known of a time or a rate that is measured now and then, and changes. */

/** What a new figure weighs at once, and the time after which what was known before counts a third of that. */
const weight = 0.3;
const fadesMs = 10_000;
/** Nothing takes no time, whatever a clock says. */
export const leastMs = 0.001;

/** A moving mean of factors: twice as fast and half as fast weigh the same. */
export class Estimate {
  readonly #now: () => number;
  readonly #firstCounts: boolean;
  #samples = 0;
  value: number | undefined;
  /** When {@link value} was last moved. */
  learned = -Infinity;

  /** @param firstCounts whether a single sample says something, and counts among those that follow */
  constructor(now: () => number, { firstCounts }: { readonly firstCounts: boolean }) {
    this.#now = now;
    this.#firstCounts = firstCounts;
  }

  /** {@link value}, once enough was measured to rely on it. */
  get believed(): number | undefined {
    return this.#samples > (this.#firstCounts ? 0 : 1) ? this.value : undefined;
  }

  learn(sample: number): void {
    const now = this.#now();
    const known = this.believed;
    const kept = (1 - weight) * Math.exp((this.learned - now) / fadesMs);
    this.value = known === undefined ? sample : known ** kept * sample ** (1 - kept);
    this.#samples += 1;
    this.learned = now;
  }
}
