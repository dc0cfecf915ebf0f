/**
 * Reads what lies on the drives once in a while, slowly, so that rot is found before somebody waits for the bytes. A record
 * that does not match is dropped and counted.
 *
 *     rest ──everyMs after the last round began──► a round: every record once, `bytesPerSecond` of them ──► rest
 *
 * When a round began is remembered across restarts. One that a restart cut short is not gone on with: the next begins at
 * another place, chosen at random, so that in time all is read. While it rests nothing is read and nothing wakes up.
 */
import type { RecordId } from "../../tier.ts";
import type { LastScrub } from "./last-scrub.ts";

export interface ScrubberOptions {
  readonly bytesPerSecond: number;
  /** Between the begins of two rounds, at least. */
  readonly everyMs: number;
  /** The records there are now, from somewhere on and round to there. */
  readonly records: () => Iterable<RecordId>;
  /** Reads and verifies one. @returns bytes read, 0 when it was gone */
  readonly verify: (id: RecordId) => Promise<number>;
  /** Remembers when the last round began. */
  readonly last: Pick<LastScrub, "read" | "write">;
  /** In ms since 1970. */
  readonly now: () => number;
}

/** After a start others come first. */
const startMs = 1000;
/** After a record that could not be read: a broken drive answers at once. */
const failedMs = 10;
/** Node's timers take no longer one. */
const longestTimerMs = 2 ** 31 - 1;

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
    this.#after(startMs, async () => this.#rest(this.#options.last.read()));
  }

  async stop(): Promise<void> {
    this.#isOver = true;
    clearTimeout(this.#timer);
    await this.#work;
  }

  /** Until the next round is due; a last one in the future is the clock's fault, and one round too soon costs little. */
  #rest(lastRound: number | undefined): void {
    const { everyMs, now } = this.#options;
    const sinceMs = lastRound === undefined ? Infinity : Math.abs(now() - lastRound);
    if (sinceMs >= everyMs) this.#begin();
    else this.#after(Math.min(everyMs - sinceMs, longestTimerMs), async () => this.#rest(lastRound));
  }

  #begin(): void {
    const beganAt = this.#options.now();
    const records = this.#options.records()[Symbol.iterator]();
    const next = async (): Promise<void> => {
      const { value, done } = records.next();
      if (done === true) return this.#end(beganAt);
      const bytes = await this.#options.verify(value);
      this.#bytes += bytes;
      this.#after(bytes === 0 ? failedMs : (1000 * bytes) / this.#options.bytesPerSecond, next);
    };
    this.#after(0, next);
  }

  async #end(beganAt: number): Promise<void> {
    this.#rounds += 1;
    await this.#options.last.write(beganAt);
    this.#rest(beganAt);
  }

  #after(ms: number, what: () => Promise<void>): void {
    if (this.#isOver) return;
    this.#timer = setTimeout(() => {
      this.#work = what();
    }, ms).unref();
  }
}
