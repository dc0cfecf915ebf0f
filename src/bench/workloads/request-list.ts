/** A row of single requests as a workload: each is an actor of its own. */
import type { Actor, BenchRequest, Workload } from "./workload.ts";

export interface TimedRequest {
  readonly startMs: number;
  /** Makes the request when it is due, so that a run's texts are never all in memory. */
  readonly make: () => BenchRequest;
}

/**
 * @param concurrency requests in flight at a time; undefined = as many as are due.
 */
export function requestList(
  name: string,
  requests: () => Iterable<TimedRequest>,
  concurrency: number | undefined,
): Workload {
  return {
    name,
    concurrency,
    *actors() {
      for (const request of requests()) yield singleRequest(request);
    },
  };
}

function singleRequest({ startMs, make }: TimedRequest): Actor {
  let isAsked = false;
  return {
    startMs,
    gapMs: 0,
    next() {
      if (isAsked) return undefined;
      isAsked = true;
      return make();
    },
  };
}
