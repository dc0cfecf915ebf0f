/**
 * Several targets, by turns: each round asks every target the same, in an order that is reversed from turn to turn, so
 * that a machine that grows warm or busy favours nobody.
 */
import type { Clock } from "./clock.ts";
import type { Sample } from "./result.ts";
import { type Prepared, runRound } from "./runner.ts";
import type { BenchRequest, Workload } from "./workloads/workload.ts";

export interface RunTarget {
  readonly label: string;
  readonly prepare: (request: BenchRequest) => Prepared;
}

export interface Turn {
  readonly label: string;
  readonly round: number;
  readonly step: number;
  /** Of the run's turns, those behind. */
  readonly share: number;
}

export interface RunOptions {
  readonly targets: readonly RunTarget[];
  readonly rounds: number;
  readonly seed: number;
  /** Of one step of one round against one target. */
  readonly timeLimitMs: number;
  readonly signal: AbortSignal;
  readonly clock: Clock;
  readonly originMs: number;
  /** What a round consists of: each makes a fresh workload, the same for the same seed. */
  readonly steps: readonly ((seed: number) => Workload)[];
  readonly onTurn?: (turn: Turn) => void;
  readonly onSample?: (sample: Sample) => void;
}

/**
 * Every sample of the run, round by round; those measured until `signal` fired, where it did. Each step of each round has
 * a seed of its own: texts that a server has read in one are not known in the next.
 */
export async function runTargets(options: RunOptions): Promise<Sample[]> {
  const { targets, rounds, steps, seed, onTurn, ...rest } = options;
  const samples: Sample[] = [];
  const turns = rounds * steps.length * targets.length;
  let behind = 0;
  for (let round = 0; round < rounds; round += 1) {
    for (const [step, createWorkload] of steps.entries()) {
      const part = round * steps.length + step;
      for (const { label, prepare } of part % 2 === 0 ? targets : targets.toReversed()) {
        if (options.signal.aborted) return samples;
        onTurn?.({ label, round, step, share: behind / turns });
        const measured = await runRound({ ...rest, workload: createWorkload(seed + part), label, prepare, round });
        for (const sample of measured) samples.push(sample);
        behind += 1;
      }
    }
  }
  return samples;
}
