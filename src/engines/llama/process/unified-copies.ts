/** Copies of KV where all sequences have cells of one store: through a temporary sequence, since llama.cpp moves whole ones (kv-copies.ts). */
import { addressOf } from "../../../ffi/posix.ts";
import type { CopyTools, KvCopies, PayloadPlace, Restoring } from "./kv-copies.ts";

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
      drop: () => true,
    });
  }

  restoreMs(): number {
    return 0;
  }

  movedTokens(_sequence: number, from: number, to: number): number {
    return to - from;
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
