/**
 * How much hosts may keep in a store together, and a tenant of it: counters in the store itself.
 *
 *     time      │ span │ span │ … │ span now │          a record lives for 16 spans
 *     written   │  120 │    0 │   │      340 │ MiB      a counter each, which ends when what it counts has ended
 *
 * A record ends a fixed time after it was written, so what is alive is at most what was written in the last 16 spans and the one
 * that has begun: an upper bound, also of what the store has evicted or somebody has written again. Hosts whose clocks differ count
 * into neighbouring spans, which are all summed.
 *
 * Bytes are counted before they are written, and the store says what its counter has come to: so hosts that write at the same time do
 * not count on the same room. Who is beyond the limit then takes his bytes back. Where that is known already, nobody is asked.
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
  /** 0 for one that is not there. */
  read(names: readonly string[]): Promise<readonly number[]>;
  /** @returns what the counter has come to */
  add(name: string, bytes: number, ttlSeconds: number): Promise<number>;
}

/** Whoever asks while it is being summed waits for the same one. */
interface Summing {
  readonly at: number;
  readonly sum: Promise<Sum>;
}

export class Quota {
  readonly #limits: QuotaLimits;
  readonly #counters: Counters;
  readonly #now: () => number;
  readonly #sums = new Map<string, Summing>();
  /** Of all together, when it was last summed, with what was written here since. */
  #lastSum: Sum | undefined;

  /** @param now wall-clock milliseconds, of which other hosts have nearly the same */
  constructor(limits: QuotaLimits, counters: Counters, now: () => number = Date.now) {
    this.#limits = limits;
    this.#counters = counters;
    this.#now = now;
  }

  /** Room for so many bytes of a tenant? They are counted from now on, if so. */
  async take(tenant: string, bytes: number): Promise<boolean> {
    const wanted = this.#wanted(tenant);
    const sums = await Promise.all(wanted.map(({ account }) => this.#sumOf(account)));
    if (wanted.some(({ most }, i) => sums[i]!.bytes + bytes > most)) return false; // one for each
    const span = this.#span();
    const add = (added: number) =>
      Promise.all(
        wanted.map(async ({ account }, i) => {
          sums[i]!.add(span, added); // one for each
          const { ttlSeconds } = this.#limits;
          const livesSeconds = Math.ceil(ttlSeconds + (2 * ttlSeconds) / spansPerTtl);
          return sums[i]!.learn(span, await this.#counters.add(`${account}:${span}`, added, livesSeconds));
        }),
      );
    const taken = await add(bytes);
    if (wanted.every(({ most }, i) => taken[i]! <= most)) return true; // one for each
    await add(-bytes);
    return false;
  }

  /** The limit of all together, and what is used of it as far as this host has asked. */
  get known(): { readonly limitBytes: number; readonly usedBytes?: number } | undefined {
    const { maxBytes } = this.#limits;
    if (maxBytes === undefined) return undefined;
    return { limitBytes: maxBytes, ...(this.#lastSum && { usedBytes: this.#lastSum.bytes }) };
  }

  #wanted(tenant: string): { account: string; most: number }[] {
    const { maxBytes, maxTenantBytes } = this.#limits;
    return [
      ...(maxBytes === undefined ? [] : [{ account: "all", most: maxBytes }]),
      ...(maxTenantBytes === undefined ? [] : [{ account: tenant, most: maxTenantBytes }]),
    ];
  }

  #sumOf(account: string): Promise<Sum> {
    const known = this.#sums.get(account);
    const now = this.#now();
    if (known !== undefined && now - known.at < believedMs) return known.sum;
    const summing = { at: now, sum: this.#askFor(account) };
    this.#sums.set(account, summing);
    for (const [each, { at }] of this.#sums) if (now - at >= believedMs) this.#sums.delete(each);
    summing.sum.catch(() => {
      if (this.#sums.get(account) === summing) this.#sums.delete(account); // the next one asks again
    });
    return summing.sum;
  }

  async #askFor(account: string): Promise<Sum> {
    const span = this.#span();
    const spans = Array.from({ length: spansPerTtl + 3 }, (_, i) => span + 1 - i);
    const values = await this.#counters.read(spans.map((each) => `${account}:${each}`));
    const sum = new Sum(new Map(spans.map((each, i) => [each, values[i]!]))); // one for each
    if (account === "all") this.#lastSum = sum;
    return sum;
  }

  #span(): number {
    return Math.floor(this.#now() / ((this.#limits.ttlSeconds * 1000) / spansPerTtl));
  }
}

/** What an account has taken: what the store said, and what was taken here since. */
class Sum {
  readonly #spans: Map<number, number>;
  #bytes = 0;

  constructor(spans: Map<number, number>) {
    this.#spans = spans;
    for (const bytes of spans.values()) this.#bytes += bytes;
  }

  get bytes(): number {
    return this.#bytes;
  }

  add(span: number, bytes: number): void {
    this.#spans.set(span, (this.#spans.get(span) ?? 0) + bytes);
    this.#bytes += bytes;
  }

  /**
   * What the store said of a span: more than is known where others write as well, less where answers to this host are under way.
   *
   * @returns what the account had taken when the store said so
   */
  learn(span: number, value: number): number {
    const more = value - this.#spans.get(span)!; // it was added to
    const taken = this.#bytes + more;
    if (more > 0) this.add(span, more);
    return taken;
  }
}
