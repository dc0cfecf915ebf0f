import { join } from "node:path";
import { expect, test } from "vitest";
import {
  counting,
  openTestCache,
  save,
  slotBytes,
  temporaryFolder,
  testPool,
  testSpace,
  wait,
} from "../../../test/support/cache.ts";
import { rawCache, type Message } from "../../../test/support/raw-peer.ts";
import { bareRoot } from "../../identity/keys.ts";
import type { LoadedPart } from "../../session.ts";
import { spaceId } from "../../identity/space.ts";
import { PoolMapping } from "../../ffi/pool-mapping.ts";
import { connectCache } from "./link.ts";
import { encodeFrame } from "../frames.ts";
import { protocolVersion } from "../protocol.ts";
import { tierTable } from "../../tier.ts";
import { WireServer } from "../cache/server.ts";

const options = { space: testSpace(), rank: 0, slotBytes: [slotBytes] };
const soon = { deadlineMs: 20 };

function welcome(message: Message): object {
  return {
    type: "welcome",
    id: message.id,
    version: protocolVersion,
    features: [],
    spaceId: spaceId(options.space),
    poolPath: "/nowhere",
    poolBytes: 2 ** 20,
    poolCapacityBytes: 2 ** 20,
  };
}

/** lease, group, kind, firstToken, tokenCount, skip, take, target, tier, offset, bytes */
const tuple = [5, 0, 0, 0, 4, 0, 4, 0, tierTable.memory.number, 0, 100];
const parts = { type: "parts", parts: [tuple] };

async function loadAll(
  session: { load: Awaited<ReturnType<typeof connectCache>>["load"] },
  deadline = soon,
): Promise<LoadedPart[]> {
  const chunks: LoadedPart[] = [];
  for await (const batch of session.load(bareRoot, counting(8), 0, deadline)) chunks.push(...batch);
  return chunks;
}

test("nobody there, and somebody who never answers, are both said in time", async () => {
  using folder = temporaryFolder();
  const socketPath = join(folder.path, "s");
  await expect(connectCache({ ...options, socketPath })).rejects.toMatchObject({ code: "CACHE_UNAVAILABLE" });
  const silent = await rawCache(socketPath, () => undefined);
  await expect(connectCache({ ...options, socketPath, connectMs: 20 })).rejects.toMatchObject({
    code: "CACHE_UNAVAILABLE",
  });
  silent.close();
});

test("a cache that falls silent is a miss at the deadline, and is then disconnected", async () => {
  using folder = temporaryFolder();
  const socketPath = join(folder.path, "s");
  const silent = await rawCache(socketPath, (message) => (message.type === "hello" ? welcome(message) : undefined));
  const session = await connectCache({ ...options, socketPath, pingMs: 60, reconnectMs: 1000 });
  expect(await session.lookup(bareRoot, counting(8), soon)).toEqual({ hitTokens: 0, segments: [], worthTokens: 0 });
  expect(await loadAll(session)).toEqual([]);
  expect(await session.reserve(bareRoot, counting(8), soon)).toEqual({ parts: [], full: true });
  await session.commit([], soon);
  await expect.poll(() => session.isConnected).toBe(false);
  await session.close();
  silent.close();
});

test("what comes after the deadline is not used, and its leases are given back", async () => {
  using folder = temporaryFolder();
  const socketPath = join(folder.path, "s");
  const waitingForCancel = new Map<number, () => void>();
  const late = await rawCache(socketPath, (message, socket) => {
    if (message.type === "hello") return welcome(message);
    if (message.type !== "load" && message.type !== "reserve") return undefined;
    // Answered as soon as the guest has given up.
    const answers =
      message.type === "load"
        ? [
            {
              type: "found",
              id: message.id,
              segments: [[0, 0, 0, 4, tierTable.memory.number]],
              worthTokens: 4,
              more: false,
            },
            { ...parts, id: message.id },
            { type: "loaded", id: message.id },
          ]
        : [{ type: "reserved", id: message.id, full: false, parts: [[6, 0, 0, 4, 4096, 100]] }];
    waitingForCancel.set(message.id!, () => answers.forEach((answer) => socket.write(encodeFrame(answer))));
    return undefined;
  });
  const session = await connectCache({ ...options, socketPath });
  expect(await loadAll(session)).toEqual([]);
  expect(await session.reserve(bareRoot, counting(8), soon)).toEqual({ parts: [], full: true });
  await expect.poll(() => late.messages.filter(({ type }) => type === "cancel")).toHaveLength(2);
  for (const { type, id } of late.messages) if (type === "cancel") waitingForCancel.get(id!)?.();
  await expect
    .poll(() => late.messages.slice(-2))
    .toEqual([
      { type: "release", leases: [5] },
      { type: "abandon", leases: [6] },
    ]);
  await session.close();
  late.close();
});

