/**
 * What a benchmark run leaves behind: every sample, and all that is needed to repeat it. This is the format of `--json`;
 * tables, CSV, the report and `bench compare` are made from it and from nothing else.
 */

/** How a request ended. Only "ok" samples count in times; all are counted. */
export type Outcome =
  | "ok"
  /** A complete answer that is not the expected one; its times count too. */
  | "wrong"
  /** The stream ended without its end, or the connection broke. */
  | "cut"
  /** No byte for longer than the limit. */
  | "stalled"
  /** No connection. */
  | "unreachable"
  /** An HTTP status other than 200, such as "http 429". */
  | `http ${number}`;

/** One request as the client saw it. Times are in milliseconds after the run's start. */
export interface Sample {
  readonly target: string;
  readonly round: number;
  readonly id: string;
  readonly group: string;
  readonly outcome: Outcome;
  /** When it was due. */
  readonly dueMs: number;
  /** When it was sent. `sentMs - dueMs` is the client's own lag. */
  readonly sentMs: number;
  /** When the first byte that is a token arrived: not the headers, not an empty role chunk. */
  readonly firstTokenMs?: number;
  /** When each later piece of text arrived, `firstTokenMs` included. */
  readonly tokenMs: readonly number[];
  readonly endMs: number;
  readonly promptTokens?: number;
  readonly completionTokens?: number;
  readonly cachedTokens?: number;
  /** Reused tokens by tier, where the server tells. */
  readonly reused?: Readonly<Record<string, number>>;
  /** Whether the request had an expected answer. */
  readonly checked: boolean;
  /** What went wrong, in the server's words. */
  readonly error?: string;
}

export interface TargetFacts {
  readonly label: string;
  readonly url: string;
  readonly model: string;
  readonly charactersPerToken: number;
  /** Of a server that the run started itself: processor seconds and the largest resident size of its process tree. */
  readonly cpuSeconds?: number;
  readonly residentBytes?: number;
  /** `/metrics` as numbers by name and labels, before and after; empty where there is none. */
  readonly metricsBefore: Readonly<Record<string, number>>;
  readonly metricsAfter: Readonly<Record<string, number>>;
}

export interface BenchResult {
  readonly format: 1;
  readonly bench: string;
  readonly command: string;
  readonly commit: string;
  readonly version: string;
  readonly machine: string;
  /** ISO 8601. */
  readonly startedAt: string;
  readonly seed: number;
  readonly options: Readonly<Record<string, string | number | boolean>>;
  /** What was done before the first sample, in words. */
  readonly warmUp: string;
  readonly targets: readonly TargetFacts[];
  readonly samples: readonly Sample[];
}
