/**
 * Restoring into cells that are there already, of a text before: rows are put where they stay, and llama.cpp's books of the cells are right
 * as they are. Nothing is put together elsewhere, and nothing is copied twice.
 */
import { assert } from "../../../errors.ts";
import type { PayloadPlace, Restoring, StreamTools } from "./kv-copies.ts";
import { StateCells } from "./state-cells.ts";

/** Where a sequence that holds `[0, from)` has cells up to `most`. Not while a copy from or to its stream is due. */
export function restoreInPlace(
  { functions, context, layout, rows, cells }: StreamTools,
  { sequence, from, most }: { readonly sequence: number; readonly from: number; readonly most: number },
): Restoring {
  functions.synchronize(context); // a device may be computing these rows still
  assert(cells.held(sequence) === from, "a text is restored behind what its sequence holds");
  let end = from;
  return {
    isAtOnce: false,
    add: (payload: Uint8Array, at: PayloadPlace) => {
      assert(at.from === end, "what is added begins where the one before ended");
      const state = StateCells.of(payload, { layout, cells: at.tokenCount, streams: 1, sequence: 0 });
      const runs = at.to <= most ? state.runs(at.from, at.to) : undefined;
      if (runs === undefined) return "no room";
      for (const run of runs) rows.put(state, run, sequence);
      end = at.to;
      return "restored";
    },
    arrived: () => rows.arrived(),
    end: () => {
      rows.wait();
      cells.filled(sequence, end);
      return true;
    },
    drop: () => {
      rows.wait();
      return true;
    },
  };
}
