/**
 * Copies of KV where each sequence has a stream of cells on a GPU.
 *
 * llama.cpp puts a whole sequence into a stream, or a copy of another stream; it has no call that adds a range. So there is one stream
 * more, the *assembly*, which serves no request and says of each of its cells that it is taken. What is loaded goes into its tensors,
 * chunk by chunk, from where it lies in the pool; then the sequence becomes a copy of it, cut off where the text ends. That copy stays on
 * the device, and llama.cpp makes it when it runs its next batch. Where a text before has left cells enough, none of that is needed
 * (restored-in-place.ts).
 *
 *     pool ──chunk by chunk──► assembly ──llama_memory_seq_cp──► sequence            sequence ──range──► pool
 */
import { assert } from "../../../errors.ts";
import { saveRows } from "./kv-copies.ts";
import type { KvCopies, PayloadPlace, Restoring, StreamTools } from "./kv-copies.ts";
import { restoreInPlace } from "./restored-in-place.ts";
import { makeCells } from "./make-cells.ts";
import { StateCells } from "./state-cells.ts";

export interface DeviceTools extends StreamTools {
  /** Cells of the assembly that are taken: the longest text that is restored. One more is free. */
  readonly assemblyTokens: number;
  /** Runs a batch of one token of a sequence, at a position that it does not hold. */
  readonly runOne: (sequence: number, position: number) => void;
}

/** A copy of a stream, and llama.cpp's new graph after it, in ms (measured: H200, streams of 4.5 GB). */
const streamCopyMs = 10;

export class DeviceCopies implements KvCopies {
  readonly pieceTokens = Infinity;
  readonly #tools: DeviceTools;
  readonly #assembly: number;
  /** Who restores; the next one waits. */
  #turn: Promise<void> = Promise.resolve();
  /** A stream is to become a copy of another, and will with the next batch. */
  #isCopyDue = false;
  /** That were run. */
  #batches = 0;

  private constructor(tools: DeviceTools) {
    this.#tools = tools;
    this.#assembly = tools.sequences;
  }

  /** @returns undefined when the assembly cannot be made */
  static make(tools: DeviceTools): DeviceCopies | undefined {
    const { layout, sequences, assemblyTokens: cells } = tools;
    const isMade = makeCells(tools, { layout, cells, streams: sequences + 1, sequence: sequences });
    return isMade ? new DeviceCopies(tools) : undefined;
  }

  restoreMs(sequence: number, tokens: number): number {
    return this.#isThere(sequence, tokens) ? 0 : streamCopyMs;
  }

  movedTokens(_sequence: number, from: number, to: number): number {
    return to - from;
  }

  save(sequence: number, from: number, to: number, into: Uint8Array): number {
    if (!this.#makeCopies()) return 0;
    return saveRows(this.#tools, { sequence, from, to }, into);
  }

  restore(sequence: number, from: number, most: number): Promise<Restoring> {
    if (!this.#isThere(sequence, most) || !this.#makeCopies()) return this.#assemble(sequence, from, most);
    return Promise.resolve(restoreInPlace(this.#tools, { sequence, from, most }));
  }

  #isThere(sequence: number, tokens: number): boolean {
    return this.#tools.cells.there(sequence) >= tokens;
  }

  async #assemble(sequence: number, from: number, most: number): Promise<Restoring> {
    const before = this.#turn;
    let leave = (): void => {};
    this.#turn = new Promise((resolve) => (leave = resolve));
    await before;
    const { rows, layout, functions, context } = this.#tools;
    // What the sequence holds may be saved or shared meanwhile: it is not replaced by what has not yet arrived.
    let isMoved = from === 0;
    try {
      if (!this.#makeCopies()) throw new Error("llama.cpp made no copies that are due");
      functions.synchronize(context);
      if (from > 0) {
        rows.move(sequence, this.#assembly, from);
        rows.arrived().then(
          () => (isMoved = true),
          () => {}, // who waits for the rest hears of it
        );
      }
    } catch (error) {
      leave(); // to whoever waits
      throw error;
    }
    let end = from;
    /** The batch before the one that makes an early copy. */
    let early: number | undefined;
    return {
      isAtOnce: false,
      add: (payload: Uint8Array, at: PayloadPlace) => {
        assert(at.from === end, "what is added begins where the one before ended");
        const state = StateCells.of(payload, { layout, cells: at.tokenCount, streams: 1, sequence: 0 });
        const runs = at.to <= Math.min(most, this.#tools.assemblyTokens) ? state.runs(at.from, at.to) : undefined;
        if (runs === undefined) return "no room";
        for (const run of runs) rows.put(state, run, this.#assembly);
        end = at.to;
        return "restored";
      },
      arrived: () => {
        const arrived = rows.arrived();
        if (early === undefined && end === most && isMoved) {
          // llama.cpp's books of a long text take it some milliseconds, in which the device copies what was begun.
          this.#copy(this.#assembly, sequence, most);
          early = this.#batches;
        }
        return arrived;
      },
      end: () => {
        try {
          rows.wait();
          if (end > from && early !== this.#batches) this.#copy(this.#assembly, sequence, end);
          return true;
        } finally {
          leave();
        }
      },
      drop: () => {
        try {
          rows.wait();
          if (early !== undefined) this.#copy(this.#assembly, sequence, from);
          return true;
        } finally {
          leave();
        }
      },
    };
  }

  /** Lets a sequence begin with what another one holds. */
  share(source: number, target: number, count: number): void {
    this.#copy(source, target, count);
  }

  decoded(): void {
    this.#isCopyDue = false;
    this.#batches += 1;
    this.#tools.rows.wake();
  }

  prepare(extents: Iterable<Uint8Array>): void {
    this.#tools.rows.prepare(extents);
  }

  letGo(): Promise<void> {
    return this.#tools.rows.letGo();
  }

  rest(): void {
    this.#tools.rows.rest();
  }

  /** Lets the target be the first `count` tokens of the source. */
  #copy(source: number, target: number, count: number): void {
    const { functions, memory, cells } = this.#tools;
    functions.copyTokens(memory, source, target, -1, -1);
    cells.replaced(target);
    functions.removeTokens(memory, target, count, -1);
    this.#isCopyDue = true;
  }

  /**
   * What is read from or put into tensors must not be ahead of copies that are due. Only where nobody has run a batch since.
   *
   * @returns false when they could not be made
   */
  #makeCopies(): boolean {
    if (!this.#isCopyDue) return true;
    const { functions, memory, assemblyTokens } = this.#tools;
    this.#tools.runOne(this.#assembly, assemblyTokens);
    functions.removeTokens(memory, this.#assembly, assemblyTokens, -1);
    return !this.#isCopyDue;
  }
}
