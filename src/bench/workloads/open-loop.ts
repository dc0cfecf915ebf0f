/**
 * An open loop: arrivals come at a rate, whether or not the server keeps up, as they do from people who do not know of
 * each other. A server that is too slow shows it in its queue, which a closed loop would hide.
 */
import { Random, seedOf } from "../notes/random.ts";
import type { Workload } from "./workload.ts";

/**
 * The same actors, arriving as a Poisson process instead of at their own times; nothing limits how many are at work.
 *
 * @param ratePerSecond arrivals per second: requests, where each actor is one; sessions otherwise.
 */
export function openLoop(workload: Workload, options: { ratePerSecond: number; seed: number }): Workload {
  return {
    name: workload.name,
    concurrency: undefined,
    *actors() {
      const rng = new Random(seedOf(options.seed, "arrivals"));
      let startMs = 0;
      for (const actor of workload.actors()) {
        // Gaps between arrivals are exponential; 1 - fraction is never 0.
        startMs += (-Math.log(1 - rng.fraction()) / options.ratePerSecond) * 1000;
        yield { startMs, gapMs: actor.gapMs, next: (previousAnswer) => actor.next(previousAnswer) };
      }
    },
  };
}
