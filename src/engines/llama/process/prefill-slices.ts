/**
 * Which pieces of which prompts the next step computes.
 *
 * While others wait for their next token a step is short (`--max-gap`). Within that, pieces are as large as ggml's CPU attention likes them
 * (tiled-attention.ts): one prompt is read after the other in whole tiles, instead of a little of each, and a piece that is
 * nearly a tile is filled up with rows that are forgotten again.
 *
 * In deterministic mode every prompt is cut at multiples of the chunk size, whoever else is served.
 */
import type { Tokens } from "../../../identity/tokens.ts";
import type { RunningSequence, Slice } from "./step.ts";
import { tileTokens } from "./tiled-attention.ts";
import type { TiledAttention } from "./tiled-attention.ts";

export interface SliceLimits {
  /** Deterministic mode: tokens per slice. */
  readonly sliceTokens: number | undefined;
  /** Which rows go into a batch with which others. */
  readonly batches: "all" | "prompts" | "sequences";
  /** Tokens of a batch at most. */
  readonly batchTokens: number;
  /** Every step is kept short, not only those that others wait for. */
  readonly shortSteps: boolean;
  /** Tokens of prompt and answer of one request. */
  readonly contextTokens: number;
  /** Undefined = attention has no tiles, or the rows of a step are not of one sequence. */
  readonly attention: TiledAttention | undefined;
  /** What prompts may take of a step that others wait for, in ms. */
  readonly stepMs: number;
  /** What a unit of cost takes, as measured, in ms: a token without attention. */
  readonly unitMs: number;
  /** The same in a batch of fewer rows than a tile. */
  readonly smallUnitMs: number;
  /** Which step this is, counted from 1. */
  readonly turn: number;
}

/** Fewer tokens are not worth a step, and tell nothing of what one costs. */
export const smallestSlice = 16;
/** Another size must be cheaper than this share of the plain one's cost: costs are estimates. */
const clearly = 0.97;
/** A tile may take so much of the time, since fewer rows take about as long. */
const nearly = 1.1;
/** One step in so many goes to the request that came first. */
const turnsOfOldest = 4;

/** The pieces of the next step, beside `decoding` sequences that compute a token of their answers. */
export function cutPrompts(prefilling: readonly RunningSequence[], decoding: number, limits: SliceLimits): Slice[] {
  const { sliceTokens } = limits;
  const ordered = inOrder(prefilling, limits.turn);
  let room = ordered.length === 0 ? 0 : roomFor(decoding, ordered[0]!, limits);
  const slices: Slice[] = [];
  for (const running of ordered) {
    const rest = promptRest(running);
    const { sequence, held } = running;
    const border =
      sliceTokens === undefined ? freeLength(held, rest.length, room, limits) : sliceTokens - (held % sliceTokens);
    const length = Math.min(border, rest.length);
    if (length > room || room === 0) break;
    // What others left of the room is not worth a piece that is neither a tile nor all the rest.
    const isScrap = length < Math.min(tileTokens, rest.length);
    if (isScrap && slices.length > 0 && sliceTokens === undefined) break;
    const tokens = rest.subarray(0, length);
    const padding = sliceTokens === undefined ? paddingOf(held, length, room, limits) : 0;
    room -= length + padding;
    slices.push({ sequence, position: held, tokens, padding, last: length === rest.length });
  }
  return slices;
}

/** What pieces cost, before they are computed; 1 is what a token costs without attention. */
export function sliceCost(slices: readonly Slice[], { attention }: SliceLimits): number {
  return slices.reduce((sum, { position, tokens, padding }) => {
    const rows = tokens.length + padding;
    return sum + (attention?.cost(rows, position) ?? rows);
  }, 0);
}

/** Prompt tokens that the next step may take: as many as the first of them can have in that time. */
function roomFor(decoding: number, { held }: RunningSequence, limits: SliceLimits): number {
  const { sliceTokens, shortSteps, stepMs, unitMs, smallUnitMs, attention, batchTokens } = limits;
  const room = batchTokens - decoding;
  if (sliceTokens !== undefined || (decoding === 0 && !shortSteps)) return room;
  const unit = (rows: number) => (rows < tileTokens ? smallUnitMs : unitMs);
  const takes = (rows: number) => (attention?.cost(rows, held) ?? rows) * unit(rows);
  const fits = (rows: number) => takes(rows) <= stepMs;
  let rows = Math.min(room, wholeTiles(Math.floor(stepMs / unitMs)));
  while (rows > 0 && !fits(rows)) rows -= tileTokens;
  if (rows > 0) return rows;
  if (attention !== undefined && takes(tileTokens) <= nearly * stepMs) return Math.min(room, tileTokens);
  for (rows = tileTokens - 1; rows > smallestSlice && !fits(rows);) rows -= 1;
  return rows;
}

/**
 * Whoever has the least left to compute comes first, so that a question about known text does not wait for a new book; one
 * step in four belongs to the request that came first, so that the book is read as well.
 */
function inOrder(prefilling: readonly RunningSequence[], turn: number): RunningSequence[] {
  const left = (running: RunningSequence) => promptRest(running).length;
  const ordered = [...prefilling].sort((a, b) => left(a) - left(b));
  if (ordered.length < 2 || turn % turnsOfOldest !== 0) return ordered;
  const oldest = ordered.reduce((a, b) => (b.lastUsed < a.lastUsed ? b : a));
  return [oldest, ...ordered.filter((running) => running !== oldest)];
}

/** How many of the `left` tokens of a prompt go into a step with that much room: whole tiles, and a tile for the last slice. */
function freeLength(held: number, left: number, room: number, limits: SliceLimits): number {
  if (left <= room) return left;
  if (room < tileTokens) return room;
  const most = cheapest(held, wholeTiles(room), limits);
  return left < most + tileTokens && left >= 2 * tileTokens ? left - tileTokens : most;
}

/** So many whole tiles, `most` at most, that a token costs the least. */
function cheapest(held: number, most: number, { attention }: SliceLimits): number {
  if (attention === undefined) return most;
  const end = held + most; // what comes later costs more for its place, however it is cut
  let best = { rows: most, cost: (attention.cost(most, end - most) / most) * clearly };
  for (let rows = most - tileTokens; rows >= tileTokens; rows -= tileTokens) {
    const cost = attention.cost(rows, end - rows) / rows;
    if (cost < best.cost) best = { rows, cost };
  }
  return best.rows;
}

/** Rows that make the piece cheaper, up to the next tile. */
function paddingOf(held: number, tokens: number, room: number, { attention, contextTokens }: SliceLimits): number {
  if (attention === undefined) return 0;
  const most = Math.min(tokens + tileTokens - 1, room, contextTokens - held);
  let best = { rows: tokens, cost: attention.cost(tokens, held) * clearly };
  for (let rows = tokens + 1; rows <= most; rows += 1) {
    const cost = attention.cost(rows, held);
    if (cost < best.cost) best = { rows, cost };
  }
  return best.rows - tokens;
}

/** What is still to be computed of the prompt. */
function promptRest({ prompt, held }: RunningSequence): Tokens {
  return prompt.subarray(held);
}

function wholeTiles(tokens: number): number {
  return tokens - (tokens % tileTokens);
}
