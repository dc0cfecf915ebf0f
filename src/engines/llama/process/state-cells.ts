/**
 * A sequence's state with its places known (sequence-state.ts), so that cells can be copied from one state into another: a chunk's payload
 * out of the state of a whole sequence, and back into one.
 *
 * In a context of streams the state has a count of cells for each stream. Those of other sequences are 0.
 *
 *     u32 magic │ i32 sequence │ u32 streams │ 0 … 0 │ u32 cells │ cells, rows │ 0 … 0
 */
import { assert } from "../../../errors.ts";
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

export class StateCells {
  readonly bytes: Uint8Array;
  readonly cells: number;
  readonly #shape: StateShape;
  readonly #view: DataView;
  /** Where the first cell's position is. */
  readonly #meta: number;
  /** Where the first cell's row is, of each layer's keys and then of each layer's values. */
  readonly #rows: readonly { readonly at: number; readonly bytes: number; readonly type: number }[];

  /** @param bytes as many as {@link StateCells.bytesOf} says */
  private constructor(bytes: Uint8Array, shape: StateShape) {
    assert(bytes.length === StateCells.bytesOf(shape), "a state has the bytes of its shape");
    this.bytes = bytes;
    this.cells = shape.cells;
    this.#shape = shape;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#meta = 16 + 4 * countsBefore(shape);
    let at = this.#meta + shape.cells * cellBytes + 8;
    this.#rows = [...shape.layout.keys, ...shape.layout.values].map(({ type, bytes: row }) => {
      const first = at + rowHeadBytes;
      at = first + shape.cells * row;
      return { at: first, bytes: row, type };
    });
  }

  static bytesOf({ layout, cells, streams }: StateShape): number {
    return payloadBytes(layout, cells) + 4 * (streams - 1);
  }

  /** A state that llama.cpp wrote, or a payload that passed `isPayload`. */
  static of(bytes: Uint8Array, shape: StateShape): StateCells {
    return new StateCells(bytes, shape);
  }

  /** One to be filled: its cells hold the positions from `first` on, and their rows are whatever lay there. */
  static make(bytes: Uint8Array, shape: StateShape, first: number): StateCells {
    const state = new StateCells(bytes, shape);
    state.#writeShape(first);
    return state;
  }

  /** The cell of a position, which most often is that far behind the first one; undefined: it holds none such. */
  cellOf(position: number): number | undefined {
    const usual = position - (this.cells === 0 ? 0 : this.#positionOf(0));
    if (usual >= 0 && usual < this.cells && this.#positionOf(usual) === position) return usual;
    for (let cell = 0; cell < this.cells; cell += 1) if (this.#positionOf(cell) === position) return cell;
    return undefined;
  }

  /**
   * Copies the rows of positions `[from, to)` from another state into those of this one.
   *
   * @returns false when one of them lacks a position; some rows may have been copied then
   */
  copyRows(source: StateCells, from: number, to: number): boolean {
    for (let position = from; position < to;) {
      const [here, there] = [this.cellOf(position), source.cellOf(position)];
      if (here === undefined || there === undefined) return false;
      const run = Math.min(this.#runFrom(here, position), source.#runFrom(there, position), to - position);
      for (const [i, { at, bytes }] of this.#rows.entries()) {
        const first = source.#rows[i]!.at + there * bytes; // of the same layout
        this.bytes.set(source.bytes.subarray(first, first + run * bytes), at + here * bytes);
      }
      position += run;
    }
    return true;
  }

  /** Cells from this one on whose positions follow each other. */
  #runFrom(cell: number, position: number): number {
    let run = 1;
    while (cell + run < this.cells && this.#positionOf(cell + run) === position + run) run += 1;
    return run;
  }

  #positionOf(cell: number): number {
    return this.#view.getInt32(this.#meta + cell * cellBytes, true);
  }

  #writeShape(first: number): void {
    const { cells, streams, sequence, layout } = this.#shape;
    const view = this.#view;
    view.setUint32(0, magic, true);
    view.setInt32(4, sequence, true);
    view.setUint32(8, streams, true);
    for (let at = 12; at < this.#meta - 4; at += 4) view.setUint32(at, 0, true);
    view.setUint32(this.#meta - 4, cells, true);
    for (let cell = 0; cell < cells; cell += 1) {
      const at = this.#meta + cell * cellBytes;
      view.setInt32(at, first + cell, true);
      view.setUint32(at + 4, 1, true);
      view.setInt32(at + 8, sequence, true);
    }
    const at = this.#meta + cells * cellBytes;
    view.setUint32(at, 0, true); // values lie as keys do
    view.setUint32(at + 4, layout.keys.length, true);
    for (const row of this.#rows) {
      view.setInt32(row.at - rowHeadBytes, row.type, true);
      view.setBigUint64(row.at - rowHeadBytes + 4, BigInt(row.bytes), true);
    }
    for (let end = this.bytes.length - 4 * countsAfter(this.#shape); end < this.bytes.length; end += 4)
      view.setUint32(end, 0, true);
  }
}

function countsBefore({ streams, sequence }: StateShape): number {
  return streams === 1 ? 0 : sequence;
}

function countsAfter(shape: StateShape): number {
  return shape.streams - 1 - countsBefore(shape);
}
