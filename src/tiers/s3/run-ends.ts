/**
 * Where runs of chunks end. A lookup asks for the ends of a text's runs alone, so every writer must cut alike, whatever it knows of
 * the text: the key itself says whether its chunk ends one, as it says everything else about the text before.
 *
 *     text    │ 0 │ 1 │ 2 │ 3 │ 4 │ 5 │ 6 │ 7 │ 8 │ …        keys are digests: one in eight ends a run
 *               runs        ──┘           ──┘
 */
import type { ChunkKey, RootKey } from "../../identity/keys.ts";

/** Chunks of a run, on average. */
export const meanRunChunks = 8;
/** Chunks of a run that one index tells of: no run is longer, but for one in 10^14, of which the beginning is not found. */
export const maxRunChunks = 256;

export function isRunEnd(key: ChunkKey | RootKey): boolean {
  return Number.parseInt(key.slice(-2), 16) % meanRunChunks === 0;
}
