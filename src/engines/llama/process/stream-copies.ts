/** Copies of KV where each sequence has a stream of cells in memory (kv-copies.ts). */
import { saveRows } from "./kv-copies.ts";
import type { KvCopies, PayloadPlace, Restoring, StreamTools } from "./kv-copies.ts";
import { restoreInPlace } from "./restored-in-place.ts";
import { StateCells } from "./state-cells.ts";
import type { StateShape } from "./state-cells.ts";

/** What {@link StreamCopies} keeps for the next copy, although nothing is to be done. */
const keptBytes = 64 * 2 ** 20;

export class StreamCopies implements KvCopies {
  readonly pieceTokens = Infinity;
  readonly #tools: StreamTools;
  /** Memory that texts are put together in. Fresh memory costs as much as the copy itself. */
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
    const isThere = this.#tools.cells.there(sequence) >= most;
    return Promise.resolve(
      isThere ? restoreInPlace(this.#tools, { sequence, from, most }) : this.#restoreWhole(sequence, from, most),
    );
  }

  /** Puts all that the sequence is to hold together in memory, and lets llama.cpp read that. */
  #restoreWhole(sequence: number, from: number, most: number): Restoring {
    const { layout } = this.#tools;
    const room = this.#takeRoom(most);
    const state = this.#stateIn(room, sequence, most);
    let end = from;
    const giveBack = () => {
      if (room.byteLength > this.#room.byteLength) this.#room = room;
    };
    return {
      isAtOnce: false,
      add: (payload: Uint8Array, at: PayloadPlace) => {
        const shape = { layout, cells: at.tokenCount, streams: 1, sequence };
        const isNext = at.from === end && at.to <= most;
        if (!isNext || !state.copyRows(StateCells.of(payload, shape), at.from, at.to)) return "no room" as const;
        end = at.to;
        return "restored" as const;
      },
      arrived: () => Promise.resolve(),
      end: () => {
        const isWritten = end === from || this.#writeIn(state, { sequence, from, end });
        giveBack();
        return isWritten;
      },
      drop: giveBack,
    };
  }

  decoded(): void {}

  prepare(): void {}

  letGo(): Promise<void> {
    return Promise.resolve();
  }

  rest(): void {
    if (this.#room.byteLength > keptBytes) this.#room = new ArrayBuffer(0);
  }

  /** Replaces what the sequence holds, `[0, from)`, by that and what was added behind it. */
  #writeIn(added: StateCells, { sequence, from, end }: { sequence: number; from: number; end: number }): boolean {
    const { functions, context, rows, cells } = this.#tools;
    let state = added;
    if (end < added.cells) {
      state = this.#stateIn(new ArrayBuffer(StateCells.bytesOf(this.#shapeOf(sequence, end))), sequence, end);
      if (!state.copyRows(added, from, end)) return false;
    }
    if (from > 0) rows.get(state, { cell: 0, position: 0, count: from }, sequence);
    cells.replaced(sequence);
    return functions.writeState(context, state.address, state.memory.byteLength, sequence, 0) > 0;
  }

  #stateIn(room: ArrayBuffer, sequence: number, cells: number): StateCells {
    const shape = this.#shapeOf(sequence, cells);
    const memory = { buffer: room, byteOffset: 0, byteLength: StateCells.bytesOf(shape) };
    return StateCells.make(memory, shape, 0);
  }

  /** The memory that is kept, or new one: two may be under way. */
  #takeRoom(cells: number): ArrayBuffer {
    const bytes = StateCells.bytesOf(this.#shapeOf(0, cells));
    if (this.#room.byteLength < bytes) return new ArrayBuffer(bytes);
    const room = this.#room;
    this.#room = new ArrayBuffer(0);
    return room;
  }

  #shapeOf(sequence: number, cells: number): StateShape {
    const { layout, sequences } = this.#tools;
    return { layout, cells, streams: sequences, sequence };
  }
}
