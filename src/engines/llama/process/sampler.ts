/**
 * Choosing the next token, as llama.cpp's samplers do and in its order:
 *
 *     biases, and never the end, where it is ignored → repeat penalty (prompt and answer) → frequency and presence (answer) → top-k → top-p → min-p → temperature → draw
 *
 * The same seed over the same logits draws the same tokens. Biases and penalties change single logits where llama.cpp computed
 * them, for as long as the choice takes.
 */
import { randomInt } from "node:crypto";
import type { Sampling } from "../../../engine.ts";
import type { Context } from "./context.ts";
import { SeededDraws } from "./seeded-draws.ts";

/** Tokens that the repeat penalty looks back on, as llama.cpp has it. */
const repeatWindow = 64;

export class Sampler {
  readonly #sampling: Sampling;
  readonly #never: readonly number[];
  readonly #draws: SeededDraws;
  /** Of prompt and answer, the last few, where there is a repeat penalty. */
  readonly #recent: number[];
  /** How often each token came in the answer, where that counts. */
  readonly #counts = new Map<number, number>();
  /** Logits that were changed, and what they were, in the order of the changes. */
  readonly #changed: number[] = [];
  readonly #before: number[] = [];

  /** `never` are tokens that are not drawn; `prompt` is what the repeat penalty has already seen. */
  constructor(options: { sampling: Sampling; never: readonly number[]; prompt: Uint32Array }) {
    const { sampling, never, prompt } = options;
    this.#sampling = sampling;
    this.#never = never;
    this.#draws = new SeededDraws(sampling.seed ?? randomInt(2 ** 32));
    this.#recent = sampling.repeatPenalty === 1 ? [] : [...prompt.subarray(-repeatWindow)];
  }

  /** Draws the token after the batch's token `index`, none of `notYet`, and remembers it for the penalties. */
  sample(context: Pick<Context, "logits" | "candidates">, index: number, notYet: readonly number[]): number {
    const logits = context.logits(index);
    this.#change(logits, notYet);
    const { temperature } = this.#sampling;
    const token =
      temperature === 0
        ? context.candidates.likeliest(logits)
        : context.candidates.draw(logits, this.#sampling, temperature, this.#draws.next());
    // Log-probabilities are of what the model said.
    while (this.#changed.length > 0) logits[this.#changed.pop()!] = this.#before.pop()!; // both are as long
    this.remember(token);
    return token;
  }

  #change(logits: Float32Array, notYet: readonly number[]): void {
    const { logitBias = [], repeatPenalty, frequencyPenalty, presencePenalty } = this.#sampling;
    const isPlain =
      logitBias.length + this.#never.length + notYet.length + this.#recent.length + this.#counts.size === 0;
    if (isPlain) return; // as most are
    const set = (token: number, logit: number) => {
      this.#changed.push(token);
      this.#before.push(logits[token]!); // tokens are checked to be in the vocabulary
      logits[token] = logit;
    };
    for (const [token, bias] of logitBias) set(token, logits[token]! + bias);
    for (const token of this.#never) set(token, -Infinity);
    for (const token of notYet) set(token, -Infinity);
    for (const token of new Set(this.#recent)) {
      const logit = logits[token]!;
      set(token, logit <= 0 ? logit * repeatPenalty : logit / repeatPenalty);
    }
    for (const [token, count] of this.#counts) {
      set(token, logits[token]! - count * frequencyPenalty - presencePenalty);
    }
  }

  /** A token of the answer counts for the penalties from now on. */
  remember(token: number): void {
    const { repeatPenalty, frequencyPenalty, presencePenalty } = this.#sampling;
    if (repeatPenalty !== 1 && this.#recent.push(token) > repeatWindow) this.#recent.shift();
    if (frequencyPenalty === 0 && presencePenalty === 0) return;
    this.#counts.set(token, (this.#counts.get(token) ?? 0) + 1);
  }
}
