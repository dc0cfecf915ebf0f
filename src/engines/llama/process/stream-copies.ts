/** Copies of KV where each sequence has a stream of cells in memory (kv-copies.ts). */
import { saveRows } from "./kv-copies.ts";
import type { KvCopies, Restoring, StreamTools } from "./kv-copies.ts";
import { makeCells } from "./make-cells.ts";
import { restoreInPlace } from "./restored-in-place.ts";
import { StateCells } from "./state-cells.ts";

export class StreamCopies implements KvCopies {
  readonly pieceTokens = Infinity;
  readonly #tools: StreamTools;

  constructor(tools: StreamTools) {
    this.#tools = tools;
  }

  restoreMs(): number {
    return 0;
  }

  movedTokens(sequence: number, from: number, to: number): number {
    const added = to - from;
    return this.#tools.cells.there(sequence) >= to ? added : added + to;
  }

  save(sequence: number, from: number, to: number, into: Uint8Array): number {
    return saveRows(this.#tools, { sequence, from, to }, into);
  }

  restore(sequence: number, from: number, most: number): Promise<Restoring> {
    const isThere = this.#tools.cells.there(sequence) >= most || this.#makeCells(sequence, from, most);
    return Promise.resolve(isThere ? restoreInPlace(this.#tools, { sequence, from, most }) : nothingRestored);
  }

  decoded(): void {}

  prepare(): void {}

  letGo(): Promise<void> {
    return Promise.resolve();
  }

  rest(): void {}

  /** Lets a sequence that holds `[0, from)` have cells up to `most`. @returns false when it could not: the sequence holds nothing then */
  #makeCells(sequence: number, from: number, most: number): boolean {
    const { layout, rows, cells, sequences } = this.#tools;
    const shape = { layout, cells: from, streams: 1, sequence };
    const byteLength = StateCells.bytesOf(shape);
    const held = StateCells.make({ buffer: new ArrayBuffer(byteLength), byteOffset: 0, byteLength }, shape, 0);
    const run = { cell: 0, position: 0, count: from };
    if (from > 0) rows.get(held, run, sequence);
    const isMade = makeCells(this.#tools, { layout, cells: most, streams: sequences, sequence });
    if (isMade && from > 0) rows.put(held, run, sequence);
    cells.filled(sequence, isMade ? from : 0);
    return isMade;
  }
}

/** llama.cpp made no cells: what was held is gone, and nothing can be added. */
const nothingRestored: Restoring = {
  isAtOnce: false,
  add: () => "no room",
  arrived: () => Promise.resolve(),
  end: () => false,
  drop: () => false,
};
