/** How long a tier may take: to read or write a chunk before its signal fires, and to say what it has. */
import { within, withSignal } from "../../deadline.ts";
import { RepriseError } from "../../errors.ts";
import { ownedLog, type Tier } from "../../tier.ts";

/** Of a shared tier: whoever cannot move a chunk in so long is away, and the chunk's slots are wanted. */
const sharedMs = 30_000;
/** What a shared tier may take to say what it has. */
const answerMs = 1000;

/** A log ends by itself, as its drives do: it hears of `stop` only. */
export function withPatience<T>(tier: Tier, stop: AbortSignal, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  return ownedLog(tier) === undefined ? withSignal(work, { stop, deadlineMs: sharedMs }) : work(stop);
}

/** It did not say in time what it has. */
export class LateAnswer extends RepriseError {
  constructor(options?: ErrorOptions) {
    super("TIER_UNAVAILABLE", `no answer to a lookup within ${answerMs} ms: check that it is there`, options);
  }
}

/**
 * What a shared tier answers to a lookup. One that is late is not waited for, even if the signal does not move it.
 *
 * @throws LateAnswer, or why it fails
 */
export function answerOf<T>(find: (signal: AbortSignal) => Promise<T>, stop: AbortSignal): Promise<T> {
  return withSignal(
    async (signal) => {
      let answer: T | "late";
      try {
        answer = await within(find(signal), answerMs);
      } catch (error) {
        if (signal.aborted && !stop.aborted) throw new LateAnswer({ cause: error }); // the signal has ended it
        throw error;
      }
      if (answer === "late") throw new LateAnswer();
      return answer;
    },
    { stop, deadlineMs: answerMs },
  );
}
