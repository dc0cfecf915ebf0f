/**
 * How long the event loop of this process lets an event wait: what every request, stream and guest of the cache feels when
 * something in between computes for too long.
 *
 * A timer is due every 50 ms. By how much it was late is a sample, and the samples of the last minute are kept. What would have been
 * due during a stall counts too: else a stall of a second were one sample of 1,200, though one event in sixty falls into it
 * (HdrHistogram's correction for coordinated omission).
 *
 *     due    |    |    |    |    |    |
 *     came   |    |              |    |
 *     late   0    0   100  50    0    0   ms
 */
import type { Figure } from "../../figures.ts";

const everyMs = 50;
const keptSamples = 60_000 / everyMs;

export class EventLoopDelay implements Disposable {
  /** A ring: the newest takes the place of the oldest. */
  readonly #lateMs = new Float64Array(keptSamples);
  #taken = 0;
  #dueMs: number;
  #timer: NodeJS.Timeout | undefined;

  /** @param nowMs on the clock that `came` is told. Nothing runs before `start`. */
  constructor(nowMs: number) {
    this.#dueMs = nowMs + everyMs;
  }

  static start(): EventLoopDelay {
    const delay = new EventLoopDelay(performance.now());
    delay.#timer = setInterval(() => delay.came(performance.now()), everyMs).unref();
    return delay;
  }

  /** The timer has come. */
  came(nowMs: number): void {
    // Timers count whole milliseconds: one may come a little before its time.
    const lateMs = Math.max(0, nowMs - this.#dueMs);
    const missed = Math.min(keptSamples - 1, Math.floor(lateMs / everyMs));
    for (let i = 0; i <= missed; i += 1) this.#keep(lateMs - i * everyMs);
    this.#dueMs = nowMs + everyMs;
  }

  /** The wait in seconds that this share of the last minute's samples does not exceed; 0 before there are any. */
  quantile(share: number): number {
    const sorted = this.#lateMs.slice(0, Math.min(this.#taken, keptSamples)).sort();
    return (sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? 0) / 1000;
  }

  #keep(lateMs: number): void {
    this.#lateMs[this.#taken % keptSamples] = lateMs;
    this.#taken += 1;
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }
}

export const processFigures: readonly Figure<EventLoopDelay>[] = [
  {
    name: "reprise_event_loop_delay_seconds",
    kind: "gauge",
    help: "How long an event waited for the server's event loop in the last minute: median, 99th percentile and longest.",
    label: "quantile",
    read: (delay) => ["0.5", "0.99", "1"].map((share) => [share, delay.quantile(Number(share))] as const),
  },
];