test("a cache that sends nonsense is disconnected: slots outside the pool, unknown tiers and groups, numbers nobody used, half a frame", async () => {
  using folder = temporaryFolder();
  const nonsense: ((message: Message) => object | Buffer)[] = [
    (message) => ({ ...parts, id: message.id, parts: [tuple, tuple.with(9, 2 ** 20)] }),
    (message) => ({ ...parts, id: message.id, parts: [tuple.with(8, 99)] }),
    (message) => ({ ...parts, id: message.id, parts: [tuple.with(1, 1)] }),
    (message) => ({ ...parts, id: message.id! + 100 }),
    (message) => ({ ...parts, id: message.id, extra: 1 }),
    () => Buffer.from([50, 0, 0, 0, 1, 2, 3]),
  ];
  for (const [i, make] of nonsense.entries()) {
    const socketPath = join(folder.path, String(i));
    const cache = await rawCache(socketPath, (message, socket) => {
      if (message.type === "hello") return welcome(message);
      if (message.type !== "load") return undefined;
      const reply = make(message);
      if (!Buffer.isBuffer(reply)) return reply;
      socket.write(reply);
      return undefined;
    });
    const session = await connectCache({ ...options, socketPath, reconnectMs: 60_000, limits: { stallMs: 20 } });
    expect(await loadAll(session, wait)).toEqual([]);
    expect(session.isConnected).toBe(false);
    await session.close();
    cache.close();
  }
});

test("while the cache is gone everything misses at once; when it is back, with another pool, everything works again", async () => {
  using folder = temporaryFolder();
  const socketPath = join(folder.path, "s");
  const cache = await openTestCache();
  const server = await WireServer.listen({ socketPath, cache });
  const pools: string[] = [];
  const session = await connectCache({
    ...options,
    socketPath,
    reconnectMs: 5,
    onPoolChanged: ({ path }) => pools.push(path),
  });
  const mapping = PoolMapping.open(session.pool.path, session.pool.bytes);
  await save(session, { view: (offset, bytes) => mapping.slot(offset, bytes) }, counting(8));
  const held = await loadAll(session, wait);
  expect(held.map(({ lease }) => session.holds(lease))).toEqual([true, true]);
  await server.close();
  await cache.close();
  await expect.poll(() => session.isConnected).toBe(false);
  expect(held.map(({ lease }) => session.holds(lease))).toEqual([false, false]);
  expect(await session.lookup(bareRoot, counting(8), wait)).toEqual({ hitTokens: 0, segments: [], worthTokens: 0 });
  expect(await session.reserve(bareRoot, counting(8), wait)).toEqual({ parts: [], full: true });
  session.release(held.map(({ lease }) => lease));

  const pool = testPool();
  await using again = await openTestCache({ pool });
  await using _server = await WireServer.listen({ socketPath, cache: again });
  await expect.poll(() => session.isConnected).toBe(true);
  expect(pools).toEqual([pool.path]);
  await save(session, pool, counting(8));
  expect(await loadAll(session, wait)).toHaveLength(2);
  // Leases of the first connection mean nothing to the second.
  session.release(held.map(({ lease }) => lease));
  expect(again.stats().leases).toBe(2);
  mapping.close();
  await session.close();
});

test("a loop that is left early gives its leases back", async () => {
  using folder = temporaryFolder();
  const socketPath = join(folder.path, "s");
  const pool = testPool();
  await using cache = await openTestCache({ pool });
  await using _server = await WireServer.listen({ socketPath, cache });
  const session = await connectCache({ ...options, socketPath });
  await save(session, pool, counting(40));
  for await (const batch of session.load(bareRoot, counting(40), 0, wait)) {
    session.release(batch.map(({ lease }) => lease));
    break;
  }
  await expect.poll(() => cache.stats().leases).toBe(0);
  await session.close();
});

test("a cache that does not read is disconnected", async () => {
  using folder = temporaryFolder();
  const socketPath = join(folder.path, "s");
  const deaf = await rawCache(socketPath, (message, socket) => {
    if (message.type !== "hello") return undefined;
    socket.pause();
    return welcome(message);
  });
  const limits = { maxOutgoingBytes: 2 ** 20 };
  const session = await connectCache({ ...options, socketPath, pingMs: 500, reconnectMs: 60_000, limits });
  const long = counting(100_000);
  const waits = Array.from({ length: 20 }, () => session.lookup(bareRoot, long, wait));
  expect((await Promise.all(waits)).every(({ hitTokens }) => hitTokens === 0)).toBe(true);
  expect(session.isConnected).toBe(false);
  await session.close();
  deaf.close();
}, 10_000);

test("slots of a commit that the cache refuses, or answers too late, are given back", async () => {
  using folder = temporaryFolder();
  const socketPath = join(folder.path, "s");
  let refuses = true;
  const busy = await rawCache(socketPath, (message) => {
    if (message.type === "hello") return welcome(message);
    if (message.type === "reserve")
      return { type: "reserved", id: message.id, full: false, parts: [[refuses ? 6 : 7, 0, 0, 4, 4096, 100]] };
    if (message.type !== "commit" || !refuses) return undefined;
    return { type: "error", id: message.id, code: "QUEUE_FULL", message: "1024 requests wait already" };
  });
  const session = await connectCache({ ...options, socketPath });
  const given = () => busy.messages.filter(({ type }) => type === "abandon").map(({ leases }) => leases);
  for (const [refused, lease] of [
    [true, 6],
    [false, 7],
  ] as const) {
    refuses = refused;
    const { parts: reserved } = await session.reserve(bareRoot, counting(4), { deadlineMs: 1000 });
    await session.commit([{ lease: reserved[0]!.lease, bytes: 10 }], soon);
    await expect.poll(() => given().at(-1)).toEqual([lease]);
  }
  await session.close();
  busy.close();
});
