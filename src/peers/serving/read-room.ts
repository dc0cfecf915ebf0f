/**
 * Memory into which chunks are read from the disk for other hosts: a part at a time for each of a few holders, and the others wait
 * for their turn. So however many ask, the memory that this takes is bounded.
 */
export interface RoomHolder extends Disposable {
  /** Resolves when it is this holder's turn; the turn ends when the holder is disposed of. */
  turn(): Promise<void>;
  /** Memory of so many bytes, in a turn. What was taken before may be the same. */
  take(bytes: number): Uint8Array;
}

/** Memory up to this length is kept for the next holder. */
const keptBytes = 16 * 1024 * 1024;

export class ReadRoom {
  readonly #allocate: (bytes: number) => Uint8Array;
  readonly #spare: Uint8Array[] = [];
  readonly #waiting: (() => void)[] = [];
  #free: number;

  /** @param allocate memory that a log reads into without a copy */
  constructor(holders: number, allocate: (bytes: number) => Uint8Array) {
    this.#free = holders;
    this.#allocate = allocate;
  }

  holder(): RoomHolder {
    let holds = false;
    let memory: Uint8Array | undefined;
    return {
      turn: async () => {
        if (holds) return;
        if (this.#free > 0) this.#free -= 1;
        else await new Promise<void>((resolve) => this.#waiting.push(resolve)); // whoever leaves hands its turn over
        holds = true;
        memory = this.#spare.pop();
      },
      take: (bytes) => {
        if (memory === undefined || memory.length < bytes) memory = this.#allocate(bytes);
        return memory.subarray(0, bytes);
      },
      [Symbol.dispose]: () => {
        if (!holds) return;
        holds = false;
        if (memory !== undefined && memory.length <= keptBytes) this.#spare.push(memory);
        const next = this.#waiting.shift();
        if (next === undefined) this.#free += 1;
        else next();
      },
    };
  }
}
