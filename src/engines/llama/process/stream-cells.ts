/**
 * The cells of a context's streams: which of them llama.cpp has, and how many of those their sequence still holds.
 *
 * A cell says whose it is and at which position; not of which text. So what a sequence no longer holds stays there until something is computed
 * behind what it does hold: rows of another text can be put right where the old ones lie (restored-in-place.ts).
 *
 *     llama.cpp's   │ 0 … there                      │
 *     held          │ 0 … cut       │ of a text before │
 */
import type { LlamaFunctions, MemoryPointer } from "../../../ffi/llama.ts";

export class StreamCells {
  readonly #functions: Pick<LlamaFunctions, "lastPosition" | "removeTokens">;
  readonly #memory: MemoryPointer;
  /** Where those end that a sequence holds, if there may be more. */
  readonly #cuts = new Map<number, number>();

  constructor(functions: Pick<LlamaFunctions, "lastPosition" | "removeTokens">, memory: MemoryPointer) {
    this.#functions = functions;
    this.#memory = memory;
  }

  /** Cells that llama.cpp has of a sequence, from position 0 on. */
  there(sequence: number): number {
    return this.#functions.lastPosition(this.#memory, sequence) + 1;
  }

  /** Those that the sequence holds. */
  held(sequence: number): number {
    return Math.min(this.there(sequence), this.#cuts.get(sequence) ?? Infinity);
  }

  /** The sequence holds no more than `[0, to)`. */
  cut(sequence: number, to: number): void {
    this.#cuts.set(sequence, Math.min(to, this.#cuts.get(sequence) ?? to));
  }

  /** Cells were made, or rows were put into those that are there: the sequence holds `[0, to)`. */
  filled(sequence: number, to: number): void {
    this.#cuts.set(sequence, to);
  }

  /** llama.cpp has made the sequence anew: all that is there is held. */
  replaced(sequence: number): void {
    this.#cuts.delete(sequence);
  }

  /** Lets llama.cpp forget what is not held: before anything is computed behind it. */
  settle(sequence: number): void {
    const to = this.#cuts.get(sequence);
    if (to === undefined) return;
    this.#cuts.delete(sequence);
    this.#functions.removeTokens(this.#memory, sequence, to === 0 ? -1 : to, -1);
  }
}
