/**
 * Copies of KV between a context's sequences and payloads. llama.cpp moves whole sequences; how a part of one is moved depends on how cells
 * lie.
 *
 *     unified   all sequences have cells of one store: a range is given to a temporary sequence as well (no bytes move), and that one is
 *               written out and forgotten; into a sequence the other way round
 *     streams   every sequence has a store of its own: all of it is written to memory, where rows are copied; into a sequence all that it
 *               is to hold is written at once
 *
 * A unified store makes every token look at the cells of all sequences, if only to skip them.
 */
import { addressOf } from "../../../ffi/posix.ts";
import type { ContextPointer, LlamaFunctions, MemoryPointer } from "../../../ffi/llama.ts";
import type { PayloadLayout } from "./sequence-state.ts";
import { StateCells } from "./state-cells.ts";
import type { StateShape } from "./state-cells.ts";

export interface KvCopies {
  /** Tokens to copy at a time: a larger piece would hold up others, or a smaller one costs as much as all. */
  readonly pieceTokens: number;
  /** Writes the KV of `[from, to)` as a payload. @returns its bytes; 0 when they do not fit or are not there */
  save(sequence: number, from: number, to: number, into: Uint8Array): number;
  /** Begins to add to a sequence that holds `[0, from)`, no more than up to `most`. Nothing else may be done to it meanwhile. */
  restore(sequence: number, from: number, most: number): Restoring;
  /** The sequence no longer holds positions from `from` on, or holds others there. */
  forgot(sequence: number, from: number): void;
  /** Gives back memory that was kept for the next copy. */
  rest(): void;
}

/** KV on its way into a sequence. */
export interface Restoring {
  /** The sequence holds as much after each {@link add}, and not only at the {@link end}. */
  readonly isAtOnce: boolean;
  /**
   * Adds the positions `[from, to)` of a payload that has passed `isPayload`. Each begins where the one before ended.
   *
   * @returns `"no room"` when the cells do not suffice; nothing has changed then
   */
  add(payload: Uint8Array, at: PayloadPlace): "restored" | "no room";
  /** @returns false when the sequence holds nothing now: it must be emptied */
  end(): boolean;
}

export interface PayloadPlace {
  readonly from: number;
  readonly to: number;
  /** Tokens of the payload. */
  readonly tokenCount: number;
}

/** What copies are made with. */
export interface CopyTools {
  readonly functions: LlamaFunctions;
  readonly context: ContextPointer;
  readonly memory: MemoryPointer;
  /** That serve requests. */
  readonly sequences: number;
}

export class UnifiedCopies implements KvCopies {
  readonly pieceTokens = 64;
  readonly #tools: CopyTools;
  /** The temporary sequence. */
  readonly #passing: number;

  constructor(tools: CopyTools) {
    this.#tools = tools;
    this.#passing = tools.sequences;
  }

