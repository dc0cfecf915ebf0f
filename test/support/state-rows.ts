import type { StateCells } from "../../src/engines/llama/process/state-cells.ts";

/** Copies the rows of positions `[from, to)` into a state that has them one behind the other. @returns false when the source lacks one */
export function copyRows(target: StateCells, source: StateCells, from: number, to: number): boolean {
  const runs = source.runs(from, to);
  for (const run of runs ?? []) target.copyRun(source, run, target.cellOf(run.position)!); // it has them
  return runs !== undefined;
}
