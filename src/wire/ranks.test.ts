/** One process that has a session for every tensor-parallel rank, as vLLM's scheduler does. */
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import {
  counting,
  loadAndVerify,
  openTestCache,
  payloadOf,
  save,
  slotBytes,
  temporaryFolder,
  testPool,
  testSpace,
  wait,
  prefix,
} from "../../test/support/cache.ts";
import { bareRoot } from "../identity/keys.ts";
import { type Tokens } from "../identity/tokens.ts";
import type { LeaseId } from "../session.ts";
import { DiskTier } from "../tiers/disk/disk-tier.ts";
import { connectCache, type CacheLink } from "./guest/link.ts";
import { WireServer } from "./cache/server.ts";

const tokens = counting(10); // three chunks, the last a tail

async function setUp(ranks: number) {
  const folder = temporaryFolder();
  const socketPath = join(folder.path, "s");
  const space = testSpace({ tensorParallel: ranks });
  const open = async () => {
    const pool = testPool();
    const disk = await DiskTier.open({ drives: [{ directory: join(folder.path, "disk"), capacityBytes: 2 ** 24 }] });
    const cache = await openTestCache({ pool, tiers: [disk] });
    const server = await WireServer.listen({ socketPath, cache, graceMs: 0 });
    const connect = (rank: number) => connectCache({ space, rank, slotBytes: [slotBytes], socketPath });
    const sessions = await Promise.all(Array.from({ length: ranks }, (_, rank) => connect(rank)));
    await cache.recovered(10_000);
    const close = async () => {
      await Promise.all(sessions.map((session) => session.close()));
      await server.close();
      await cache.close();
    };
    return { pool, cache, sessions, connect, close };
  };
  let now = await open();
  return {
    get now() {
      return now;
    },
    /** Another cache over the same disk. */
    async again() {
      await now.close();
      now = await open();
    },
    async [Symbol.asyncDispose]() {
      await now.close();
      folder[Symbol.dispose]();
    },
  };
}

async function reserveAll(sessions: readonly CacheLink[], text: Tokens): Promise<LeaseId[][]> {
  const reservations = await Promise.all(sessions.map((session) => session.reserve(bareRoot, text, wait)));
  return reservations.map(({ parts }) => parts.map(({ lease }) => lease));
}

const commit = (session: CacheLink, leases: readonly LeaseId[]) =>
  session.commit(
    leases.map((lease) => ({ lease, bytes: 512 })),
    wait,
  );

describe.each([2, 4])("%i ranks", (ranks) => {
  test("a chunk is found when all ranks have committed, and each rank loads what it wrote", async () => {
    await using all = await setUp(ranks);
    const { sessions, pool, cache } = all.now;
    for (const [rank, session] of sessions.entries()) {
      for (const each of sessions)
        expect(await each.lookup(bareRoot, tokens, wait)).toEqual({ hitTokens: 0, segments: [], worthTokens: 0 });
      expect(await loadAndVerify(session, pool, tokens, { rank })).toBe(0);
      expect(await save(session, pool, tokens, { rank })).toBe(3);
    }
    const offsets = new Set<number>();
    for (const [rank, session] of sessions.entries()) {
      expect((await session.lookup(bareRoot, tokens, wait)).segments).toEqual(prefix([10, "memory"]));
      expect(await loadAndVerify(session, pool, tokens, { rank })).toBe(10);
      for await (const batch of session.load(bareRoot, tokens, 0, { ...wait, onlyReady: true })) {
        for (const { slot } of batch) offsets.add(slot.offset);
        session.release(batch.map(({ lease }) => lease));
      }
    }
    expect(offsets.size).toBe(3 * ranks);
    expect(cache.stats()).toMatchObject({ savedChunks: 3, memory: { usedSlots: 3 * ranks } });
    cache.check();
    await cache.flush();
    await all.again();
    for (const [rank, session] of all.now.sessions.entries())
      expect(await loadAndVerify(session, all.now.pool, tokens, { rank })).toBe(10);
  });

  test.each(["first", "last", "by leaving"])(
    "one rank gives up (%s): never found, every slot goes back",
    async (how) => {
      await using all = await setUp(ranks);
      const { sessions, cache, pool } = all.now;
      const leases = await reserveAll(sessions, tokens);
      expect(leases.map((list) => list.length)).toEqual(Array(ranks).fill(3));
      const last = ranks - 1;
      const others = sessions.slice(0, last);
      const giveUp = async () => {
        if (how === "by leaving") await sessions[last]!.close();
        else sessions[last]!.abandon(leases[last]!);
        await expect.poll(() => cache.stats().abandonedChunks).toBeGreaterThanOrEqual(3);
      };
      if (how === "first") {
        await giveUp();
        // Nobody begins anew while others still write what was given up.
        expect((await reserveAll([sessions[last]!], tokens))[0]).toEqual([]);
      }
      for (const [rank, session] of others.entries()) await commit(session, leases[rank]!);
      if (how !== "first") await giveUp();
      for (const session of others)
        expect(await session.lookup(bareRoot, tokens, wait)).toEqual({
          hitTokens: 0,
          segments: [],
          worthTokens: 0,
        });
      expect(cache.stats()).toMatchObject({ leases: 0, savedChunks: 0, chunks: 0, memory: { usedSlots: 0 } });
      cache.check();

      // The text can be saved again, by all.
      const again = how === "by leaving" ? [...others, await all.now.connect(last)] : sessions;
      for (const [rank, session] of again.entries()) expect(await save(session, pool, tokens, { rank })).toBe(3);
      for (const [rank, session] of again.entries())
        expect(await loadAndVerify(session, pool, tokens, { rank })).toBe(10);
      await again[last]!.close();
    },
  );

  test("some chunks committed by all and some given up: the text is found up to the gap", async () => {
    await using all = await setUp(ranks);
    const { sessions, cache, pool } = all.now;
    const reservations = await Promise.all(sessions.map((session) => session.reserve(bareRoot, tokens, wait)));
    for (const [rank, session] of sessions.entries()) {
      const { parts } = reservations[rank]!;
      for (const { firstToken, tokenCount, slot } of parts)
        pool
          .view(slot.offset, 512)
          .set(payloadOf(tokens.subarray(firstToken, firstToken + tokenCount), firstToken, rank));
      const [first, second, tail] = parts.map(({ lease }) => lease);
      await commit(session, rank === 1 ? [first!, tail!] : [first!, second!, tail!]);
      if (rank === 1) session.abandon([second!]);
      await session.ping(wait);
    }
    expect(cache.stats().leases).toBe(0);
    for (const [rank, session] of sessions.entries()) {
      expect(await session.lookup(bareRoot, tokens, wait)).toMatchObject({ hitTokens: 4 });
      expect(await loadAndVerify(session, pool, tokens, { rank })).toBe(4);
      expect(await save(session, pool, tokens, { rank })).toBe(1);
    }
    expect((await sessions[0]!.lookup(bareRoot, tokens, wait)).hitTokens).toBe(10);
    cache.check();
  });
});
