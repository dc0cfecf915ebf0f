/** Hosts that wanted to read and were refused: all are counted, and one line of the log tells of those of a minute. */
import type { Log } from "../../log.ts";

const quietMs = 60_000;

export class Refusals {
  readonly #log: Log;
  readonly #now: () => number;
  #toldAt = -Infinity;
  #untold = 0;
  count = 0;

  constructor(log: Log, now: () => number = () => performance.now()) {
    this.#log = log;
    this.#now = now;
  }

  note(address: string, why: string): void {
    this.count += 1;
    if (this.#now() - this.#toldAt < quietMs) {
      this.#untold += 1;
      return;
    }
    const more = this.#untold === 0 ? "" : ` (${this.#untold} more were refused since the last such line)`;
    this.#log.warn(`a host at ${address} was refused: ${why}${more}`);
    this.#toldAt = this.#now();
    this.#untold = 0;
  }
}
