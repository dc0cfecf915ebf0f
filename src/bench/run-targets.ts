/**
 * Several targets, by turns: each round asks every target the same, in an order that is reversed from round to round, so
 * that a machine that grows warm or busy favours nobody.
 */
import type { Clock } from "./clock.ts";
import type { Sample } from "./result.ts";
import { type Prepared, runRound } from "./runner.ts";
import type { BenchRequest, Workload } from "./workload.ts";

export interface RunTarget {
  readonly label: string;
  readonly prepare: (request: BenchRequest) => Prepared;
}

export interface RunOptions {
  readonly targets: readonly RunTarget[];
  readonly rounds: number;
  readonly seed: number;
  /** Of one round against one target. */
  readonly timeLimitMs: number;
  readonly signal: AbortSignal;
  readonly clock: Clock;
  readonly originMs: number;
  /** A fresh workload; the same for the same seed. */
  readonly createWorkload: (seed: number) => Workload;
  readonly onRound?: (turn: { label: string; round: number; share: number }) => void;
  readonly onSample?: (sample: Sample) => void;
}

/** Every sample of the run, round by round; those measured until `signal` fired, where it did. */
export async function runTargets(options: RunOptions): Promise<Sample[]> {
  const { targets, rounds, createWorkload, seed, onRound, ...rest } = options;
  const samples: Sample[] = [];
  let turns = 0;
  for (let round = 0; round < rounds; round += 1) {
    for (const { label, prepare } of round % 2 === 0 ? targets : targets.toReversed()) {
      if (options.signal.aborted) return samples;
      onRound?.({ label, round, share: turns / (rounds * targets.length) });
      const measured = await runRound({ ...rest, workload: createWorkload(seed + round), label, prepare, round });
      for (const sample of measured) samples.push(sample);
      turns += 1;
    }
  }
  return samples;
}
