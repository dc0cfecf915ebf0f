/**
 * Waiting with an end.
 *
 * A process that decodes for half a second fires its timers before it reads its sockets. So a deadline is judged only
 * after what has arrived meanwhile was read: a busy event loop must not pass for a peer's silence.
 */

/** Calls `late` when `milliseconds` have passed, unless cancelled before. */
export function atDeadline(milliseconds: number, late: () => void): { cancel(): void } {
  let immediate: NodeJS.Immediate | undefined;
  // Node reads its sockets between timers and immediates.
  const timer = setTimeout(() => (immediate = setImmediate(late)), Math.max(0, milliseconds));
  return {
    cancel() {
      clearTimeout(timer);
      clearImmediate(immediate);
    },
  };
}

/** The value of `work`, or `"late"` when it takes longer than `milliseconds`. The work itself goes on. */
export async function within<T>(work: Promise<T>, milliseconds: number): Promise<T | "late"> {
  let deadline: { cancel(): void } | undefined;
  const late = new Promise<"late">((resolve) => {
    deadline = atDeadline(milliseconds, () => resolve("late"));
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    deadline?.cancel();
  }
}
