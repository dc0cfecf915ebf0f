/**
 * Cells for rows to be put into. llama.cpp makes them when it reads a state; that one's rows are memory that nobody has written to, which
 * costs a copy of zeros and takes no memory.
 */
import { mapMemory, memoryAt, populateForReading, unmap } from "../../../ffi/posix.ts";
import type { CopyTools } from "./kv-copies.ts";
import { StateCells, writeState } from "./state-cells.ts";
import type { StateShape } from "./state-cells.ts";

/** Lets a sequence have so many cells, from position 0 on, instead of those that it has. @returns false when it could not: it has none then */
export function makeCells({ functions, context }: CopyTools, shape: StateShape): boolean {
  const bytes = StateCells.bytesOf(shape);
  const pointer = mapMemory(bytes);
  try {
    populateForReading(pointer, bytes);
    writeState((at, length) => new DataView(memoryAt(pointer + BigInt(at), length)), shape, 0);
    return functions.writeState(context, pointer, bytes, shape.sequence, 0) === bytes;
  } finally {
    unmap(pointer, bytes);
  }
}
