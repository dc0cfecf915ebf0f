/**
 * What the small benchmarks share: repeated timing, and the one JSON line that each of them prints.
 *
 * Figures are medians and 99th percentiles of single calls, by the definitions of `reprise bench` (src/bench/statistics.ts).
 */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { describeMachine, sourceCommit } from "../../src/bench/machine.ts";
import { median, percentile } from "../../src/bench/statistics.ts";
import { repositoryRoot } from "../../test/support/repository.ts";

/**
 * Milliseconds of each of `rounds` calls, after a tenth as many that are not counted. No number comes twice: counted calls
 * have 0 to `rounds` - 1, the others those from `rounds` on.
 */
export async function timesOf(rounds: number, work: (round: number) => unknown): Promise<number[]> {
  const times: number[] = [];
  for (let round = -warmUpRounds(rounds); round < rounds; round += 1) {
    const number = round < 0 ? rounds - 1 - round : round;
    const started = performance.now();
    const pending = work(number);
    if (pending instanceof Promise) await pending; // what is not asynchronous is not made so
    if (round >= 0) times.push(performance.now() - started);
  }
  return times;
}

export function warmUpRounds(rounds: number): number {
  return Math.ceil(rounds / 10);
}

/** Milliseconds as a median and a 99th percentile in microseconds. */
export function microseconds(times: readonly number[]): { readonly p50Us: number; readonly p99Us: number } {
  return { p50Us: rounded(1000 * median(times)), p99Us: rounded(1000 * percentile(times, 0.99)) };
}

/** Bytes of one call and the median of its times as GB/s (10^9 bytes). */
export function gigabytesPerSecond(bytes: number, times: readonly number[]): number {
  return rounded(bytes / median(times) / 1e6);
}

/** Three digits that matter. */
export function rounded(value: number): number {
  return Number(value.toPrecision(3));
}

/** Prints the benchmark's one line: what was measured, of what, on what. With `json` the file's list of such lines gets it too. */
export function printLine(bench: string, figures: object, conditions: object, json?: string): void {
  const line = { bench, figures, conditions, commit: sourceCommit(repositoryRoot), machine: describeMachine() };
  process.stdout.write(`${JSON.stringify(line)}\n`);
  if (json === undefined) return;
  const before: unknown[] = existsSync(json) ? JSON.parse(readFileSync(json, "utf8")) : [];
  writeFileSync(json, `${JSON.stringify([...before, line], undefined, 1)}\n`);
}
