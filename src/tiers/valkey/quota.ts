/**
 * How much hosts may keep in a store together, and a tenant of it: counters in the store itself.
 *
 *     time      │ span │ span │ … │ span now │          a record lives for 16 spans
 *     written   │  120 │    0 │   │      340 │ MiB      a counter each, which ends when what it counts has ended
 *
 * A record ends a fixed time after it was written, so what is alive is at most what was written in the last 16 spans and the one
 * that has begun: an upper bound, also of what the store has evicted or somebody has written again. Hosts whose clocks differ count
 * into neighbouring spans, which are all summed.
 */

const spansPerTtl = 16;
/** How long a sum is believed, plus what was written since. */
const believedMs = 5000;

export interface QuotaLimits {
  readonly ttlSeconds: number;
  readonly maxBytes: number | undefined;
  readonly maxTenantBytes: number | undefined;
}

/** What counters need of the store. */
export interface Counters {
  sum(names: readonly string[]): Promise<number>;
  add(name: string, bytes: number, ttlSeconds: number): Promise<void>;
}

interface Sum {
  bytes: number;
  readonly at: number;
}

export class Quota {
  readonly #limits: QuotaLimits;
  readonly #counters: Counters;
  readonly #now: () => number;
  readonly #sums = new Map<string, Sum>();

  /** @param now wall-clock milliseconds, of which other hosts have nearly the same */
  constructor(limits: QuotaLimits, counters: Counters, now: () => number = Date.now) {
    this.#limits = limits;
    this.#counters = counters;
    this.#now = now;
  }

  /** Room for so many bytes of a tenant? They are counted at once: writers on this host do not count on the same room. */
  async take(tenant: string, bytes: number): Promise<boolean> {
    const wanted = this.#wanted(tenant);
    const sums = await Promise.all(wanted.map(({ account }) => this.#sumOf(account)));
    if (wanted.some(({ most }, i) => sums[i]!.bytes + bytes > most)) return false; // one for each
    for (const sum of sums) sum.bytes += bytes;
    const span = this.#span();
    const lives = this.#limits.ttlSeconds + (2 * this.#limits.ttlSeconds) / spansPerTtl;
    await Promise.all(wanted.map(({ account }) => this.#counters.add(`${account}:${span}`, bytes, Math.ceil(lives))));
    return true;
  }

  #wanted(tenant: string): { account: string; most: number }[] {
    const { maxBytes, maxTenantBytes } = this.#limits;
    return [
      ...(maxBytes === undefined ? [] : [{ account: "all", most: maxBytes }]),
      ...(maxTenantBytes === undefined ? [] : [{ account: tenant, most: maxTenantBytes }]),
    ];
  }

  async #sumOf(account: string): Promise<Sum> {
    const known = this.#sums.get(account);
    if (known !== undefined && this.#now() - known.at < believedMs) return known;
    const span = this.#span();
    const spans = Array.from({ length: spansPerTtl + 3 }, (_, i) => span + 1 - i);
    const bytes = await this.#counters.sum(spans.map((each) => `${account}:${each}`));
    const sum = { bytes, at: this.#now() };
    this.#sums.delete(account);
    this.#sums.set(account, sum);
    for (const [each, { at }] of this.#sums) if (this.#now() - at >= believedMs) this.#sums.delete(each);
    return sum;
  }

  #span(): number {
    return Math.floor(this.#now() / ((this.#limits.ttlSeconds * 1000) / spansPerTtl));
  }
}
