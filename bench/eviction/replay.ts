/**
 * Replays a trace: how many blocks of its prompts would have been found in a cache of so many blocks.
 *
 * The cache's own policies run in the real cache, with its index, leases and sessions: every request loads what is stored
 * of its prompt, gives it back, and stores the rest. A block is one chunk of 512 tokens; a token is the block's number. Only
 * the pool is not real: it counts slots. Time is the trace's.
 */
import { Cache } from "../../src/cache/cache.ts";
import { bareRoot } from "../../src/identity/keys.ts";
import type { EvictionPolicy } from "../../src/cache/eviction/policy.ts";
import type { CacheSession } from "../../src/session.ts";
import { opaqueSpace } from "../../src/identity/space.ts";
import { BLOCK_TOKENS, type TraceRequest } from "../../src/bench/workloads/mooncake-trace.ts";
import type { BlockCache } from "./block-caches.ts";
import { CountingPool } from "./counting-pool.ts";

const wait = { deadlineMs: 60_000 };

/** @returns blocks found */
export async function hitsInCache(
  requests: readonly TraceRequest[],
  capacity: number,
  policy: EvictionPolicy,
): Promise<number> {
  let now = 0;
  await using cache = await Cache.open({ pool: new CountingPool(capacity), policy, now: () => now });
  const session = cache.openSession({ space: traceSpace, rank: 0, slotBytes: [1] });
  let hits = 0;
  for (const { timestampMs, hashIds } of requests) {
    now = timestampMs;
    hits += await serve(session, Uint32Array.from({ length: hashIds.length * BLOCK_TOKENS }, tokenOf(hashIds)));
  }
  cache.check();
  return hits;
}

/** The same for a policy over blocks. */
export function hitsInBlocks(requests: readonly TraceRequest[], cache: BlockCache): number {
  let hits = 0;
  for (const { hashIds } of requests) {
    const missing = hashIds.findIndex((block) => !cache.has(block));
    hits += missing === -1 ? hashIds.length : missing;
    for (const block of hashIds.toReversed()) {
      if (cache.has(block)) cache.touch(block);
      else cache.insert(block);
    }
  }
  return hits;
}

async function serve(session: CacheSession, tokens: Uint32Array): Promise<number> {
  let hits = 0;
  for await (const batch of session.load(bareRoot, tokens, 0, wait)) {
    session.release(batch.map(({ lease }) => lease));
    hits += batch.filter(({ take }) => take === BLOCK_TOKENS).length;
  }
  const { parts } = await session.reserve(bareRoot, tokens, wait);
  await session.commit(
    parts.map(({ lease }) => ({ lease, bytes: 1 })),
    wait,
  );
  return hits;
}

function tokenOf(hashIds: readonly number[]): (value: unknown, i: number) => number {
  return (_, i) => hashIds[Math.floor(i / BLOCK_TOKENS)]!; // one per 512 tokens
}

const traceSpace = opaqueSpace("trace", "", BLOCK_TOKENS);
