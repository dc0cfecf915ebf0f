/**
 * How much of a request's prompt each sequence holds, for many requests and again and again: prompts are compared only with what
 * sequences hold anew.
 */
import type { EngineRequest } from "../messages.ts";
import { usable } from "./sequence-choice.ts";
import type { Sequence } from "./sequence.ts";

/** As far as a prompt was compared with a sequence. */
interface Compared {
  /** Of the sequence, at that time: it holds something else when it has lost tokens since. */
  losses: number;
  tokens: number;
  common: number;
}

export class ResidentMatches {
  readonly #sliceTokens: number | undefined;
  readonly #compared = new WeakMap<EngineRequest, WeakMap<Sequence, Compared>>();

  /** @param sliceTokens deterministic mode: whole slices of this many tokens only */
  constructor(sliceTokens: number | undefined) {
    this.#sliceTokens = sliceTokens;
  }

  /** Tokens that the request may have from the sequence. */
  of(request: EngineRequest, sequence: Sequence): number {
    const { tokens: prompt, cache } = request;
    if (!cache.read) return 0;
    const trusted = sequence.trustedCount;
    const known = this.#known(request, sequence);
    if (known.common === known.tokens && known.tokens < trusted) {
      known.common = sequence.common(prompt, cache.salt, known.common);
      known.tokens = trusted;
    }
    const common = Math.min(known.common, trusted);
    return usable(sequence, common, { prompt, sliceTokens: this.#sliceTokens });
  }

  #known(request: EngineRequest, sequence: Sequence): Compared {
    let ofRequest = this.#compared.get(request);
    if (ofRequest === undefined) this.#compared.set(request, (ofRequest = new WeakMap()));
    const { losses } = sequence;
    let known = ofRequest.get(sequence);
    if (known?.losses !== losses) ofRequest.set(sequence, (known = { losses, tokens: 0, common: 0 }));
    return known;
  }
}
