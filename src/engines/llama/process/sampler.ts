/**
 * Choosing the next token: llama.cpp's own samplers in its own order.
 *
 *     biases, and never the end, where it is ignored → repeat penalty (prompt and answer) → frequency and presence (answer) → top-k → top-p → min-p → temperature → draw
 *
 * The same seed over the same logits draws the same tokens.
 */
import { randomInt } from "node:crypto";
import type { Sampling, TokenBias } from "../../../engine.ts";
import type { LlamaFunctions, SamplerPointer } from "../../../ffi/llama.ts";
import type { Context } from "./context.ts";

/** Tokens that the repeat penalty looks back on, as llama.cpp has it. */
const repeatWindow = 64;

export class Sampler {
  readonly #functions: LlamaFunctions;
  #chain: SamplerPointer | undefined;

  /** `never` are tokens that are not drawn; `prompt` is what the repeat penalty has already seen; `maxTokens` bounds what the other penalties will count. */
  constructor(
    functions: LlamaFunctions,
    options: {
      sampling: Sampling;
      vocabularySize: number;
      never: readonly number[];
      prompt: Uint32Array;
      maxTokens: number;
    },
  ) {
    const { sampling, vocabularySize } = options;
    const biases = [...(sampling.logitBias ?? []), ...options.never.map((token) => [token, -Infinity] as const)];
    this.#functions = functions;
    const chain = functions.samplerChain({ no_perf: true });
    this.#chain = chain;
    if (biases.length > 0) {
      functions.addSampler(chain, functions.biasSampler(vocabularySize, biases.length, biasBytes(biases)));
    }
    if (sampling.repeatPenalty !== 1) {
      const penalty = functions.penaltySampler(vocabularySize, repeatWindow, sampling.repeatPenalty, 0, 0);
      for (const token of options.prompt.subarray(-repeatWindow)) functions.acceptToken(penalty, token);
      functions.addSampler(chain, penalty);
    }
    if (sampling.frequencyPenalty !== 0 || sampling.presencePenalty !== 0) {
      const { frequencyPenalty, presencePenalty } = sampling;
      functions.addSampler(
        chain,
        functions.penaltySampler(vocabularySize, options.maxTokens, 1, frequencyPenalty, presencePenalty),
      );
    }
    if (sampling.temperature === 0) {
      functions.addSampler(chain, functions.greedySampler());
      return;
    }
    if (sampling.topK > 0) functions.addSampler(chain, functions.topKSampler(sampling.topK));
    if (sampling.topP < 1) functions.addSampler(chain, functions.topPSampler(sampling.topP, 1));
    if (sampling.minP > 0) functions.addSampler(chain, functions.minPSampler(sampling.minP, 1));
    functions.addSampler(chain, functions.temperatureSampler(sampling.temperature));
    functions.addSampler(chain, functions.distributionSampler(seedOf(sampling)));
  }

  /** Draws the token after the batch's token `index`, none of `notYet`, and remembers it for the penalties. */
  sample(context: Context, index: number, notYet: readonly number[]): number {
    if (this.#chain === undefined) throw new Error("Bug: a freed sampler was used");
    if (notYet.length === 0) return this.#functions.sample(this.#chain, context.pointer, index);
    const logits = context.logits(index);
    const before = notYet.map((token) => logits[token]!); // tokens are checked to be in the vocabulary
    for (const token of notYet) logits[token] = -Infinity;
    const drawn = this.#functions.sample(this.#chain, context.pointer, index);
    // Log-probabilities are of what the model said.
    for (const [place, token] of notYet.entries()) logits[token] = before[place]!;
    return drawn;
  }

  free(): void {
    if (this.#chain !== undefined) this.#functions.freeSampler(this.#chain);
    this.#chain = undefined;
  }
}

/** `llama_logit_bias` structs: { i32 token, f32 bias }. */
function biasBytes(biases: readonly TokenBias[]): Uint8Array {
  const bytes = new DataView(new ArrayBuffer(8 * biases.length));
  for (const [i, [token, bias]] of biases.entries()) {
    bytes.setInt32(8 * i, token, true);
    bytes.setFloat32(8 * i + 4, bias, true);
  }
  return new Uint8Array(bytes.buffer);
}

/** llama.cpp takes the largest seed as "choose one": it stands for 0 here, so that every seed given is reproducible. */
function seedOf(sampling: Sampling): number {
  const seed = sampling.seed ?? randomInt(0xffff_ffff);
  return seed === 0xffff_ffff ? 0 : seed;
}
