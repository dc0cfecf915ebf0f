/** Copies of KV where each sequence has a stream of cells in memory (kv-copies.ts). */
import { saveRows } from "./kv-copies.ts";
import type { KvCopies, Restoring, StreamTools } from "./kv-copies.ts";
import { restoreInPlace } from "./restored-in-place.ts";
import { StateCells } from "./state-cells.ts";

/** What {@link StreamCopies} keeps for the next copy, although nothing is to be done. */
const keptBytes = 64 * 2 ** 20;

export class StreamCopies implements KvCopies {
  readonly pieceTokens = Infinity;
  readonly #tools: StreamTools;
  /** What llama.cpp reads where it makes cells. Fresh memory costs more than that itself. */
  #room = new ArrayBuffer(0);

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

  rest(): void {
    if (this.#room.byteLength > keptBytes) this.#room = new ArrayBuffer(0);
  }

  /**
   * Lets a sequence that holds `[0, from)` have cells up to `most`: llama.cpp makes them by reading a state, of which only what is held
   * matters. @returns false when it could not: the sequence holds nothing then
   */
  #makeCells(sequence: number, from: number, most: number): boolean {
    const { functions, context, layout, rows, cells, sequences } = this.#tools;
    const shape = { layout, cells: most, streams: sequences, sequence };
    const byteLength = StateCells.bytesOf(shape);
    if (this.#room.byteLength < byteLength) this.#room = new ArrayBuffer(byteLength);
    const state = StateCells.make({ buffer: this.#room, byteOffset: 0, byteLength }, shape, 0);
    if (from > 0) rows.get(state, { cell: 0, position: 0, count: from }, sequence);
    cells.replaced(sequence);
    const isMade = functions.writeState(context, state.address, byteLength, sequence, 0) > 0;
    cells.cut(sequence, isMade ? from : 0);
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
