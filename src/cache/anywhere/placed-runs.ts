/**
 * Which run serves which tokens of a prompt: the longest take their places first, and what is left of others is used while it
 * is long enough.
 */
import { shortestRun, type RunReader, type StoredRun } from "./stored-run.ts";

export class PlacedRuns {
  readonly #reader: RunReader;
  /** By token of the prompt: 1 where a run serves it. */
  readonly #served: Uint8Array;
  readonly #runs: StoredRun[] = [];

  constructor(promptTokens: number, reader: RunReader) {
    this.#served = new Uint8Array(promptTokens);
    this.#reader = reader;
  }

  covers(position: number): boolean {
    return this.#served[position] === 1;
  }

  /** Tokens of a run that are free, without a gap around a position that is. */
  freeAround(position: number, { at, tokens }: StoredRun): number {
    const before = this.#served.subarray(at, position).lastIndexOf(1);
    return this.#freeUntil(position, at + tokens) - (at + before + 1);
  }

  /** Gives these runs the places that are free. @returns `"some"` when what was left of one was too short */
  place(runs: readonly StoredRun[]): "all" | "some" {
    let placed: "all" | "some" = "all";
    for (const run of runs.toSorted((a, b) => b.tokens - a.tokens)) {
      const end = run.at + run.tokens;
      for (let at = this.#freeFrom(run.at, end); at < end;) {
        const until = this.#freeUntil(at, end);
        if (until - at >= shortestRun) this.#put(run, at, until);
        else placed = "some";
        at = this.#freeFrom(until, end);
      }
    }
    return placed;
  }

  inOrder(): StoredRun[] {
    return this.#runs.toSorted((a, b) => a.at - b.at);
  }

  #put(run: StoredRun, at: number, until: number): void {
    this.#served.fill(1, at, until);
    this.#runs.push(this.#reader.part(run, at, until - at));
  }

  #freeFrom(from: number, end: number): number {
    return this.#next(0, from, end);
  }

  #freeUntil(from: number, end: number): number {
    return this.#next(1, from, end);
  }

  #next(served: 0 | 1, from: number, end: number): number {
    const distance = this.#served.subarray(from, end).indexOf(served);
    return distance === -1 ? end : from + distance;
  }
}
