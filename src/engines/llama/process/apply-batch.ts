/**
 * What came of a batch: tokens are drawn, phases change, clients hear of it, and requests end or fail.
 *
 * Behind a token of an answer its drafts were computed. Tokens are drawn there in order, for as long as each is the draft that was computed
 * next; the first that is not, or that ends the answer, is the last. What was computed behind it is forgotten before anybody can see it.
 */
import type { GenerateEvent } from "../../../engine.ts";
import { RepriseError } from "../../../errors.ts";
import type { Log } from "../../../log.ts";
import type { Context } from "./context.ts";
import type { ResidentKv } from "./resident-kv.ts";
import type { Sequence } from "./sequence.ts";
import type { Batch, BatchResult, Output } from "./step.ts";

export interface ApplyOptions {
  readonly sequences: readonly Sequence[];
  readonly kv: ResidentKv;
  /** Deterministic mode: tokens per slice. */
  readonly sliceTokens: number | undefined;
  readonly onEvent: (id: number, event: GenerateEvent) => void;
  readonly onFailed: (id: number, error: RepriseError) => void;
  readonly log: Log;
}

/** Applies a batch's result. One that was aborted has changed nothing: its requests go on, or leave. */
export function applyBatch(batch: Batch, { decoded, outputs }: BatchResult, context: Context, to: ApplyOptions): void {
  if (decoded === "aborted") return;
  if (decoded === "no room") makeRoom(batch, context, to);
  else if (decoded !== "done") fail(members(batch, to), `llama_decode returned ${decoded.failed}`, to);
  else {
    keep(batch, context, to);
    // The first use of the logits copies them from where they were computed; it belongs to the step.
    for (const output of outputs) draw(output, to);
  }
}

/** The sequences hold what was computed, but for padding and drafts. */
function keep(batch: Batch, context: Context, { sequences, sliceTokens }: ApplyOptions): void {
  for (const { sequence, token } of batch.decodes) sequences[sequence]!.append(Uint32Array.of(token)); // plans name sequences of the engine
  for (const { sequence: index, tokens, padding } of batch.slices) {
    const sequence = sequences[index]!; // as above
    sequence.append(tokens);
    if (padding > 0) context.truncate(sequence.id, sequence.count);
    if (sequence.count % (sliceTokens ?? Infinity) === 0) sequence.markReproducible();
  }
}

function draw({ sequence: place, index, drafts }: Output, { sequences, kv, onEvent }: ApplyOptions): void {
  const sequence = sequences[place]!; // as above
  const generation = sequence.generation!; // outputs are of running sequences
  const wasPrefilling = generation.phase === "prefill";
  generation.drafts?.computed(drafts);
  const events = generation.draw(sequence.context, index);
  let accepted = 0;
  while (events.at(-1)?.kind !== "end" && generation.next === drafts[accepted]) {
    sequence.append(drafts.subarray(accepted, accepted + 1));
    accepted += 1;
    events.push(...generation.draw(sequence.context, index + accepted));
  }
  if (accepted < drafts.length) sequence.context.truncate(sequence.id, sequence.count);
  for (const event of events) onEvent(generation.request.id, event);
  if (wasPrefilling) kv.savePrompt(sequence, generation);
  if (events.at(-1)?.kind === "end") kv.end(sequence, generation);
}

/** No free cells: drafts go first, then idle sequences, one for each try, then the longest request. */
function makeRoom(batch: Batch, context: Context, to: ApplyOptions): void {
  const drafting = batch.decodes.filter(({ drafts }) => drafts.length > 0);
  for (const { sequence } of drafting) to.sequences[sequence]!.generation?.drafts?.rest(); // as above
  if (drafting.length > 0) return;
  if (to.kv.dropIdle(context)) return;
  const longest = members(batch, to).reduce((best, sequence) => (sequence.count > best.count ? sequence : best));
  fail([longest], "the context has no room left", to);
}

function fail(failing: readonly Sequence[], what: string, { kv, onFailed, log }: ApplyOptions): void {
  log.error(`${what}; ${failing.length} requests fail`);
  for (const sequence of failing) {
    const generation = sequence.generation!; // members of a batch have one
    kv.empty(sequence);
    onFailed(generation.request.id, new RepriseError("ENGINE_FAILED", `The request failed: ${what}`));
  }
}

function members({ decodes, slices }: Batch, { sequences }: ApplyOptions): Sequence[] {
  return [...decodes, ...slices].map(({ sequence }) => sequences[sequence]!); // as above
}
