import { randomBytes } from "node:crypto";
import { spawnSync } from "node:child_process";
import { once } from "node:events";
import { statSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import {
  counting,
  loadAndVerify,
  openTestCache,
  save,
  slotBytes,
  temporaryFolder,
  testPool,
  testSpace,
  wait,
} from "../../../test/support/cache.ts";
import { rounds, seedOr, timeoutMs } from "../../../test/support/depth.ts";
import { helloMessage, RawGuest, rootFields } from "../../../test/support/raw-peer.ts";
import { bareRoot } from "../../identity/keys.ts";
import { tokenBytes } from "../../identity/tokens.ts";
import type { LoadedPart } from "../../session.ts";
import { RepriseError } from "../../errors.ts";
import { protocolVersion } from "../protocol.ts";
import { connectCache } from "../guest/link.ts";
import { CacheControl } from "../guest/control.ts";
import { encodeFrame } from "../frames.ts";
import { parseRequest } from "../protocol.ts";
import { WireServer, type WireServerOptions } from "./server.ts";

const options = { space: testSpace(), rank: 0, slotBytes: [slotBytes] };
const manyFrames = rounds({ small: 20_000, full: 100_000 });

async function setUp(change: Partial<WireServerOptions> = {}) {
  const folder = temporaryFolder();
  const pool = testPool();
  const cache = await openTestCache({ pool });
  const socketPath = join(folder.path, "s");
  const server = await WireServer.listen({ socketPath, cache, graceMs: 0, ...change });
  const close = async () => {
    await server.close();
    await cache.close();
    folder[Symbol.dispose]();
  };
  return { pool, cache, socketPath, server, [Symbol.asyncDispose]: close };
}

function textMessage(type: string, id: number, tokens: Uint32Array, more: object = {}): object {
  return { type, id, deadlineMs: 1000, ...rootFields, tokens: tokenBytes(tokens), ...more };
}

const aTurn = () => new Promise((resolve) => setImmediate(resolve));

/** Looked at in every turn: between two of poll's looks a connection may have come and gone. */
async function accepted(server: WireServer): Promise<void> {
  while (server.connections === 0) await aTurn();
}

test("the socket is the owner's alone, and a second server is told that one is there", async () => {
  await using all = await setUp();
  expect(statSync(all.socketPath).mode & 0o777).toBe(0o600);
  await expect(WireServer.listen({ socketPath: all.socketPath, cache: all.cache })).rejects.toMatchObject({
    code: "ADDRESS_IN_USE",
  });
  await expect(WireServer.listen({ socketPath: "/tmp/".padEnd(120, "x"), cache: all.cache })).rejects.toMatchObject({
    code: "BAD_CONFIG",
  });
});

test("the socket file of a dead server is replaced", async () => {
  using folder = temporaryFolder();
  const socketPath = join(folder.path, "s");
  spawnSync(process.execPath, [
    "-e",
    `require("net").createServer().listen(${JSON.stringify(socketPath)}, () => process.kill(process.pid, "SIGKILL"))`,
  ]);
  expect(statSync(socketPath).isSocket()).toBe(true);
  await using cache = await openTestCache();
  await using _server = await WireServer.listen({ socketPath, cache });
  const session = await connectCache({ ...options, socketPath });
  expect(await session.ping(wait)).toBe(true);
  await session.close();
});

test("only who knows the token enters, and refusals say why", async () => {
  await using all = await setUp({ token: "right" });
  const { socketPath } = all;
  await expect(connectCache({ ...options, socketPath, token: "wrong" })).rejects.toMatchObject({ code: "PROTOCOL" });
  await expect(connectCache({ ...options, socketPath })).rejects.toThrow("token");
  await expect(connectCache({ ...options, socketPath, token: "right", rank: 3 })).rejects.toMatchObject({
    code: "BAD_REQUEST",
  });
  const session = await connectCache({ ...options, socketPath, token: "right" });
  expect(await session.ping(wait)).toBe(true);
  await session.close();
  expect(all.cache.stats().sessions).toBe(0);
});

test("a guest that says nothing, half a frame or the wrong thing is disconnected", async () => {
  await using all = await setUp({ helloMs: 30, limits: { stallMs: 30 } });
  const silent = new RawGuest(all.socketPath);
  const half = new RawGuest(all.socketPath);
  half.socket.write(encodeFrame(helloMessage()).subarray(0, 20));
  const long = new RawGuest(all.socketPath);
  long.socket.write(Buffer.from([0, 0, 0, 1]));
  const early = new RawGuest(all.socketPath);
  early.send(textMessage("lookup", 1, counting(4), { computeNs: 0, awaited: false }));
  const twice = new RawGuest(all.socketPath);
  twice.send(helloMessage());
  twice.send(helloMessage());
  const stalled = new RawGuest(all.socketPath);
  stalled.send(helloMessage());
  stalled.socket.write(
    encodeFrame(textMessage("lookup", 2, counting(4), { computeNs: 0, awaited: false })).subarray(0, 9),
  );
  await Promise.all([silent, half, long, early, twice, stalled].map((guest) => guest.over()));
  expect(stalled.received.map(({ type }) => type)).toEqual(["welcome"]);
  await expect.poll(() => [all.server.connections, all.cache.stats().sessions]).toEqual([0, 0]);
});

test("a guest that has said hello is not turned away because nobody had time to read it", async () => {
  await using all = await setUp({ helloMs: 50 });
  const guest = new RawGuest(all.socketPath);
  if (guest.socket.connecting) await once(guest.socket, "connect");
  await accepted(all.server);
  await aTurn(); // timers come next, before what arrives
  guest.send(helloMessage()); // the system has it before this returns
  const busyUntil = performance.now() + 100; // or suspended
  while (performance.now() < busyUntil);
  await guest.until(() => guest.received.length > 0);
  expect(guest.received.map(({ type }) => type)).toEqual(["welcome"]);
});

test("a hello of another version is told which one is spoken here", async () => {
  await using all = await setUp();
  const newer = new RawGuest(all.socketPath);
  newer.send(helloMessage({ version: protocolVersion + 1 }));
  await newer.over();
  expect(newer.received).toMatchObject([
    { type: "error", code: "PROTOCOL", message: expect.stringContaining(`speaks ${protocolVersion}`) },
  ]);
});

test("who wants no session may look and clear, and is disconnected for asking more", async () => {
  await using all = await setUp();
  const session = await connectCache({ ...options, socketPath: all.socketPath });
  await save(session, all.pool, counting(8));
  {
    await using control = await CacheControl.connect(all.socketPath);
    expect(await control!.stats()).toMatchObject({ sessions: 1, savedChunks: 2 });
    expect(await control!.clear()).toEqual({ bytesByTier: { memory: 2 * slotBytes }, chunksInUse: 0 });
  }
  expect(await session.lookup(bareRoot, counting(8), wait)).toEqual({ hitTokens: 0, segments: [], worthTokens: 0 });
  expect(await save(session, all.pool, counting(8))).toBe(2);
  all.cache.check();
  for (const more of [
    textMessage("lookup", 2, counting(4), { computeNs: 0, awaited: false }),
    { type: "release", leases: [1] },
  ]) {
    const visitor = new RawGuest(all.socketPath);
    visitor.send(helloMessage({ space: null, rank: 0, slotBytes: [] }));
    await visitor.until(() => visitor.received.length > 0);
    visitor.send(more);
    await visitor.over();
    expect(visitor.received).toMatchObject([{ type: "welcome", spaceId: "", poolBytes: 0 }]);
  }
  expect(await CacheControl.connect(`${all.socketPath}-of-nobody`)).toBeUndefined();
  await session.close();
});

test("clearing under readers and writers: what they hold goes when they are done, nothing else is disturbed", async () => {
  await using all = await setUp();
  const session = await connectCache({ ...options, socketPath: all.socketPath });
  await save(session, all.pool, counting(8));
  const held: LoadedPart[] = [];
  for await (const batch of session.load(bareRoot, counting(8), 0, wait)) held.push(...batch);
  const { parts } = await session.reserve(bareRoot, counting(8, 500), wait);
  expect(await all.cache.clear()).toMatchObject({ chunksInUse: 4 });
  expect(held.map(({ lease }) => session.holds(lease))).toEqual([true, true]);
  await session.commit(
    parts.map(({ lease }) => ({ lease, bytes: 512 })),
    wait,
  );
  session.release(held.map(({ lease }) => lease));
  await session.ping(wait);
  expect(all.cache.stats()).toMatchObject({ chunks: 0, leases: 0, memory: { usedSlots: 0 } });
  all.cache.check();
  await session.close();
});

test("a guest that never reads is disconnected, and what it held falls", async () => {
  await using all = await setUp({ limits: { maxOutgoingBytes: 64 * 1024 } });
  const deaf = new RawGuest(all.socketPath, { reads: false });
  deaf.send(helloMessage());
  deaf.send(textMessage("reserve", 2, counting(40)));
  for (let id = 3; id < 4000; id += 1) deaf.send({ type: "stats", id, deadlineMs: 1000 });
  await accepted(all.server);
  await expect.poll(() => all.server.connections, { timeout: 10_000 }).toBe(0);
  expect(all.cache.stats()).toMatchObject({ leases: 0, sessions: 0 });
  expect(all.cache.stats().memory.usedSlots).toBe(0);
  all.cache.check();
  deaf.socket.destroy();
});

test("sessions dropped in the middle of loads and reservations leave nothing behind", async () => {
  await using all = await setUp();
  const honest = await connectCache({ ...options, socketPath: all.socketPath });
  await save(honest, all.pool, counting(400));
  for (let round = 0; round < 20; round += 1) {
    const guest = new RawGuest(all.socketPath);
    guest.send(helloMessage());
    guest.send(textMessage("load", 2, counting(400), { computeNs: 0, from: 0, onlyReady: false }));
    guest.send(textMessage("reserve", 3, counting(400, 1000 * (round + 1))));
    await guest.until(() => guest.received.length > round % 5);
    guest.socket.destroy();
  }
  await expect.poll(() => all.cache.stats().sessions).toBe(1);
  expect(all.cache.stats()).toMatchObject({ leases: 0, chunks: 100 });
  all.cache.check();
  expect(await loadAndVerify(honest, all.pool, counting(400))).toBe(400);
  await honest.close();
});

test("the slots of a broken connection are nobody else's until the grace is over", async () => {
  await using all = await setUp({ graceMs: 50 });
  const honest = await connectCache({ ...options, socketPath: all.socketPath });
  const guest = new RawGuest(all.socketPath);
  guest.send(helloMessage());
  guest.send(textMessage("reserve", 2, counting(8)));
  await guest.until(() => guest.received.length === 2);
  guest.socket.destroy();
  await guest.over();
  expect(await save(honest, all.pool, counting(8))).toBe(0);
  await expect.poll(() => all.cache.stats().leases).toBe(0);
  expect(await save(honest, all.pool, counting(8))).toBe(2);
  await honest.close();
});

/** Small and the same each time. */
function generator(seed: number): (limit: number) => number {
  let state = seed;
  return (limit) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * limit);
  };
}

