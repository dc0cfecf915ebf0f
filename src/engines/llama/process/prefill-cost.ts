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

  /** @param guess until something is measured: one token alone costs many times what it costs among others */
  constructor(guess: number) {
    this.#msPerToken = guess;
  }

  get msPerToken(): number {
    return this.#msPerToken;
  }

  /** Steps of mostly prompt tokens tell what one costs. Small slices cost more: they tell what it costs at most. */
  measured(elapsedMs: number, slices: readonly Slice[]): void {
    const tokens = slices.reduce((sum, slice) => sum + slice.tokens.length, 0);
    if (tokens < smallestSlice) return;
    const cost = elapsedMs / tokens;
    if (tokens < tileTokens) this.#msPerToken = Math.min(cost, this.#msPerToken);
    else {
      this.#msPerToken += (cost - this.#msPerToken) * (this.#isGuess ? 1 : believed);
      this.#isGuess = false;
    }
  }
}
