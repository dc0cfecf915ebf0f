/** Shrinks and grows the pool while it is used: slots in use go when their leases and pins fall. */
import type { ChunkStore } from "./chunk-store.ts";

/** Leases fall within a request's time, so that asking anew now and then costs less than telling of each. */
const pauseMs = 20;

export class Resizing {
  readonly #store: ChunkStore;
  #turn = 0;
  #wake: (() => void) | undefined;

  constructor(store: ChunkStore) {
    this.#store = store;
  }

  /** Resolves when the pool has this capacity, or another is asked for, or all is closed. */
  async resize(capacityBytes: number): Promise<void> {
    this.close();
    const turn = this.#turn;
    this.#store.resize(capacityBytes);
    while (turn === this.#turn && this.#store.clearLeaving() > 0) await this.#pause();
  }

  /** Ends the waiting. */
  close(): void {
    this.#turn += 1;
    this.#wake?.();
  }

  #pause(): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, pauseMs);
      timer.unref();
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}
