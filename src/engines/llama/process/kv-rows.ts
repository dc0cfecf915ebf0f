/**
 * Rows of KV between states in this process's memory and the tensors of a context whose sequences have streams of their own: what
 * llama.cpp itself moves a whole sequence at a time.
 *
 * In a stream that is only appended to and cut off at its end, the cell of a position has the position's number. Ours are; what is
 * restored goes in at the front of an empty stream.
 */
import { assert } from "../../../errors.ts";
import { type CudaMemory, largestStride, type RowCount, type Rows } from "../../../ffi/cuda-memory.ts";
import type { KvTensor, KvTensorFunctions, KvTensors } from "../../../ffi/kv-tensors.ts";
import { addressOf, type Pointer } from "../../../ffi/posix.ts";
import { PinnedExtents } from "./pinned-extents.ts";
import type { PayloadLayout } from "./sequence-state.ts";
import type { CellRun, StateCells } from "./state-cells.ts";

export interface KvRows {
  /** Who copies. */
  readonly by: "ggml" | "CUDA";
  /** Begins to copy rows of a state into a stream. The state's bytes stay as they are until {@link arrived} or {@link wait}. */
  put(state: StateCells, run: CellRun, stream: number): void;
  /** Begins to copy rows of a stream into a state; they are there after {@link wait}. */
  get(state: StateCells, run: CellRun, stream: number): void;
  /** Begins to copy the first rows of a stream into another. */
  move(from: number, to: number, cells: number): void;
  /** All that was begun until now has been copied. @throws Error (rejects) when a device failed */
  arrived(): Promise<void>;
  /** Waits for that. @throws Error */
  wait(): void;
  /** Says what memory of the pool states will lie in, so that it is ready when they do. */
  prepare(extents: Iterable<Uint8Array>): void;
  /** Nothing is to be done, and something is again. */
  rest(): void;
  wake(): void;
  /** The pool's memory will be unmapped: resolves when nothing is under way there, and nothing kept of it. */
  letGo(): Promise<void>;
}

/** A tensor, and what a cell has in it. */
interface Part extends KvTensor {
  readonly row: number;
}

/** The tensors of a layout: keys of all layers, then values, as in a state. */
export class StreamTensors {
  readonly parts: readonly Part[];
  /** Cells of each stream. */
  readonly cells: number;

  private constructor(parts: readonly Part[], cells: number) {
    this.parts = parts;
    this.cells = cells;
  }

  /** @returns undefined when the tensors are not what the layout says */
  static of({ keys, values }: KvTensors, layout: PayloadLayout, streams: number): StreamTensors | undefined {
    const tensors = [...keys, ...values];
    const rows = [...layout.keys, ...layout.values];
    if (tensors.length !== rows.length) return undefined;
    const parts = tensors.map((tensor, i) => ({ ...tensor, row: rows[i]!.bytes })); // as many
    const cells = parts.length === 0 ? 0 : parts[0]!.bytes / parts[0]!.row / streams;
    const isKnown = Number.isInteger(cells) && parts.every(({ bytes, row }) => bytes === cells * row * streams);
    return isKnown ? new StreamTensors(parts, cells) : undefined;
  }

  /** Where a cell's row begins, in bytes from the tensor's start. */
  offset({ row }: Part, stream: number, cell: number): number {
    assert(cell <= this.cells, "a stream has the cells that its context was made with");
    return (stream * this.cells + cell) * row;
  }
}

/** Through ggml, which knows where its tensors are. */
export class TensorRows implements KvRows {
  readonly by = "ggml";
  readonly #functions: KvTensorFunctions;
  readonly #tensors: StreamTensors;

  constructor(functions: KvTensorFunctions, tensors: StreamTensors) {
    this.#functions = functions;
    this.#tensors = tensors;
  }

  put(state: StateCells, run: CellRun, stream: number): void {
    this.#copy(this.#functions.write, state.address, { state, run, stream });
  }

  get(state: StateCells, run: CellRun, stream: number): void {
    this.#copy(this.#functions.read, state.address, { state, run, stream });
  }

  move(from: number, to: number, cells: number): void {
    for (const part of this.#tensors.parts) {
      const bytes = new Uint8Array(cells * part.row);
      this.#functions.read(part.pointer, addressOf(bytes), this.#tensors.offset(part, from, 0), bytes.length);
      this.#functions.write(part.pointer, addressOf(bytes), this.#tensors.offset(part, to, 0), bytes.length);
    }
  }

