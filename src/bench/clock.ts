/** The runner's time: real in a run, made by hand in a test. */
import { setTimeout as sleep } from "node:timers/promises";

export interface Clock {
  /** Milliseconds, as performance.now(). */
  now(): number;
  /** Resolves at or after `at`, never before; at once when `signal` fires. */
  until(at: number, signal: AbortSignal): Promise<void>;
}

export const realClock: Clock = {
  now: () => performance.now(),
  async until(at, signal) {
    // Node's timers count whole milliseconds and may fire a fraction early.
    for (let left = at - performance.now(); left > 0 && !signal.aborted; left = at - performance.now()) {
      await sleep(Math.min(Math.ceil(left), 2 ** 30), undefined, { signal }).catch(() => undefined); // the loop looks
    }
  },
};
