/**
 * Beginnings that requests share, between sequences that have a context each: what a neighbour holds of a prompt is copied.
 *
 * The cache knows whole chunks of what was answered, and is asked first. This finds the rest: the tokens of a chunk that is
 * not full, chats that branch early, and what a request beside this one has just computed. It goes piece by piece through one
 * buffer, as long as copying a token takes less time than computing it, which is measured as it runs.
 */
import type { Generation } from "./generation.ts";
import { reusable } from "./sequence-choice.ts";
import type { Sequence } from "./sequence.ts";
import { payloadBytes } from "./sequence-state.ts";
import type { PayloadLayout } from "./sequence-state.ts";

export interface NeighboursOptions {
  readonly sequences: readonly Sequence[];
  readonly layout: PayloadLayout;
  /** Deterministic mode: whole slices of this many tokens only. */
  readonly sliceTokens: number | undefined;
  /** The measured cost of computing a token, in milliseconds. */
  readonly computeMsPerToken: () => number;
}

/** Tokens per copy, which is what the buffer holds. */
const usualPieceTokens = 64;
/** Copying holds up everybody else's next token: it pauses after this long. */
const copyMs = 20;
/** How much of a new measurement is believed, and how fast a bad one is forgotten. */
const believed = 0.3;
const forgotten = 0.9;

export class Neighbours {
  readonly #options: NeighboursOptions;
  readonly #pieceTokens: number;
  #buffer: Uint8Array | undefined;
  #copyMsPerToken = 0;

  constructor(options: NeighboursOptions) {
    this.#options = options;
    this.#pieceTokens = options.sliceTokens ?? usualPieceTokens;
  }

  /** Appends what a neighbour holds of the generation's prompt beyond what its sequence holds. */
  async copyInto(sequence: Sequence, generation: Generation): Promise<void> {
    const started = performance.now();
    let pauseAt = started + copyMs;
    while (!generation.cancelled && this.#copyPiece(sequence, generation)) {
      if (performance.now() < pauseAt) continue;
      await new Promise((resolve) => setImmediate(resolve));
      pauseAt = performance.now() + copyMs;
    }
    generation.loadMs += performance.now() - started;
  }

  /** A neighbour may go on between two pieces: each is looked for anew. @returns false when there is nothing more. */
  #copyPiece(sequence: Sequence, generation: Generation): boolean {
    const { sliceTokens, layout, sequences } = this.#options;
    const { tokens: prompt, cache } = generation.request;
    const from = sequence.count;
    let best = { donor: sequence, held: from };
    for (const donor of sequences) {
      if (donor.context === sequence.context) continue; // shared by reference, by sequence-choice.ts
      const held = reusable(donor, { prompt, salt: cache.salt, reuse: true, sliceTokens });
      if (held > best.held) best = { donor, held };
    }
    const tokens = Math.min(best.held - from, this.#pieceTokens);
    if (tokens === 0 || !this.#isWorthwhile()) return false;
    this.#buffer ??= new Uint8Array(payloadBytes(layout, this.#pieceTokens));
    const started = performance.now();
    if (!sequence.copyFrom(best.donor, from + tokens, this.#buffer)) return false;
    if (sliceTokens !== undefined) sequence.markReproducible();
    generation.countReused("resident", tokens);
    this.#copyMsPerToken += believed * ((performance.now() - started) / tokens - this.#copyMsPerToken);
    return true;
  }

  #isWorthwhile(): boolean {
    if (this.#copyMsPerToken < this.#options.computeMsPerToken()) return true;
    this.#copyMsPerToken *= forgotten; // one slow copy is not the last word
    return false;
  }
}
