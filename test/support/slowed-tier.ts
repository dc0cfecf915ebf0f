/** A tier whose reads take as long as the test says, by the test's own clock: nobody waits. */
import type { LogTier } from "../../src/tier.ts";
import { passing } from "./passing-tier.ts";

export interface SlowedTier extends LogTier {
  /** Milliseconds that the clock moves in each read from now on. */
  msPerRead: number;
  reads: number;
  /** Reads that have not ended. */
  underWay: number;
}

/** A clock that stands unless it is moved. */
export class TestClock {
  ms = 1000;
  readonly now = (): number => this.ms;
}

export function slowed(tier: LogTier, clock: TestClock, msPerRead: number): SlowedTier {
  return {
    ...passing(tier),
    msPerRead,
    reads: 0,
    underWay: 0,
    async read(id, key, into, signal) {
      this.reads += 1;
      this.underWay += 1;
      try {
        return await tier.read(id, key, into, signal);
      } finally {
        clock.ms += this.msPerRead;
        this.underWay -= 1;
      }
    },
  };
}
