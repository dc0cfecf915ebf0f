/**
 * What a prompt token costs on this machine, as far as steps have told: how long prompts may be beside answers, and whether
 * loading is worth it, hang on it.
 */
import { smallestSlice } from "./prefill-slices.ts";
import type { Batch } from "./step.ts";
import { tileTokens } from "./tiled-attention.ts";

/** How much of a new measurement is believed. */
const believed = 0.3;

export class PrefillCost {
  #msPerToken: number;
  #unitMs: number;
  #smallUnitMs: number | undefined;
  #isGuess = true;
  /** Of steps that a device may still be at. */
  #open = { ms: 0, tokens: 0, cost: 0 };

  /** @param guess until something is measured: one token alone costs many times what it costs among others */
  constructor(guess: number) {
    this.#msPerToken = guess;
    this.#unitMs = guess;
  }

  get msPerToken(): number {
    return this.#msPerToken;
  }

  /** What a unit of a batch's cost takes: it does not grow with what a prompt's pieces have before them. */
  get unitMs(): number {
    return this.#unitMs;
  }

  /** The same in batches of fewer rows than a tile, whose cost is harder to foretell. */
  get smallUnitMs(): number {
    return this.#smallUnitMs ?? this.#unitMs;
  }

  /**
   * Steps of mostly prompt tokens tell what one costs. Small slices cost more: they tell what it costs at most, and
   * have a unit of their own.
   *
   * @param isDone false: a device goes on with it, and a later step waits for both
   */
  measured(elapsedMs: number, batch: Pick<Batch, "slices" | "cost">, isDone = true): void {
    const ms = this.#open.ms + elapsedMs;
    const tokens = this.#open.tokens + batch.slices.reduce((sum, slice) => sum + slice.tokens.length, 0);
    const cost = this.#open.cost + batch.cost;
    this.#open = isDone ? { ms: 0, tokens: 0, cost: 0 } : { ms, tokens, cost };
    if (tokens < smallestSlice || !isDone) return;
    if (tokens >= tileTokens) {
      const part = this.#isGuess ? 1 : believed;
      this.#msPerToken += (ms / tokens - this.#msPerToken) * part;
      this.#unitMs += (ms / cost - this.#unitMs) * part;
      this.#isGuess = false;
      return;
    }
    this.#msPerToken = Math.min(this.#msPerToken, ms / tokens);
    if (this.#isGuess) this.#unitMs = Math.min(this.#unitMs, ms / cost);
    this.#smallUnitMs ??= ms / cost;
    this.#smallUnitMs += (ms / cost - this.#smallUnitMs) * believed;
  }
}
