/**
 * Whose chunk goes when room is needed: the policy's choice, unless its tenant is protected (tenants.ts).
 *
 *     best choice unprotected ─► it        else  a tenant above its share ─► its best      one that is idle ─► its best
 *     nobody can give ─► the asker's own best, else none: the pool is full for this asker
 */
import type { ChunkId } from "../index/chunk-id.ts";
import type { EvictionPolicy } from "./policy.ts";
import type { StoredChunks } from "../index/stored-chunk.ts";
import type { Tenants } from "./tenants.ts";

/** Tenants above their share that are asked at most: what is largest may be all in use. */
const mostAsked = 64;

export interface VictimsParts {
  readonly policy: EvictionPolicy;
  readonly tenants: Tenants;
  readonly chunks: StoredChunks;
}

/** The chunk to evict for a chunk of the tenant `asker`. */
export function victimFor(asker: number, now: number, { policy, tenants, chunks }: VictimsParts): ChunkId | undefined {
  const best = policy.next(now);
  if (best === undefined) return undefined;
  const owner = chunks.tenantOf(best);
  if (!tenants.isProtected(owner, now, asker)) return best;
  let asked = 0;
  for (const giver of tenants.givers(now, asker)) {
    const given = policy.next(now, giver);
    if (given !== undefined) return given;
    asked += 1;
    if (asked === mostAsked) break;
  }
  const own = owner === asker ? best : policy.next(now, asker);
  if (own !== undefined) return own;
  // Slots of several sizes may fill the pool with nobody above its share: then who has less than that takes from the others.
  // Not so where somebody keeps more than its share in use, or has reserved and stored nothing: that is who owes the room.
  const isOwed = asked === 0 && !tenants.hasNewcomersBut(asker) && tenants.isProtected(asker, now, asker);
  return isOwed ? best : undefined;
}
