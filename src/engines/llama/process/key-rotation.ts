/**
 * Moving KV that is stored to other positions: keys are rotated by the difference, values are copied.
 *
 * Always from what was stored. Rotated twice, keys would be rounded twice.
 *
 *     payload of positions [from, to) ──keys by (first − from), values as they are──► payload of positions from `first` on
 *
 * What comes out is a payload like any other, so that it can be restored chunk by chunk while the rest is still being loaded.
 */
import { assert } from "../../../errors.ts";
import type { RotateRows } from "../../../ffi/ggml-rope.ts";
import type { KeyMove } from "./movable.ts";
import { payloadBytes } from "./sequence-state.ts";
import type { PayloadLayout } from "./sequence-state.ts";
import { type CellRun, StateCells } from "./state-cells.ts";

export interface KeyRotationOptions {
  readonly layout: PayloadLayout;
  /** Of each layer. */
  readonly by: readonly KeyMove[];
  readonly rotateRows: RotateRows;
}

/** Where cells of a state go. */
export interface MovedRun {
  readonly source: StateCells;
  readonly run: CellRun;
  readonly target: StateCells;
  /** The first of theirs. */
  readonly cell: number;
}

/** A part of a payload and where its first token shall stand. */
export interface PayloadMove {
  readonly from: number;
  readonly to: number;
  /** Tokens of the payload. */
  readonly tokenCount: number;
  readonly first: number;
}

export class KeyRotation {
  readonly #options: KeyRotationOptions;

  constructor(options: KeyRotationOptions) {
    assert(options.by.length === options.layout.keys.length, "every layer's keys are moved");
    this.#options = options;
  }

  /** Bytes of what {@link move} makes of so many tokens. */
  bytesOf(tokens: number): number {
    return payloadBytes(this.#options.layout, tokens);
  }

  /**
   * Makes a payload of the tokens `[from, to)` of one that has passed `isPayload`, as they would stand from position `first` on.
   *
   * @param into {@link bytesOf} of them, none of it the payload's own
   * @returns false when the payload lacks one of these positions; what is in `into` is no payload then
   * @throws Error when ggml fails
   */
  move(payload: Uint8Array, { from, to, tokenCount, first }: PayloadMove, into: Uint8Array, threads: number): boolean {
    const { layout } = this.#options;
    const source = StateCells.of(payload, { layout, cells: tokenCount, streams: 1, sequence: 0 });
    const runs = source.runs(from, to);
    if (runs === undefined) return false;
    const target = StateCells.make(into, { layout, cells: to - from, streams: 1, sequence: 0 }, first);
    for (const run of runs) {
      const moved = { source, run, target, cell: run.position - from };
      this.rotateKeys(moved, first - from, threads);
      target.copyRun(source, run, moved.cell, [layout.keys.length, source.rows.length]);
    }
    return true;
  }

  /** Writes the keys of some cells, rotated by so many positions, into those of another state of the same layout. @throws Error */
  rotateKeys(moved: MovedRun, positions: number, threads: number): void {
    const { by, rotateRows, layout } = this.#options;
    const { source, run, target, cell } = moved;
    if (positions === 0) {
      target.copyRun(source, run, cell, [0, layout.keys.length]);
      return;
    }
    const [sourceAt, targetAt] = [source.address, target.address];
    const rows = by.flatMap((move, layer) => {
      const { at, bytes, type } = source.rows[layer]!; // keys come first
      if (move === undefined) {
        target.copyRun(source, run, cell, [layer, layer + 1]);
        return [];
      }
      const { headSize, heads, rope } = move;
      const from = sourceAt + BigInt(at + run.cell * bytes);
      const to = targetAt + BigInt(target.rows[layer]!.at + cell * bytes);
      return { rope, type, headSize, heads: heads * run.count, from, to };
    });
    rotateRows(rows, positions, threads);
  }
}
