/**
 * Copies of KV between a context's sequences and payloads. llama.cpp moves whole sequences; how a part of one is moved depends on how cells
 * lie.
 *
 *     unified   all sequences have cells of one store: a range is given to a temporary sequence as well (no bytes move), and that one is
 *               written out and forgotten; into a sequence the other way round
 *     streams   every sequence has a store of its own: rows are read out of its tensors; into a sequence all that it is to hold is
 *               written at once, from memory where it was put together
 *     device    as streams, on a GPU: what is to be held is put together on the device, in a stream that serves no request
 *               (device-copies.ts)
 *
 * A unified store makes every token look at the cells of all sequences, if only to skip them.
 */
import { addressOf } from "../../../ffi/posix.ts";
import type { ContextPointer, LlamaFunctions, MemoryPointer } from "../../../ffi/llama.ts";
import type { KvRows } from "./kv-rows.ts";
import type { PayloadLayout } from "./sequence-state.ts";
import { StateCells } from "./state-cells.ts";
import type { StateShape } from "./state-cells.ts";

export interface KvCopies {
  /** Tokens to copy at a time, where others wait meanwhile. */
  readonly pieceTokens: number;
  /** What restoring takes besides its bytes, in ms. */
  readonly restoreMs: number;
  /** Writes the KV of `[from, to)` as a payload. @returns its bytes; 0 when they do not fit or are not there */
  save(sequence: number, from: number, to: number, into: Uint8Array): number;
  /**
   * Begins to add to a sequence that holds `[0, from)`, no more than up to `most`. Nothing else may be done to it until the restoring has
   * ended or was dropped.
   */
  restore(sequence: number, from: number, most: number): Promise<Restoring>;
  /** The context has run a batch. */
  decoded(): void;
  /** Says what memory payloads will lie in. */
  prepare(extents: Iterable<Uint8Array>): void;
  /** That memory will be unmapped: resolves when nothing is kept of it. */
  letGo(): Promise<void>;
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
  /** Payloads that were added are no longer needed. */
  arrived(): Promise<void>;
  /** @returns false when the sequence holds nothing now: it must be emptied */
  end(): boolean;
  /** Ends it without what was added, unless that was at once. */
  drop(): void;
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
  readonly restoreMs = 0;
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

  restore(sequence: number): Promise<Restoring> {
    const { functions, context, memory } = this.#tools;
    return Promise.resolve({
      isAtOnce: true,
      add: (payload: Uint8Array, { from, to }: PayloadPlace) => {
        const read = functions.writeState(context, addressOf(payload), payload.length, this.#passing, 0);
        if (read > 0) functions.copyTokens(memory, this.#passing, sequence, from, to);
        this.#clear();
        return read > 0 ? ("restored" as const) : ("no room" as const);
      },
      arrived: () => Promise.resolve(),
      end: () => true,
      drop: () => {},
    });
  }

  decoded(): void {}

  prepare(): void {}

  letGo(): Promise<void> {
    return Promise.resolve();
  }

  rest(): void {}

  #clear(): void {
    this.#tools.functions.removeTokens(this.#tools.memory, this.#passing, -1, -1);
  }
}

/**
 * Writes what a stream holds of `[from, to)` as a payload.
 *
 * @returns its bytes; 0 when they do not fit or are not there
 */
export function saveRows(
  { functions, context, memory }: CopyTools,
  { layout, rows, into }: { readonly layout: PayloadLayout; readonly rows: KvRows; readonly into: Uint8Array },
  { sequence, from, to }: { readonly sequence: number; readonly from: number; readonly to: number },
): number {
  const shape = { layout, cells: to - from, streams: 1, sequence: 0 }; // whoever it was computed in
  const bytes = StateCells.bytesOf(shape);
  if (bytes > into.length || functions.lastPosition(memory, sequence) + 1 < to) return 0;
  functions.synchronize(context);
  const payload = StateCells.make(into.subarray(0, bytes), shape, from);
  rows.get(payload, { cell: 0, position: from, count: to - from }, sequence);
  rows.wait();
  return bytes;
}

/** What {@link StreamCopies} keeps for the next copy, although nothing is to be done. */
const keptBytes = 64 * 2 ** 20;

export class StreamCopies implements KvCopies {
  readonly pieceTokens = Infinity;
  readonly restoreMs = 0;
  readonly #tools: CopyTools;
  readonly #layout: PayloadLayout;
  readonly #rows: KvRows;
  /** Memory that texts are put together in. Fresh memory costs as much as the copy itself. */
  #room = new ArrayBuffer(0);

  constructor(tools: CopyTools, layout: PayloadLayout, rows: KvRows) {
    this.#tools = tools;
    this.#layout = layout;
    this.#rows = rows;
  }

  save(sequence: number, from: number, to: number, into: Uint8Array): number {
    return saveRows(this.#tools, { layout: this.#layout, rows: this.#rows, into }, { sequence, from, to });
  }

  restore(sequence: number, from: number, most: number): Promise<Restoring> {
    const room = this.#takeRoom(most);
    const state = this.#stateIn(room, sequence, most);
    let end = from;
    const giveBack = () => {
      if (room.byteLength > this.#room.byteLength) this.#room = room;
    };
    return Promise.resolve({
      isAtOnce: false,
      add: (payload: Uint8Array, at: PayloadPlace) => {
        const shape = { layout: this.#layout, cells: at.tokenCount, streams: 1, sequence };
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
    });
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
    const { functions, context } = this.#tools;
    let state = added;
    if (end < added.cells) {
      state = this.#stateIn(new ArrayBuffer(StateCells.bytesOf(this.#shapeOf(sequence, end))), sequence, end);
      if (!state.copyRows(added, from, end)) return false;
    }
    if (from > 0) this.#rows.get(state, { cell: 0, position: 0, count: from }, sequence);
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
    return { layout: this.#layout, cells, streams: this.#tools.sequences, sequence };
  }
}
