/**
 * Which pieces of which prompts the next step computes.
 *
 * While others wait for their next token a step is short. Within that, pieces are as large as ggml likes them: its CPU
 * attention computes 64 rows together and goes row by row where a piece has fewer, which costs several times as much a row (a
 * step of 63 tokens after 1,260 took 182 ms of processor time, one of 64 took 90). So one prompt is read after the other in
 * whole tiles, instead of a little of each.
 *
 * In deterministic mode every prompt is cut at multiples of the chunk size, whoever else is served.
 */
import { batchTokens } from "./context.ts";
import type { Sequence } from "./sequence.ts";

/** A piece of a prompt that a step computes. */
export interface Slice {
  readonly sequence: Sequence;
  readonly tokens: Uint32Array;
  /** The prompt ends with it. */
  readonly last: boolean;
}

export interface PromptSlicerOptions {
  /** Deterministic mode: tokens per slice. */
  readonly sliceTokens: number | undefined;
  /** Every step is kept short, not only those that others wait for. */
  readonly shortSteps: boolean;
  /** First guess of the cost of a prompt token; measured from then on. */
  readonly computeMsPerToken: number;
}

/** While others wait for their next token, or where a step cannot be stopped, it should not take longer than this. */
const stepMs = 200;
const smallestSlice = 16;
/** Rows that ggml's CPU attention computes together. */
const tileTokens = 64;
/** One step in so many goes to the request that came first. */
const turnsOfOldest = 4;

export class PromptSlicer {
  readonly #options: PromptSlicerOptions;
  #computeMsPerToken: number;
  #turn = 0;

  constructor(options: PromptSlicerOptions) {
    this.#options = options;
    this.#computeMsPerToken = options.computeMsPerToken;
  }

  /** The measured cost of a prompt token. */
  get computeMsPerToken(): number {
    return this.#computeMsPerToken;
  }

  /** The pieces of the next step, beside `decoding` sequences that compute a token of their answers. */
  next(decoding: number, reading: readonly Sequence[]): Slice[] {
    const { sliceTokens } = this.#options;
    let room = this.#room(decoding);
    const slices: Slice[] = [];
    for (const sequence of this.#inOrder(reading)) {
      const rest = promptRest(sequence);
      const length =
        sliceTokens === undefined ? sliceLength(rest.length, room) : sliceTokens - (sequence.count % sliceTokens);
      if (length === 0 || length > room) break;
      // What others left of the room is not worth a piece that is neither a tile nor all the rest.
      if (slices.length > 0 && length < Math.min(tileTokens, rest.length)) break;
      const tokens = rest.subarray(0, length);
      room -= tokens.length;
      slices.push({ sequence, tokens, last: tokens.length === rest.length });
    }
    return slices;
  }

  /** Steps of mostly prompt tokens tell what one costs. Small slices cost more: they tell what it costs at most. */
  measured(elapsedMs: number, slices: readonly Slice[]): void {
    const tokens = slices.reduce((sum, slice) => sum + slice.tokens.length, 0);
    if (tokens < smallestSlice) return;
    const cost = elapsedMs / tokens;
    if (tokens < tileTokens) this.#computeMsPerToken = Math.min(cost, this.#computeMsPerToken);
    else this.#computeMsPerToken += (cost - this.#computeMsPerToken) * 0.3;
  }

  /** Prompt tokens that the next step may take. */
  #room(decoding: number): number {
    const { sliceTokens, shortSteps } = this.#options;
    const room = batchTokens - decoding;
    if (sliceTokens !== undefined || (decoding === 0 && !shortSteps)) return room;
    const affordable = Math.floor(stepMs / this.#computeMsPerToken);
    if (affordable >= tileTokens) return Math.min(room, wholeTiles(affordable));
    return 2 * affordable >= tileTokens ? tileTokens : Math.max(smallestSlice, affordable);
  }

  /**
   * Whoever has the least left to read comes first, so that a question about known text does not wait for a new book; one
   * step in four belongs to the request that came first, so that the book is read as well.
   */
  #inOrder(reading: readonly Sequence[]): Sequence[] {
    const left = (sequence: Sequence) => promptRest(sequence).length;
    const ordered = [...reading].sort((a, b) => left(a) - left(b));
    this.#turn += 1;
    if (ordered.length < 2 || this.#turn % turnsOfOldest !== 0) return ordered;
    const oldest = ordered.reduce((a, b) => (b.lastUsed < a.lastUsed ? b : a));
    return [oldest, ...ordered.filter((sequence) => sequence !== oldest)];
  }
}

/** What is still to be computed of the prompt. */
function promptRest(sequence: Sequence): Uint32Array {
  return sequence.generation!.work.tokens.subarray(sequence.count); // asked of those that read
}

/** How many of the `left` tokens of a prompt go into a step with that much room: whole tiles, and a tile for the last slice. */
function sliceLength(left: number, room: number): number {
  if (left <= room) return left;
  if (room < tileTokens) return room;
  const most = wholeTiles(room);
  return left < most + tileTokens && left >= 2 * tileTokens ? left - tileTokens : most;
}

function wholeTiles(tokens: number): number {
  return tokens - (tokens % tileTokens);
}
