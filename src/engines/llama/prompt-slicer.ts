/**
 * Which pieces of which prompts the next step computes.
 *
 * While others wait for their next token a step is short. Within that, pieces are as large as ggml's CPU attention likes them
 * (tiled-attention.ts): one prompt is read after the other in whole tiles, instead of a little of each, and a piece that is
 * nearly a tile is filled up with rows that are forgotten again.
 *
 * In deterministic mode every prompt is cut at multiples of the chunk size, whoever else is served.
 */
import { batchTokens } from "./context.ts";
import type { Sequence } from "./sequence.ts";
import { tileTokens } from "./tiled-attention.ts";
import type { TiledAttention } from "./tiled-attention.ts";

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
  /** Undefined = attention has no tiles, or the rows of a step are not of one sequence. */
  readonly attention: TiledAttention | undefined;
}

/** While others wait for their next token, or where a step cannot be stopped, it should not take longer than this. */
const stepMs = 200;
const smallestSlice = 16;
/** Another size must be cheaper than this share of the plain one's cost: costs are estimates. */
const clearly = 0.97;
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
        sliceTokens === undefined
          ? this.#length(sequence, rest.length, room)
          : sliceTokens - (sequence.count % sliceTokens);
      const length = Math.min(border, rest.length);
      if (length > room || room === 0) break;
      // What others left of the room is not worth a piece that is neither a tile nor all the rest.
      const isScrap = length < Math.min(tileTokens, rest.length);
      if (isScrap && slices.length > 0 && sliceTokens === undefined) break;
      const tokens = rest.subarray(0, length);
      const padding = sliceTokens === undefined ? this.#padding(sequence, length, room) : 0;
      room -= length + padding;
      slices.push({ sequence, tokens, padding, last: length === rest.length });
    }
    return slices;
  }

  /** What pieces cost, before they are computed; 1 is what a token costs without attention. */
  cost(slices: readonly Slice[]): number {
    const { attention } = this.#options;
    return slices.reduce((sum, { sequence, tokens, padding }) => {
      const rows = tokens.length + padding;
      return sum + (attention?.cost(rows, sequence.count) ?? rows);
    }, 0);
  }

  /** Rows that make the piece cheaper, up to the next tile. */
  #padding(sequence: Sequence, tokens: number, room: number): number {
    const { attention, contextTokens } = this.#options;
    if (attention === undefined) return 0;
    const most = Math.min(tokens + tileTokens - 1, room, contextTokens - sequence.count);
    let best = { rows: tokens, cost: attention.cost(tokens, sequence.count) * clearly };
    for (let rows = tokens + 1; rows <= most; rows += 1) {
      const cost = attention.cost(rows, sequence.count);
      if (cost < best.cost) best = { rows, cost };
    }
    return best.rows - tokens;
  }

  /** How many of the `left` tokens of a prompt go into a step with that much room: whole tiles, and a tile for the last slice. */
  #length(sequence: Sequence, left: number, room: number): number {
    if (left <= room) return left;
    if (room < tileTokens) return room;
    const most = this.#cheapest(sequence, wholeTiles(room));
    return left < most + tileTokens && left >= 2 * tileTokens ? left - tileTokens : most;
  }

  /** So many whole tiles, `most` at most, that a token costs the least. */
  #cheapest(sequence: Sequence, most: number): number {
    const { attention } = this.#options;
    if (attention === undefined) return most;
    const end = sequence.count + most; // what comes later costs more for its place, however it is cut
    let best = { rows: most, cost: (attention.cost(most, end - most) / most) * clearly };
    for (let rows = most - tileTokens; rows >= tileTokens; rows -= tileTokens) {
      const cost = attention.cost(rows, end - rows) / rows;
      if (cost < best.cost) best = { rows, cost };
    }
    return best.rows;
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

function wholeTiles(tokens: number): number {
  return tokens - (tokens % tileTokens);
}
