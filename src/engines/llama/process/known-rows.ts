/**
 * The rows of a context's KV, found and proven: what is read out of its tensors is what llama.cpp itself writes of a sequence.
 */
import { CudaMemory } from "../../../ffi/cuda-memory.ts";
import type { ContextPointer } from "../../../ffi/llama.ts";
import type { Library } from "../model/library.ts";
import type { Model } from "../model/model.ts";
import { CudaRows, StreamTensors, TensorRows } from "./kv-rows.ts";
import type { KvRows } from "./kv-rows.ts";
import type { PayloadLayout } from "./sequence-state.ts";
import { StateCells } from "./state-cells.ts";

export interface RowPlaces {
  readonly library: Library;
  readonly model: Model;
  readonly context: ContextPointer;
  /** That it computes at most. */
  readonly rowsTogether: number;
}

export interface KnownState {
  readonly layout: PayloadLayout;
  readonly streams: number;
  /** As llama.cpp writes it, of sequence 0, which holds its cells still. */
  readonly state: Uint8Array;
}

/** @returns undefined where they are not found, or are not what they should be */
export function findRows({ library, model, context, rowsTogether }: RowPlaces, known: KnownState): KvRows | undefined {
  const { kvTensors, gpus } = library;
  const largest = { rows: rowsTogether, sequences: known.streams };
  const found = kvTensors?.find(context, known.layout.keys.length, largest);
  const tensors = found === undefined ? undefined : StreamTensors.of(found, known.layout, known.streams);
  if (kvTensors === undefined || tensors === undefined) return undefined;
  model.functions.synchronize(context);
  const isOneCuda = gpus.length === 1 && gpus[0]!.name.startsWith("CUDA");
  const memory = isOneCuda ? CudaMemory.open() : undefined;
  const ways = [...(memory === undefined ? [] : [new CudaRows(memory, tensors)]), new TensorRows(kvTensors, tensors)];
  return ways.find((rows) => isProven(rows, known));
}

/** Reads what a state holds, and writes it again: both must be what they are. */
function isProven(rows: KvRows, { layout, streams, state }: KnownState): boolean {
  const shape = { layout, cells: cellsOf(state), streams, sequence: 0 };
  const read = new Uint8Array(state.length);
  const copy = StateCells.make(read, shape, 0);
  const run = { cell: 0, position: 0, count: shape.cells };
  try {
    rows.get(copy, run, 0);
    rows.wait();
    const isSame = Buffer.compare(read, state) === 0;
    rows.put(copy, run, streams - 1);
    read.fill(0);
    const back = StateCells.make(read, shape, 0);
    rows.get(back, run, streams - 1);
    rows.wait();
    return isSame && Buffer.compare(read, state) === 0;
  } catch {
    return false;
  }
}

function cellsOf(state: Uint8Array): number {
  return new DataView(state.buffer, state.byteOffset).getUint32(12, true); // sequence 0's count comes first
}
