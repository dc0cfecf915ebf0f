/**
 * Reads what lies on the drives again and again, slowly, so that rot is found before somebody waits for the bytes. A record
 * that does not match is dropped and counted. It rests while reads are under way.
 */
import type { RecordId } from "../../tier.ts";

export interface ScrubberOptions {
  readonly bytesPerSecond: number;
  /** The records there are now, in the order in which they are to be read. */
  readonly records: () => Iterable<RecordId>;
  /** Reads and verifies one. @returns bytes read, 0 when it was gone */
  readonly verify: (id: RecordId) => Promise<number>;
}

/** How long it waits when there is nothing to read, and after a record that could not be read: a broken drive answers at once. */
const restMs = 1000;
const failedMs = 10;

export class Scrubber {
  readonly #options: ScrubberOptions;
  #timer: NodeJS.Timeout | undefined;
  #work: Promise<void> = Promise.resolve();
  #isOver = false;
  #bytes = 0;
  #rounds = 0;

  constructor(options: ScrubberOptions) {
    this.#options = options;
  }

  /** Bytes read so far, and how often all there was has been read. */
  get progress(): { readonly bytes: number; readonly rounds: number } {
    return { bytes: this.#bytes, rounds: this.#rounds };
  }

  start(): void {
    this.#next(this.#options.records()[Symbol.iterator](), restMs);
  }

  async stop(): Promise<void> {
    this.#isOver = true;
    clearTimeout(this.#timer);
    await this.#work;
  }

  #next(records: Iterator<RecordId>, afterMs: number): void {
    if (this.#isOver) return;
    this.#timer = setTimeout(() => {
      this.#work = this.#step(records);
    }, afterMs).unref();
  }

  async #step(records: Iterator<RecordId>): Promise<void> {
    const { value, done } = records.next();
    if (done === true) {
      this.#rounds += 1;
      this.#next(this.#options.records()[Symbol.iterator](), restMs);
      return;
    }
    const bytes = await this.#options.verify(value);
    this.#bytes += bytes;
    this.#next(records, bytes === 0 ? failedMs : (1000 * bytes) / this.#options.bytesPerSecond);
  }
}
