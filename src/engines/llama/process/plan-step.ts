/**
 * What the next step computes, and how much time what goes on beside it may take. Decides and moves nothing.
 *
 * Every sequence that answers computes its next token in every step; prompts get what room is left, as prefill-slices.ts cuts
 * them. Where cells lie in streams llama.cpp computes only rows together of which every sequence has as many, and cuts a batch
 * accordingly: the next tokens are a batch then. On a device prompts' pieces are another one; on a CPU each is one, whose size is right.
 *
 * Drafts are computed behind a next token where weights are read for little else: in a batch of few answers and no prompt, and of one answer
 * where all sequences must have as many rows.
 */
import { mostDrafting, noDrafts } from "./drafts.ts";
import { cutPrompts, sliceCost } from "./prefill-slices.ts";
import type { SliceLimits } from "./prefill-slices.ts";
import { draftsOf } from "./step.ts";
import type { Batch, DecodeRow, RunningSequence, Slice, Step } from "./step.ts";

export function planStep(running: readonly RunningSequence[], limits: SliceLimits): Step {
  const decoding = running.filter(({ phase }) => phase === "decoding");
  const prefilling = running.filter(({ phase }) => phase === "prefill");
  const slices = cutPrompts(prefilling, decoding.length, limits);
  const contextOf = new Map(running.map(({ sequence, context }) => [sequence, context]));
  const contexts = new Set([...decoding, ...slices].map(({ sequence }) => contextOf.get(sequence)!)); // all are of those that run
  const batches = [...contexts]
    .sort((a, b) => a - b)
    .flatMap((context): Batch[] => {
      const answering = decoding.filter((each) => each.context === context);
      const here = slices.filter(({ sequence }) => contextOf.get(sequence) === context);
      const isAlike = limits.batches !== "all";
      const mayDraft = isAlike ? answering.length === 1 : answering.length <= mostDrafting && here.length === 0;
      const decodes = answering.map((running) => decodeRow(running, mayDraft));
      const batch = (decodes: readonly DecodeRow[], slices: readonly Slice[]): Batch => {
        const rows = { context, decodes, slices, cost: decodes.length + sliceCost(slices, limits) };
        return { ...rows, cost: rows.cost + draftsOf(rows) };
      };
      if (!isAlike) return [batch(decodes, here)];
      const prompts = limits.batches === "prompts" && here.length > 0 ? [here] : here.map((slice) => [slice]);
      return [...(decodes.length > 0 ? [batch(decodes, [])] : []), ...prompts.map((slices) => batch([], slices))];
    });
  return { batches, decoding: decoding.length };
}

function decodeRow({ sequence, held, next, propose }: RunningSequence, mayDraft: boolean): DecodeRow {
  return { sequence, position: held, token: next, drafts: mayDraft ? propose() : noDrafts };
}

/** What may go on between two steps, in milliseconds. */
export interface Beside {
  /** For copying in what the cache has of prompts: a step may take hundreds of milliseconds, an answer of the cache a few. */
  readonly loadMs: number;
  /** For giving the cache what was computed. */
  readonly saveMs: number;
}

/** Time at most for saving between two steps, and while nothing else is to be done. */
const mostSaveMs = 5;
const idleSaveMs = 20;
/** Time at most that loads get before a step. */
const mostLoadMs = 25;
/** While answers run, saving and loading take no more than these shares of the time that their next token takes. */
const saveShare = 0.2;
const loadShare = 0.5;

/** @param stepMs what the last step took that had next tokens in it */
export function planBeside(running: readonly RunningSequence[], stepMs: number): Beside {
  const isAny = (phase: RunningSequence["phase"]) => running.some((each) => each.phase === phase);
  // Answers go on at nearly their speed.
  const timeFor = (share: number, mostMs: number) => (isAny("decoding") ? Math.min(mostMs, share * stepMs) : mostMs);
  return {
    loadMs: isAny("loading") ? timeFor(loadShare, mostLoadMs) : 0,
    saveMs: running.length > 0 ? timeFor(saveShare, mostSaveMs) : idleSaveMs,
  };
}
