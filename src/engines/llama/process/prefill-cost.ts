/**
 * What a prompt token costs on this machine, as far as steps have told: how long prompts may be beside answers, and whether
 * loading is worth it, hang on it.
 */
import { smallestSlice } from "./prefill-slices.ts";
import type { Slice } from "./step.ts";
import { tileTokens } from "./tiled-attention.ts";

/** How much of a new measurement is believed. */
const believed = 0.3;

export class PrefillCost {
  #msPerToken: number;
  #isGuess = true;
  /** Of steps that a device may still be at. */
  #open = { ms: 0, tokens: 0 };

  /** @param guess until something is measured: one token alone costs many times what it costs among others */
  constructor(guess: number) {
    this.#msPerToken = guess;
  }

  get msPerToken(): number {
    return this.#msPerToken;
  }

  /**
   * Steps of mostly prompt tokens tell what one costs. Small slices cost more: they tell what it costs at most.
   *
   * @param isDone false: a device goes on with it, and a later step waits for both
   */
  measured(elapsedMs: number, slices: readonly Slice[], isDone = true): void {
    const ms = this.#open.ms + elapsedMs;
    const tokens = this.#open.tokens + slices.reduce((sum, slice) => sum + slice.tokens.length, 0);
    this.#open = isDone ? { ms: 0, tokens: 0 } : { ms, tokens };
    if (tokens < smallestSlice || !isDone) return;
    const cost = ms / tokens;
    if (tokens < tileTokens) this.#msPerToken = Math.min(cost, this.#msPerToken);
    else {
      this.#msPerToken += (cost - this.#msPerToken) * (this.#isGuess ? 1 : believed);
      this.#isGuess = false;
    }
  }
}
