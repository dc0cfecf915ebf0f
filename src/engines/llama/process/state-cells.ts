/**
 * A sequence's state with its places known (sequence-state.ts), so that cells can be copied from one state into another: a chunk's payload
 * out of the state of a whole sequence, and back into one.
 *
 * In a context of streams the state has a count of cells for each stream. Those of other sequences are 0.
 *
 *     u32 magic │ i32 sequence │ u32 streams │ 0 … 0 │ u32 cells │ cells, rows │ 0 … 0
 */
import { assert } from "../../../errors.ts";
import { addressOf, type Pointer } from "../../../ffi/posix.ts";
import { cellBytes, magic, payloadBytes, rowHeadBytes } from "./sequence-state.ts";
import type { PayloadLayout } from "./sequence-state.ts";

export interface StateShape {
  readonly layout: PayloadLayout;
  readonly cells: number;
  /** Of the context that the state is of; a payload has one. */
  readonly streams: number;
  /** Whose state it is. */
  readonly sequence: number;
}

/** Cells of a state whose positions follow each other. */
export interface CellRun {
  readonly cell: number;
  readonly position: number;
  readonly count: number;
}

/** Where a state lies. That of a long text has more bytes than a typed array may have. */
export interface StateMemory {
  readonly buffer: ArrayBufferLike;
  readonly byteOffset: number;
  readonly byteLength: number;
}

export class StateCells {
  readonly memory: StateMemory;
  readonly cells: number;
  /** The cells' positions. */
  readonly #meta: DataView;
  /** Where the first cell's row is, of each layer's keys and then of each layer's values. */
  readonly rows: readonly { readonly at: number; readonly bytes: number; readonly type: number }[];

  /** @param memory of as many bytes as {@link StateCells.bytesOf} says */
  private constructor(memory: StateMemory, shape: StateShape) {
    assert(memory.byteLength === StateCells.bytesOf(shape), "a state has the bytes of its shape");
    this.memory = memory;
    this.cells = shape.cells;
    this.#meta = new DataView(memory.buffer, memory.byteOffset + metaAt(shape), shape.cells * cellBytes);
    this.rows = rowsOf(shape);
  }

  static bytesOf({ layout, cells, streams }: StateShape): number {
    return payloadBytes(layout, cells) + 4 * (streams - 1);
  }

  /** A state that llama.cpp wrote, or a payload that passed `isPayload`. */
  static of(memory: StateMemory, shape: StateShape): StateCells {
    return new StateCells(memory, shape);
  }

  /** One to be filled: its cells hold the positions from `first` on, and their rows are whatever lay there. */
  static make(memory: StateMemory, shape: StateShape, first: number): StateCells {
    const state = new StateCells(memory, shape);
    writeState((at, length) => new DataView(memory.buffer, memory.byteOffset + at, length), shape, first);
    return state;
  }

  get address(): Pointer {
    return addressOf(this.memory.buffer) + BigInt(this.memory.byteOffset);
  }

  /** So many of its bytes, in place. */
  view(at: number, bytes: number): Uint8Array {
    return new Uint8Array(this.memory.buffer, this.memory.byteOffset + at, bytes);
  }

  /** The cell of a position, which most often is that far behind the first one; undefined: it holds none such. */
  cellOf(position: number): number | undefined {
    const usual = position - (this.cells === 0 ? 0 : this.#positionOf(0));
    if (usual >= 0 && usual < this.cells && this.#positionOf(usual) === position) return usual;
    for (let cell = 0; cell < this.cells; cell += 1) if (this.#positionOf(cell) === position) return cell;
    return undefined;
  }

  /** Copies what some cells of another state of the same layout have into those from `cell` on: of the parts `[first, end)`, or all. */
  copyRun(source: StateCells, run: CellRun, cell: number, [first, end] = [0, this.rows.length]): void {
    for (let part = first; part < end; part += 1) {
      const { at, bytes } = source.rows[part]!; // of the same layout
      const length = run.count * bytes;
      this.view(this.rows[part]!.at + cell * bytes, length).set(source.view(at + run.cell * bytes, length));
    }
  }

  /** Where positions `[from, to)` are, in runs; undefined when one of them is not there. */
  runs(from: number, to: number): CellRun[] | undefined {
    const runs: CellRun[] = [];
    for (let position = from; position < to;) {
      const cell = this.cellOf(position);
      if (cell === undefined) return undefined;
      const count = Math.min(this.#runFrom(cell, position), to - position);
      runs.push({ cell, position, count });
      position += count;
    }
    return runs;
  }

  /** Cells from this one on whose positions follow each other. */
  #runFrom(cell: number, position: number): number {
    let run = 1;
    while (cell + run < this.cells && this.#positionOf(cell + run) === position + run) run += 1;
    return run;
  }

  #positionOf(cell: number): number {
    return this.#meta.getInt32(cell * cellBytes, true);
  }
}

/** Writes all of a state but its rows, whose cells hold the positions from `first` on. @param viewAt gives a part of the state's bytes */
export function writeState(viewAt: (at: number, bytes: number) => DataView, shape: StateShape, first: number): void {
  const { cells, streams, sequence, layout } = shape;
  const rows = rowsOf(shape);
  const meta = metaAt(shape);
  const head = viewAt(0, meta + cells * cellBytes + 8);
  head.setUint32(0, magic, true);
  head.setInt32(4, sequence, true);
  head.setUint32(8, streams, true);
  for (let at = 12; at < meta - 4; at += 4) head.setUint32(at, 0, true);
  head.setUint32(meta - 4, cells, true);
  for (let cell = 0; cell < cells; cell += 1) {
    const at = meta + cell * cellBytes;
    head.setInt32(at, first + cell, true);
    head.setUint32(at + 4, 1, true);
    head.setInt32(at + 8, sequence, true);
  }
  const at = meta + cells * cellBytes;
  head.setUint32(at, 0, true); // values lie as keys do
  head.setUint32(at + 4, layout.keys.length, true);
  for (const row of rows) {
    const before = viewAt(row.at - rowHeadBytes, rowHeadBytes);
    before.setInt32(0, row.type, true);
    before.setBigUint64(4, BigInt(row.bytes), true);
  }
  const after = 4 * countsAfter(shape);
  const tail = viewAt(StateCells.bytesOf(shape) - after, after);
  for (let end = 0; end < after; end += 4) tail.setUint32(end, 0, true);
}

/** Where the first cell's position is. */
function metaAt(shape: StateShape): number {
  return 16 + 4 * countsBefore(shape);
}

function rowsOf(shape: StateShape): StateCells["rows"] {
  let at = metaAt(shape) + shape.cells * cellBytes + 8;
  return [...shape.layout.keys, ...shape.layout.values].map(({ type, bytes }) => {
    const first = at + rowHeadBytes;
    at = first + shape.cells * bytes;
    return { at: first, bytes, type };
  });
}

function countsBefore({ streams, sequence }: StateShape): number {
  return streams === 1 ? 0 : sequence;
}

function countsAfter(shape: StateShape): number {
  return shape.streams - 1 - countsBefore(shape);
}
