/**
 * Waiting with an end.
 *
 * A process that decodes for half a second fires its timers before it reads its sockets. So a deadline is judged only
 * after what has arrived meanwhile was read: a busy event loop must not pass for a peer's silence.
 */
import { setMaxListeners } from "node:events";

/** What a timer can wait, 25 days: beyond it Node waits a millisecond. */
const longestMs = 2 ** 31 - 1;

/** Calls `late` when `milliseconds` have passed, or `signal` fires, unless cancelled before. */
export function atDeadline(milliseconds: number, late: () => void, signal?: AbortSignal): { cancel(): void } {
  let immediate: NodeJS.Immediate | undefined;
  const soon = () => (immediate ??= setImmediate(late));
  // Node reads its sockets between timers and immediates.
  const timer = setTimeout(soon, Math.min(longestMs, Math.max(0, milliseconds)));
  if (signal !== undefined) {
    setMaxListeners(0, signal); // one for each that waits
    signal.addEventListener("abort", soon);
    if (signal.aborted) soon();
  }
  return {
    cancel() {
      clearTimeout(timer);
      clearImmediate(immediate);
      signal?.removeEventListener("abort", soon);
    },
  };
}

/**
 * The value of `work`, or `"late"` when it takes longer than `milliseconds`, or than until `signal` fires. The work itself goes
 * on.
 */
export async function within<T>(work: Promise<T>, milliseconds: number, signal?: AbortSignal): Promise<T | "late"> {
  let deadline: { cancel(): void } | undefined;
  const late = new Promise<"late">((resolve) => {
    deadline = atDeadline(milliseconds, () => resolve("late"), signal);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    deadline?.cancel();
  }
}

/** Does `work` with a signal that fires when `stop` does, and when it has taken `deadlineMs`. */
export async function withSignal<T>(
  work: (signal: AbortSignal) => Promise<T>,
  { stop, deadlineMs }: { readonly stop: AbortSignal; readonly deadlineMs: number },
): Promise<T> {
  const own = new AbortController();
  const abort = () => own.abort();
  const deadline = atDeadline(deadlineMs, abort);
  setMaxListeners(0, stop); // one for each that is under way
  stop.addEventListener("abort", abort);
  if (stop.aborted) abort();
  try {
    return await work(own.signal);
  } finally {
    deadline.cancel();
    stop.removeEventListener("abort", abort);
  }
}
