/**
 * The cache as the engine process sees it: a session, and the pool that its slots lie in.
 */
import type { CacheSession } from "../../cache/session.ts";
import type { Pointer } from "../../ffi/llama.ts";

export interface StoredKv {
  readonly session: CacheSession;
  readonly pool: {
    slot(offset: number, bytes: number): Uint8Array;
    pointer(offset: number, bytes: number): Pointer;
  };
}

/** The cache right now; undefined while there is none (not connected, weights not digested yet, or lost). */
export type FindStoredKv = () => StoredKv | undefined;

/** What a wait that is over answers: the cache has deadlines of its own, and this one is for a cache that forgets them. */
export const late = Symbol("late");

/** `promise`, or {@link late} after `timeoutMs`. */
export async function within<T>(promise: Promise<T>, timeoutMs: number): Promise<T | typeof late> {
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<typeof late>((resolve) => {
    timer = setTimeout(() => resolve(late), timeoutMs);
  });
  try {
    return await Promise.race([promise, timeout]);
  } finally {
    clearTimeout(timer);
  }
}
