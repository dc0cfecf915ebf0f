/**
 * When a request is sent again: where the store says that it is busy, or the connection broke, after a random part of a time that
 * doubles (AWS calls it full jitter). A store that says how long it wants to be left alone, or to slow down, is left alone by all
 * requests of this host until then.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { RepriseError } from "../../errors.ts";
import { S3Fault } from "./faults.ts";

const mostAttempts = 5;
const firstMs = 100;
const mostMs = 5000;
/** What a store may ask for. */
const longestPauseMs = 30_000;

export class Retries {
  readonly #random: () => number;
  #pausedUntil = 0;

  constructor(random: () => number = Math.random) {
    this.#random = random;
  }

  /** @throws what `work` threw last; at once what will not get better, and when the signal fires */
  async do<T>(work: () => Promise<T>, signal: AbortSignal): Promise<T> {
    for (let attempt = 1; ; attempt += 1) {
      const pause = this.#pausedUntil - performance.now();
      if (pause > 0) await sleep(pause, undefined, { signal });
      try {
        return await work();
      } catch (error) {
        if (signal.aborted || attempt === mostAttempts || !isPassing(error)) throw error;
        const ownMs = this.#random() * Math.min(mostMs, firstMs * 2 ** attempt);
        const { isBusy, retryAfterMs = 0 } = error instanceof S3Fault ? error : { isBusy: false };
        const waitMs = Math.min(longestPauseMs, Math.max(ownMs, retryAfterMs));
        if (isBusy) this.#pausedUntil = Math.max(this.#pausedUntil, performance.now() + waitMs);
        else await sleep(waitMs, undefined, { signal });
      }
    }
  }
}

/** Anything but what the store has decided: a connection may stand the next time. */
function isPassing(error: unknown): boolean {
  if (error instanceof RepriseError) return false;
  return !(error instanceof S3Fault) || error.isPassing;
}
