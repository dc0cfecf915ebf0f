/**
 * Runs a planned batch: fills the context's batch row by row and decodes it. Decides nothing, and applies nothing.
 */
import { assert } from "../../../errors.ts";
import type { Context } from "./context.ts";
import type { Sequence } from "./sequence.ts";
import type { Batch, BatchResult } from "./step.ts";

export function runBatch(batch: Batch, context: Context, sequences: readonly Sequence[]): BatchResult {
  const outputs: { sequence: number; index: number }[] = [];
  context.begin();
  for (const { sequence, position, token } of batch.decodes) {
    outputs.push({ sequence, index: context.add(idAt(sequences, sequence, position), position, token, true) });
  }
  for (const { sequence, position, tokens, padding, last } of batch.slices) {
    const id = idAt(sequences, sequence, position);
    for (const [offset, token] of tokens.entries()) {
      const wanted = last && offset === tokens.length - 1;
      const index = context.add(id, position + offset, token, wanted);
      if (wanted) outputs.push({ sequence, index });
    }
    const end = position + tokens.length;
    for (let row = 0; row < padding; row += 1) context.add(id, end + row, 0, false);
  }
  return { decoded: context.decode(batch.cost), outputs };
}

/** The sequence's number within its context. A plan is of now: it must not have moved on since. */
function idAt(sequences: readonly Sequence[], index: number, position: number): number {
  const { id, count } = sequences[index]!; // plans name sequences of the engine
  assert(count === position, `a plan goes on at position ${position} of a sequence that holds ${count}`);
  return id;
}