function anyMessage(random: (limit: number) => number, id: number): object {
  const tokens = counting(random(20), random(3));
  const leases = [random(50), random(2 ** 31)];
  const messages = [
    textMessage("lookup", id, tokens, { computeNs: random(2) * 1000, awaited: false }),
    textMessage("load", id, tokens, { computeNs: random(2) * 1000, from: random(30), onlyReady: random(2) === 1 }),
    textMessage("reserve", id, tokens),
    { type: "commit", id, deadlineMs: 5, parts: [[random(50), random(20_000)]] },
    { type: "release", leases },
    { type: "abandon", leases },
    { type: "cancel", id: random(100) },
    { type: "ping", id, deadlineMs: 1 },
    { type: "clear", id, deadlineMs: 1 },
  ];
  return messages[random(messages.length)]!;
}

test(
  `${manyFrames} random and mutated frames: no crash, no lease or connection left, the next honest guest is served`,
  async () => {
    await using all = await setUp();
    const random = generator(seedOr(99));
    const one = async (): Promise<number> => {
      const guest = new RawGuest(all.socketPath);
      const frames: Buffer[] = [encodeFrame(helloMessage())];
      for (let id = 2; id < 52; id += 1) {
        const frame = encodeFrame(anyMessage(random, id));
        const kind = random(60);
        if (kind === 0) frame[random(frame.length)]! ^= 1 << random(8);
        if (kind === 1) frames.push(randomBytes(random(40)));
        frames.push(frame);
      }
      guest.socket.end(Buffer.concat(frames));
      await guest.over();
      return frames.length - 1;
    };
    for (let sent = 0; sent < manyFrames;)
      for (const frames of await Promise.all(Array.from({ length: 20 }, one))) sent += frames;
    await expect
      .poll(() => [all.server.connections, all.cache.stats().sessions, all.cache.stats().leases])
      .toEqual([0, 0, 0]);
    all.cache.check();
    const honest = await connectCache({ ...options, socketPath: all.socketPath });
    const tokens = counting(12, 5_000_000);
    expect(await save(honest, all.pool, tokens)).toBe(3);
    expect(await loadAndVerify(honest, all.pool, tokens)).toBe(12);
    await honest.close();
  },
  timeoutMs(60_000),
);

test("no bytes whatever make the parser do anything but refuse", () => {
  const random = generator(5);
  let refused = 0;
  for (let i = 0; i < 100_000; i += 1) {
    const body = i % 2 === 0 ? randomBytes(random(64)) : encodeFrame(anyMessage(random, i)).subarray(4);
    if (body.length > 0) body[random(body.length)] = random(256);
    try {
      parseRequest(body);
    } catch (error) {
      if (!(error instanceof RepriseError) || error.code !== "PROTOCOL") throw error;
      refused += 1;
    }
  }
  expect(refused).toBeGreaterThan(60_000);
});

test("a guest that has said bye and does not close its end keeps no server from closing", async () => {
  await using all = await setUp();
  const guest = new RawGuest(all.socketPath);
  guest.socket.allowHalfOpen = true;
  guest.send(helloMessage());
  await guest.until(() => guest.received.length > 0);
  guest.send({ type: "bye" });
  await expect.poll(() => all.server.connections).toBe(0);
  const began = performance.now();
  await all.server.close();
  expect(performance.now() - began).toBeLessThan(3000);
  guest.socket.destroy();
});
