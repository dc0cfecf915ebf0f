/**
 * Log-probabilities of a token and of its likeliest rivals, from raw logits: before temperature, penalties and filters.
 */
import { massOf } from "./softmax.ts";

export interface Ranked {
  readonly token: number;
  readonly logprob: number;
}

/** The log-softmax of `logits` at `token`, and the `top` highest, best first (the lower id first among equals). */
export function logprobsOf(logits: Float32Array, token: number, top: number): { logprob: number; top: Ranked[] } {
  let max = -Infinity;
  for (let index = 0; index < logits.length; index += 1) if (logits[index]! > max) max = logits[index]!;
  const base = max + Math.log(massOf({ logits, from: 0, to: logits.length, max, temperature: 1 }));
  return {
    logprob: logits[token]! - base,
    top: highest(logits, top).map((id) => ({ token: id, logprob: logits[id]! - base })),
  };
}

/** Ids of the `count` highest values by insertion: counts are small, and most values lose against the last one kept. */
function highest(values: Float32Array, count: number): number[] {
  const ids: number[] = [];
  if (count === 0) return ids;
  for (let id = 0; id < values.length; id += 1) {
    if (ids.length === count && values[id]! <= values[ids[count - 1]!]!) continue;
    let at = ids.length;
    while (at > 0 && values[ids[at - 1]!]! < values[id]!) at -= 1;
    ids.splice(at, 0, id);
    if (ids.length > count) ids.pop();
  }
  return ids;
}
