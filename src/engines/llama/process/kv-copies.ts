/**
 * Copies of KV between a context's sequences and payloads. llama.cpp moves whole sequences; how a part of one is moved depends on how cells
 * lie.
 *
 *     unified   all sequences have cells of one store: a range is given to a temporary sequence as well (no bytes move), and that one is
 *               written out and forgotten; into a sequence the other way round
 *     streams   every sequence has a store of its own: rows are read out of its tensors, and put into them (restored-in-place.ts). Where a
 *               text before has not left cells enough, llama.cpp reads a state of as many first (stream-copies.ts)
 *     device    as streams, on a GPU: what is to be held is put together on the device, in a stream that serves no request
 *               (device-copies.ts)
 *
 * A unified store makes every token look at the cells of all sequences, if only to skip them.
 */
import type { ContextPointer, LlamaFunctions, MemoryPointer } from "../../../ffi/llama.ts";
import type { KvRows } from "./kv-rows.ts";
import type { PayloadLayout } from "./sequence-state.ts";
import { StateCells } from "./state-cells.ts";
import type { StreamCells } from "./stream-cells.ts";

export interface KvCopies {
  /** Tokens to copy at a time, where others wait meanwhile. */
  readonly pieceTokens: number;
  /** What restoring a text of that many tokens takes besides its bytes, in ms. */
  restoreMs(sequence: number, tokens: number): number;
  /** Tokens whose KV is moved when `[from, to)` is added to a sequence. */
  movedTokens(sequence: number, from: number, to: number): number;
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
  /** Ends it without what was added, unless that was at once. @returns false when the sequence holds nothing now: it must be emptied */
  drop(): boolean;
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

/** The same, where each sequence has a stream of its own. */
export interface StreamTools extends CopyTools {
  readonly layout: PayloadLayout;
  readonly rows: KvRows;
  readonly cells: StreamCells;
}

/**
 * Writes what a stream holds of `[from, to)` as a payload.
 *
 * @returns its bytes; 0 when they do not fit or are not there
 */
export function saveRows(
  { functions, context, layout, rows, cells }: StreamTools,
  { sequence, from, to }: { readonly sequence: number; readonly from: number; readonly to: number },
  into: Uint8Array,
): number {
  const shape = { layout, cells: to - from, streams: 1, sequence: 0 }; // whoever it was computed in
  const bytes = StateCells.bytesOf(shape);
  if (bytes > into.length || cells.held(sequence) < to) return 0;
  functions.synchronize(context);
  const payload = StateCells.make(into.subarray(0, bytes), shape, from);
  rows.get(payload, { cell: 0, position: from, count: to - from }, sequence);
  rows.wait();
  return bytes;
}
