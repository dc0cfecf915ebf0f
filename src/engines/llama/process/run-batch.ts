/**
 * Runs a planned batch: fills the context's batch row by row and decodes it. Decides nothing, and applies nothing.
 */
import { assert } from "../../../errors.ts";
import type { Context } from "./context.ts";
import { noDrafts } from "./drafts.ts";
import type { Sequence } from "./sequence.ts";
import { draftsOf } from "./step.ts";
import type { Batch, BatchResult, Output } from "./step.ts";

export function runBatch(batch: Batch, context: Context, sequences: readonly Sequence[]): BatchResult {
  const outputs: Output[] = [];
  context.begin();
  for (const { sequence, position, token, drafts } of batch.decodes) {
    const id = idAt(sequences, sequence, position);
    outputs.push({ sequence, index: context.add(id, position, token, true), drafts });
    for (const [offset, draft] of drafts.entries()) context.add(id, position + 1 + offset, draft, true);
  }
  for (const { sequence, position, tokens, padding, last } of batch.slices) {
    const id = idAt(sequences, sequence, position);
    for (const [offset, token] of tokens.entries()) {
      const wanted = last && offset === tokens.length - 1;
      const index = context.add(id, position + offset, token, wanted);
      if (wanted) outputs.push({ sequence, index, drafts: noDrafts });
    }
    const end = position + tokens.length;
    for (let row = 0; row < padding; row += 1) context.add(id, end + row, 0, false);
  }
  return { decoded: context.decode(batch.cost, draftsOf(batch)), outputs };
}

/** The sequence's number within its context. A plan is of now: it must not have moved on since. */
function idAt(sequences: readonly Sequence[], index: number, position: number): number {
  const { id, count } = sequences[index]!; // plans name sequences of the engine
  assert(count === position, `a plan goes on at position ${position} of a sequence that holds ${count}`);
  return id;
}
