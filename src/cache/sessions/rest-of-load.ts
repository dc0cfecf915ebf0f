/**
 * What a load has still to bring, weighed against computing it while it is waited for: a tier that turns out slower than it was believed
 * to be costs moments, and not as long as the whole text would take.
 */
import { addTokens } from "../counters.ts";
import type { TierName } from "../../tier.ts";
import type { LeasedMatch } from "./loading.ts";
import type { SessionContext } from "./session-context.ts";

/** How often the rest is weighed. */
const everyMs = 50;

export class RestOfLoad {
  readonly #context: SessionContext;
  readonly #held: readonly LeasedMatch[];
  readonly #computeMsPerToken: number;
  #weighed = performance.now();

  constructor(context: SessionContext, held: readonly LeasedMatch[], computeMsPerToken: number) {
    this.#context = context;
    this.#held = held;
    this.#computeMsPerToken = computeMsPerToken;
  }

  /** Milliseconds until {@link isSlower} is to be asked. */
  get dueMs(): number {
    return Math.max(1, this.#weighed + everyMs - performance.now());
  }

  /** By now computing the chunks from this number on is faster than waiting for them. False between times. */
  isSlower(from: number): boolean {
    if (performance.now() - this.#weighed < everyMs) return false;
    this.#weighed = performance.now();
    const { store, loadOrCompute } = this.#context;
    const missing = new Map<TierName, number>();
    let tokens = 0;
    for (const { chunk, wanted, tier, matchedTokens } of this.#held.slice(from)) {
      tokens += matchedTokens;
      if (!store.chunks.table.has(chunk) || store.chunks.isReady(chunk, wanted)) continue;
      missing.set(tier, (missing.get(tier) ?? 0) + store.chunks.bytesToLoad(chunk, wanted));
    }
    const computeMs = tokens * this.#computeMsPerToken;
    return [...missing].some(([tier, bytes]) => loadOrCompute.speed(tier).atLeastMs(bytes) > computeMs);
  }

  /** The chunks from this number on are left to be computed. */
  leave(from: number): void {
    for (const { tier, matchedTokens } of this.#held.slice(from))
      addTokens(this.#context.counters.skippedTokens, tier, matchedTokens);
  }
}
