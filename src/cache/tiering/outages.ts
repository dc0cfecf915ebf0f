/**
 * Tiers that failed: each is left alone for a while and tried again, and the cache goes on without it meanwhile.
 *
 *     there ──failed──► away ──retryMs──► there        one log line each time
 */
import { describe } from "../../errors.ts";
import type { Log } from "../../log.ts";
import type { Tier } from "../../tier.ts";
import type { Counters } from "../counters.ts";

export interface OutagesOptions {
  readonly counters: Counters;
  readonly log: Log;
  /** How long a tier that failed is left alone. */
  readonly retryMs: number;
}

export class Outages {
  readonly #options: OutagesOptions;
  readonly #away = new Map<Tier, NodeJS.Timeout>();
  readonly #whenBack = new Map<Tier, () => void>();

  constructor(options: OutagesOptions) {
    this.#options = options;
  }

  isAway(tier: Tier): boolean {
    return this.#away.has(tier);
  }

  /** Called each time the tier may be tried again. One listener a tier. */
  onBack(tier: Tier, listener: () => void): void {
    this.#whenBack.set(tier, listener);
  }

  failed(tier: Tier, error: unknown): void {
    this.#options.counters.tierFailures += 1;
    if (this.#away.has(tier)) return;
    this.#options.log.warn(`${tier.name} tier: ${describe(error)}; going on without it`);
    const timer = setTimeout(() => {
      this.#away.delete(tier);
      this.#whenBack.get(tier)?.();
    }, this.#options.retryMs);
    this.#away.set(tier, timer.unref());
  }

  /** Nobody is told any more. */
  close(): void {
    for (const timer of this.#away.values()) clearTimeout(timer);
    this.#away.clear();
    this.#whenBack.clear();
  }
}
