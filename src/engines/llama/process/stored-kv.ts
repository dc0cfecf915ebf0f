/**
 * The cache as the engine process sees it: a session, and the pool that its slots lie in.
 */
import type { CacheSession } from "../../../session.ts";
import type { Pointer } from "../../../ffi/llama.ts";

export interface StoredKv {
  readonly session: CacheSession;
  readonly pool: {
    slot(offset: number, bytes: number): Uint8Array;
    pointer(offset: number, bytes: number): Pointer;
  };
}

/** The cache right now; undefined while there is none (not connected, weights not digested yet, or lost). */
export type FindStoredKv = () => StoredKv | undefined;
