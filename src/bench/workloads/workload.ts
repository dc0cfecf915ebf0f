/**
 * Workloads: who asks what, and when. A workload knows nothing of servers, clocks or sockets; the runner gives it the
 * answers and keeps the time.
 */

/** One request, ready but for `model` and `stream`, which the runner sets. */
export interface BenchRequest {
  /** Names the request within its run, such as "user 3 round 2"; the same in every target. */
  readonly id: string;
  /** What it is compared with: "round 2", "cold", "first reading". Plots and tables have one line per group. */
  readonly group: string;
  readonly path: "/v1/chat/completions" | "/v1/completions";
  readonly body: Readonly<Record<string, unknown>>;
  /** The exact answer, where the request has one; anything else counts as wrong. */
  readonly expected?: string;
}

/** Somebody who asks one request at a time: a user of a chat, or a single request of an open loop. */
export interface Actor {
  /** When the first request is due, in milliseconds after the run's start. */
  readonly startMs: number;
  /** Least time between the beginnings of two requests; 0 = the next follows the answer at once. */
  readonly gapMs: number;
  /** The next request, given the answer to the one before; undefined: this actor is done. */
  next(previousAnswer: string | undefined): BenchRequest | undefined;
}

export interface Workload {
  readonly name: string;
  /** In the order in which they start. May be endless: the runner stops at its time limit. */
  actors(): Iterable<Actor>;
  /** Actors at work at a time; undefined = as many as are due. */
  readonly concurrency: number | undefined;
}

/** Text of a wanted length, for a server whose tokenizer has been measured. */
export interface TextScale {
  /** Characters per token of the workloads' kind of text. */
  readonly charactersPerToken: number;
}
