/**
 * The cache as the engine process sees it: a session, and the pool that its slots lie in.
 */
import type { CacheSession } from "../../../session.ts";

export interface StoredKv {
  readonly session: CacheSession;
  readonly pool: { slot(offset: number, bytes: number): Uint8Array };
}

/** The cache right now; undefined while there is none (not connected, weights not digested yet, or lost). */
export type FindStoredKv = () => StoredKv | undefined;
