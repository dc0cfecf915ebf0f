/**
 * Runs one workload against one target, once.
 *
 *     actors, in order ──► a free place? ──► due? ──► request ─► answer ─► request ─► … ─► done: the place is free
 *
 * Nothing begins before it is due. How much later it begins is the client's own lag, and is in every sample: a run whose
 * lag is not small against its times has measured the client. At the time limit no request begins any more; those under
 * way are heard to their end, because to cut the slow ones would flatter the server.
 */
import { setMaxListeners } from "node:events";
import type { Clock } from "./clock.ts";
import type { Sample } from "./result.ts";
import type { StreamedAnswer } from "./stream-client.ts";
import type { Actor, BenchRequest, Workload } from "./workloads/workload.ts";

/** Actors at work at a time where the workload sets no limit: connections of one client to one address end near 28,000. */
const mostActors = 20_000;
/** An actor waits so long after a failure: a server that refuses everything is not asked in a tight loop. */
const failurePauseMs = 1000;

/** A request made ready before it is due, so that making it costs no lag; calling it sends it. */
export type Prepared = (signal: AbortSignal) => Promise<StreamedAnswer>;

export interface RoundOptions {
  readonly workload: Workload;
  readonly label: string;
  readonly round: number;
  readonly prepare: (request: BenchRequest) => Prepared;
  /** The run's start on `clock`; samples count from it. */
  readonly originMs: number;
  readonly timeLimitMs: number;
  /** Ends the round at once; requests under way leave no sample. */
  readonly signal: AbortSignal;
  readonly clock: Clock;
  readonly onSample?: (sample: Sample) => void;
}

/** @returns one sample for each request that was sent, in the order of their ends. @throws what a workload throws. */
export async function runRound(options: RoundOptions): Promise<Sample[]> {
  const { workload, clock } = options;
  const startMs = clock.now();
  const endMs = startMs + options.timeLimitMs;
  const stop = new AbortController();
  const signal = AbortSignal.any([options.signal, stop.signal]);
  setMaxListeners(0, signal); // every request under way listens to it
  const samples: Sample[] = [];
  const places = new Places(workload.concurrency ?? mostActors);
  const atWork = new Set<Promise<void>>();
  const thrown: unknown[] = [];

  for (const actor of workload.actors()) {
    // Made while no place is free: the making of a long text is not to be the lag of a closed loop.
    const first = actor.next(undefined);
    if (first === undefined) continue;
    const prepared = options.prepare(first);
    await places.take();
    const dueMs = Math.max(startMs + actor.startMs, places.freedMs ?? startMs);
    if (dueMs < endMs) await clock.until(dueMs, signal);
    if (dueMs >= endMs || clock.now() >= endMs || signal.aborted) break;
    const work = runActor({ ...options, signal, actor, endMs, first, prepared, dueMs, samples })
      .catch((error: unknown) => {
        thrown.push(error);
        stop.abort();
      })
      .finally(() => {
        places.give(clock.now());
        atWork.delete(work);
      });
    atWork.add(work);
  }
  await Promise.all(atWork);
  if (thrown.length > 0) throw thrown[0];
  return samples;
}

/** One actor from its first request, which is due and prepared, to its last. */
async function runActor(
  options: RoundOptions & {
    readonly actor: Actor;
    readonly endMs: number;
    readonly first: BenchRequest;
    readonly prepared: Prepared;
    readonly dueMs: number;
    readonly samples: Sample[];
  },
): Promise<void> {
  const { actor, clock, signal, endMs } = options;
  let { first: request, prepared, dueMs } = options;
  for (;;) {
    const answer = await prepared(signal);
    if (signal.aborted) return;
    const sample = sampleOf(options, request, dueMs, answer);
    options.samples.push(sample);
    options.onSample?.(sample);

    const next = actor.next(answer.text);
    if (next === undefined) return;
    request = next;
    prepared = options.prepare(request);
    const failed = answer.outcome !== "ok" && answer.outcome !== "wrong";
    dueMs = Math.max(answer.sentAt + actor.gapMs, answer.endAt + (failed ? failurePauseMs : 0));
    if (dueMs >= endMs) return;
    await clock.until(dueMs, signal);
    if (signal.aborted || clock.now() >= endMs) return;
  }
}

function sampleOf(
  { label, round, originMs }: RoundOptions,
  request: BenchRequest,
  dueMs: number,
  answer: StreamedAnswer,
): Sample {
  const { outcome, text: _text, sentAt, tokenAt, endAt, ...figures } = answer;
  const tokenMs = tokenAt.map((at) => at - originMs);
  return {
    target: label,
    round,
    id: request.id,
    group: request.group,
    outcome,
    dueMs: dueMs - originMs,
    sentMs: sentAt - originMs,
    ...(tokenMs[0] === undefined ? {} : { firstTokenMs: tokenMs[0] }),
    tokenMs,
    endMs: endAt - originMs,
    checked: request.expected !== undefined,
    ...figures,
  };
}

/** Places for actors at work. One waits at a time: the loop above. */
class Places {
  #free: number;
  #wake: (() => void) | undefined;
  /** When the place that was waited for became free; undefined where none had to be waited for. */
  freedMs: number | undefined;

  constructor(count: number) {
    this.#free = count;
  }

  async take(): Promise<void> {
    this.freedMs = undefined;
    if (this.#free === 0) await new Promise<void>((resolve) => (this.#wake = resolve));
    this.#free -= 1;
  }

  give(atMs: number): void {
    this.#free += 1;
    if (this.#wake === undefined) return;
    this.freedMs = atMs;
    this.#wake();
    this.#wake = undefined;
  }
}