  save(sequence: number, from: number, to: number, into: Uint8Array): number {
    const { functions, context, memory } = this.#tools;
    functions.copyTokens(memory, sequence, this.#passing, from, to);
    const bytes = functions.readState(context, addressOf(into), into.length, this.#passing, 0);
    this.#clear();
    return bytes;
  }

  restore(sequence: number): Restoring {
    const { functions, context, memory } = this.#tools;
    return {
      isAtOnce: true,
      add: (payload, { from, to }) => {
        const read = functions.writeState(context, addressOf(payload), payload.length, this.#passing, 0);
        if (read > 0) functions.copyTokens(memory, this.#passing, sequence, from, to);
        this.#clear();
        return read > 0 ? "restored" : "no room";
      },
      end: () => true,
    };
  }

  forgot(): void {}

  rest(): void {}

  #clear(): void {
    this.#tools.functions.removeTokens(this.#tools.memory, this.#passing, -1, -1);
  }
}

/** What {@link StreamCopies} keeps for the next copy, although nothing is to be done. */
const keptBytes = 64 * 2 ** 20;

export class StreamCopies implements KvCopies {
  readonly pieceTokens = Infinity;
  readonly #tools: CopyTools;
  readonly #layout: PayloadLayout;
  /** A sequence as it was written out last, and how many of its positions are still what it holds. */
  #written: { readonly sequence: number; readonly state: StateCells; valid: number } | undefined;
  /** Memory for that, and for what is written into sequences. Fresh memory costs as much as the copy itself. */
  #roomForOut = new ArrayBuffer(0);
  #roomForIn = new ArrayBuffer(0);

  constructor(tools: CopyTools, layout: PayloadLayout) {
    this.#tools = tools;
    this.#layout = layout;
  }

  save(sequence: number, from: number, to: number, into: Uint8Array): number {
    const source = this.#writtenOut(sequence, to);
    const shape = { layout: this.#layout, cells: to - from, streams: 1, sequence: 0 }; // whoever it was computed in
    const bytes = StateCells.bytesOf(shape);
    if (source === undefined || bytes > into.length) return 0;
    const payload = StateCells.make(into.subarray(0, bytes), shape, from);
    return payload.copyRows(source, from, to) ? bytes : 0;
  }

  restore(sequence: number, from: number, most: number): Restoring {
    const room = this.#roomIn(most);
    const state = this.#stateFor(room, sequence, most);
    let end = from;
    return {
      isAtOnce: false,
      add: (payload, at) => {
        const shape = { layout: this.#layout, cells: at.tokenCount, streams: 1, sequence };
        const isNext = at.from === end && at.to <= most;
        if (!isNext || !state.copyRows(StateCells.of(payload, shape), at.from, at.to)) return "no room";
        end = at.to;
        return "restored";
      },
      end: () => {
        const isWritten = end === from || this.#writeIn(state, { sequence, from, end });
        if (room.byteLength > this.#roomForIn.byteLength) this.#roomForIn = room;
        return isWritten;
      },
    };
  }

  forgot(sequence: number, from: number): void {
    if (this.#written?.sequence === sequence) this.#written.valid = Math.min(this.#written.valid, from);
  }

  rest(): void {
    if (this.#roomForOut.byteLength + this.#roomForIn.byteLength <= keptBytes) return;
    this.#written = undefined;
    this.#roomForOut = this.#roomForIn = new ArrayBuffer(0);
  }

  /** The whole sequence, in memory; undefined when it does not hold so many positions. */
  #writtenOut(sequence: number, positions: number): StateCells | undefined {
    const { functions, context, memory } = this.#tools;
    const known = this.#written;
    if (known?.sequence === sequence && known.valid >= positions) return known.state;
    const cells = functions.lastPosition(memory, sequence) + 1;
    if (cells < positions) return undefined;
    this.#written = undefined;
    const shape = this.#shapeOf(sequence, cells);
    const bytes = StateCells.bytesOf(shape);
    if (this.#roomForOut.byteLength < bytes) this.#roomForOut = new ArrayBuffer(bytes);
    const room = new Uint8Array(this.#roomForOut, 0, bytes);
    if (functions.readState(context, addressOf(room), bytes, sequence, 0) !== bytes) return undefined;
    this.#written = { sequence, state: StateCells.of(room, shape), valid: cells };
    return this.#written.state;
  }

  /** Replaces what the sequence holds, `[0, from)`, by that and what was added behind it. */
  #writeIn(added: StateCells, { sequence, from, end }: { sequence: number; from: number; end: number }): boolean {
    const { functions, context } = this.#tools;
    const held = from === 0 ? undefined : this.#writtenOut(sequence, from);
    if (from > 0 && (held === undefined || !added.copyRows(held, 0, from))) return false;
    let state = added;
    if (end < added.cells) {
      state = this.#stateFor(new ArrayBuffer(StateCells.bytesOf(this.#shapeOf(sequence, end))), sequence, end);
      if (!state.copyRows(added, 0, end)) return false;
    }
    this.forgot(sequence, from);
    return functions.writeState(context, addressOf(state.bytes), state.bytes.length, sequence, 0) > 0;
  }

  #stateFor(room: ArrayBuffer, sequence: number, cells: number): StateCells {
    const shape = this.#shapeOf(sequence, cells);
    return StateCells.make(new Uint8Array(room, 0, StateCells.bytesOf(shape)), shape, 0);
  }

  /** The memory that is kept, or new one: two may be under way. */
  #roomIn(cells: number): ArrayBuffer {
    const bytes = StateCells.bytesOf(this.#shapeOf(0, cells));
    if (this.#roomForIn.byteLength < bytes) return new ArrayBuffer(bytes);
    const room = this.#roomForIn;
    this.#roomForIn = new ArrayBuffer(0);
    return room;
  }

  #shapeOf(sequence: number, cells: number): StateShape {
    return { layout: this.#layout, cells, streams: this.#tools.sequences, sequence };
  }
}
