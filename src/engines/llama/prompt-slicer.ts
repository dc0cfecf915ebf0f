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
  /** Rows to compute behind them and to forget, because a whole tile costs less than this piece of one. */
  readonly padding: number;
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
  /** Tokens of prompt and answer of one request. */
  readonly contextTokens: number;
  /** From {@link attentionCost}; 0 = attention has no tiles, or a step's rows are not of one sequence. */
  readonly attentionCost: number;
}

/** What attending to one position costs in a tile, where all else that a token costs is 1: the ratio of operations and of speeds. */
export function attentionCost(shape: { layers: number; heads: number; headSize: number; parameters: number }): number {
  const { layers, heads, headSize, parameters } = shape;
  return (mulMatSpeed * 4 * layers * heads * headSize) / (2 * parameters);
}

/** While others wait for their next token, or where a step cannot be stopped, it should not take longer than this. */
const stepMs = 200;
const smallestSlice = 16;
/** Rows that ggml's CPU attention computes together. */
const tileTokens = 64;
/** How much faster ggml multiplies weights than it attends in tiles, operation for operation: 67 and 37 GFLOPS were measured. */
const mulMatSpeed = 1.8;
/** How much more attention costs row by row than in tiles: 3.6 was measured; with 3, padding is worth it in any case. */
const untiledCost = 3;
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
      const border =
        sliceTokens === undefined ? sliceLength(rest.length, room) : sliceTokens - (sequence.count % sliceTokens);
      const length = Math.min(border, rest.length);
      if (length > room || room === 0) break;
      // What others left of the room is not worth a piece that is neither a tile nor all the rest.
      const isScrap = length < Math.min(tileTokens, rest.length);
      if (isScrap && slices.length > 0 && sliceTokens === undefined) break;
      const tokens = rest.subarray(0, length);
      const padding = this.#padding(sequence, length, room);
      room -= length + padding;
      slices.push({ sequence, tokens, padding, last: length === rest.length });
    }
    return slices;
  }

  /**
   * A question of 46 tokens after a text of 1,260 took 131 ms of processor time row by row, and 90 ms when 18 rows more made
   * it a tile: how many it takes to be worth it depends on the share that attention has in the cost of a token.
   */
  #padding(sequence: Sequence, tokens: number, room: number): number {
    const { sliceTokens, attentionCost, contextTokens } = this.#options;
    if (sliceTokens !== undefined || tokens >= tileTokens || room < tileTokens) return 0;
    if (sequence.count + tileTokens > contextTokens) return 0;
    const attention = attentionCost * (sequence.count + tokens);
    return tokens * (1 + untiledCost * attention) > tileTokens * (1 + attention) ? tileTokens - tokens : 0;
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