  arrived(): Promise<void> {
    return Promise.resolve();
  }

  wait(): void {}

  prepare(): void {}

  rest(): void {}

  wake(): void {}

  letGo(): Promise<void> {
    return Promise.resolve();
  }

  #copy(
    copy: KvTensorFunctions["read"],
    at: Pointer,
    { state, run, stream }: { readonly state: StateCells; readonly run: CellRun; readonly stream: number },
  ): void {
    for (const [i, part] of this.#tensors.parts.entries()) {
      const here = state.rows[i]!.at + run.cell * part.row; // of the same layout
      copy(part.pointer, at + BigInt(here), this.#tensors.offset(part, stream, run.position), run.count * part.row);
    }
  }
}

/** Parts that lie at a constant distance on the device and have rows of one size: one copy moves what a stream has in all of them. */
interface Group {
  readonly first: number;
  readonly parts: number;
  readonly stride: number;
  readonly row: number;
}

/** Through NVIDIA's driver, from and to memory that it may read and write by itself. */
export class CudaRows implements KvRows {
  readonly by = "CUDA";
  readonly #memory: CudaMemory;
  readonly #tensors: StreamTensors;
  readonly #groups: readonly Group[];
  readonly #pinned: PinnedExtents;

  constructor(memory: CudaMemory, tensors: StreamTensors) {
    this.#memory = memory;
    this.#tensors = tensors;
    this.#groups = groupsOf(tensors.parts);
    this.#pinned = new PinnedExtents(memory);
  }

  put(state: StateCells, run: CellRun, stream: number): void {
    this.#eachGroup(state, { run, stream }, (here, there, count) => this.#memory.toDevice(here, there, count));
  }

  get(state: StateCells, run: CellRun, stream: number): void {
    this.#eachGroup(state, { run, stream }, (here, there, count) => this.#memory.toHost(there, here, count));
  }

  move(from: number, to: number, cells: number): void {
    for (const { first, parts, stride, row } of this.#groups) {
      const at = (stream: number) => ({ at: this.#addressOf(first, stream, 0), stride });
      this.#memory.within(at(from), at(to), { rows: parts, bytes: cells * row });
    }
  }

  async arrived(): Promise<void> {
    const mark = this.#memory.mark();
    while (!this.#memory.isPast(mark)) await new Promise((resolve) => setImmediate(resolve));
  }

  wait(): void {
    this.#memory.wait();
  }

  prepare(extents: Iterable<Uint8Array>): void {
    this.#pinned.prepare(extents);
  }

  rest(): void {
    this.#pinned.rest();
  }

  wake(): void {
    this.#pinned.wake();
  }

  async letGo(): Promise<void> {
    this.#memory.wait();
    await this.#pinned.letGo();
  }

  #eachGroup(
    state: StateCells,
    { run, stream }: { readonly run: CellRun; readonly stream: number },
    copy: (here: Rows, there: Rows, count: RowCount) => void,
  ): void {
    this.#pinned.use(state.memory.buffer);
    const base = state.address;
    for (const { first, parts, stride, row } of this.#groups) {
      const { at } = state.rows[first]!; // of the same layout
      const here = {
        at: base + BigInt(at + run.cell * row),
        stride: parts > 1 ? state.rows[first + 1]!.at - at : 0,
      };
      copy(here, { at: this.#addressOf(first, stream, run.position), stride }, { rows: parts, bytes: run.count * row });
    }
  }

  #addressOf(index: number, stream: number, cell: number): Pointer {
    const part = this.#tensors.parts[index]!; // groups name parts
    return part.address + BigInt(this.#tensors.offset(part, stream, cell));
  }
}

function groupsOf(parts: readonly Part[]): Group[] {
  const groups: { first: number; parts: number; stride: number; row: number }[] = [];
  for (const [i, part] of parts.entries()) {
    const group = groups.at(-1);
    const stride = i === 0 ? 0 : Number(part.address - parts[i - 1]!.address);
    const joins = group !== undefined && group.row === part.row && stride >= part.bytes && stride <= largestStride;
    if (joins && (group.parts === 1 || group.stride === stride))
      Object.assign(group, { parts: group.parts + 1, stride });
    else groups.push({ first: i, parts: 1, stride: 0, row: part.row });
  }
  return groups;
}
