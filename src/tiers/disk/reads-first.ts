/** Lets reads go first: a write waits its turn while reads are under way, but not for ever. */

/** A write waits so long at most: with groups of 2 MiB, 100 MB/s get through under any load of reads. */
const longestWaitMs = 20;

export class ReadsFirst {
  #reads = 0;
  readonly #waiting = new Set<() => void>();

  get isBusy(): boolean {
    return this.#reads > 0;
  }

  /** Counts as a read under way until `read` is settled. */
  async during<T>(read: () => Promise<T>): Promise<T> {
    this.#reads += 1;
    try {
      return await read();
    } finally {
      this.#reads -= 1;
      if (this.#reads === 0) for (const go of this.#waiting) go();
    }
  }

  /** Resolves when no read is under way, or the wait was long enough. */
  async turn(): Promise<void> {
    if (this.#reads === 0) return;
    await new Promise<void>((resolve) => {
      const go = () => {
        clearTimeout(timer);
        this.#waiting.delete(go);
        resolve();
      };
      const timer = setTimeout(go, longestWaitMs);
      this.#waiting.add(go);
    });
  }
}
