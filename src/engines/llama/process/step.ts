/**
 * A step as plain data: what goes through the model next. Who decides, who runs it and who applies what came of it are three
 * files, and this is what they say to each other.
 *
 *     who runs a request ──plan-step.ts──► Step ──run-batch.ts──► BatchResult ──apply-batch.ts──► tokens, phases, events, failures
 *
 * Sequences and contexts are numbers here: their places in the lists of the engine.
 */
import type { Tokens } from "../../../identity/tokens.ts";
import type { DecodeResult } from "./context.ts";
import type { Phase } from "./generation.ts";
import type { Sequence } from "./sequence.ts";

/** What a plan looks at of a sequence that runs a request. */
export interface RunningSequence {
  readonly sequence: number;
  /** The context that its cells are in. */
  readonly context: number;
  readonly phase: Phase;
  /** Tokens whose KV it holds; the next one has this position. */
  readonly held: number;
  readonly prompt: Tokens;
  /** While decoding: the token that was drawn and is not computed yet. */
  readonly next: number;
  /** Tokens that may follow `next`: asked where they would be computed, and only there. */
  readonly propose: () => Tokens;
  /** Increases with every use, over all sequences. */
  readonly lastUsed: number;
}

export interface Step {
  /** One run of each context that has something to do, in the contexts' order. */
  readonly batches: readonly Batch[];
  /** Sequences that compute a token of their answers. */
  readonly decoding: number;
}

/** What one context computes at a time. */
export interface Batch {
  readonly context: number;
  readonly decodes: readonly DecodeRow[];
  readonly slices: readonly Slice[];
  /** What it costs in proportion to others; 1 is a token without attention. */
  readonly cost: number;
}

/** One token of an answer, and those that may follow it. */
export interface DecodeRow {
  readonly sequence: number;
  readonly position: number;
  readonly token: number;
  /** A row each, behind the token's; what is drawn says which of them stay. */
  readonly drafts: Tokens;
}

/** A piece of a prompt. */
export interface Slice {
  readonly sequence: number;
  /** Of its first token. */
  readonly position: number;
  readonly tokens: Tokens;
  /** Rows to compute behind them and to forget, because a whole tile costs less than this piece of one. */
  readonly padding: number;
  /** The prompt ends with it: its last token's logits are wanted. */
  readonly last: boolean;
}

export interface BatchResult {
  readonly decoded: DecodeResult;
  /** The decodes' first, then the slices'. */
  readonly outputs: readonly Output[];
}

/** Where in the batch the logits lie that a sequence's next token is drawn from. Those that follow its drafts lie behind it, in order. */
export interface Output {
  readonly sequence: number;
  readonly index: number;
  readonly drafts: Tokens;
}

/** Drafts of all its requests together. */
export function draftsOf({ decodes }: Batch): number {
  return decodes.reduce((sum, { drafts }) => sum + drafts.length, 0);
}

/** The sequences that run a request, as a plan looks at them. */
export function runningOf(sequences: readonly Sequence[], contexts: readonly unknown[]): RunningSequence[] {
  const running: RunningSequence[] = [];
  for (const [index, { generation, context, count, lastUsed }] of sequences.entries()) {
    if (generation === undefined) continue;
    const { phase, next, request } = generation;
    const place = { sequence: index, context: contexts.indexOf(context) };
    const propose = () => generation.propose();
    running.push({ ...place, phase, held: count, prompt: request.tokens, next, propose, lastUsed });
  }
  return running;
}
