/** A closed loop: a fixed number at work, each next one begins when one is done. It finds how much a server can do. */
import type { Workload } from "./workload.ts";

/** The same actors in the same order, without their times: `concurrency` of them at a time, none waiting for a clock. */
export function closedLoop(workload: Workload, concurrency: number): Workload {
  return {
    name: workload.name,
    concurrency,
    *actors() {
      for (const actor of workload.actors()) {
        yield { startMs: 0, gapMs: 0, next: (previousAnswer) => actor.next(previousAnswer) };
      }
    },
  };
}
