/** Guests that take what they can and give nothing back: what others find stays the same. */
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
import { helloMessage, RawGuest, rootFields } from "../../../test/support/raw-peer.ts";
import { bareRoot } from "../../identity/keys.ts";
import { tokenBytes } from "../../identity/tokens.ts";
import { connectCache } from "../guest/link.ts";
import { CacheControl } from "../guest/control.ts";
import { WireServer, type WireServerOptions } from "./server.ts";

/** Slots of 64 KiB: a pool of 64 MiB has a thousand. */
const large = { space: testSpace(), rank: 0, slotBytes: [65_536] };

async function setUp(change: Partial<WireServerOptions> = {}) {
  const folder = temporaryFolder();
  const pool = testPool();
  const clock = { now: 0 };
  const cache = await openTestCache({ pool, now: () => clock.now });
  const socketPath = join(folder.path, "s");
  const server = await WireServer.listen({ socketPath, cache, graceMs: 0, ...change });
  const close = async () => {
    await server.close();
    await cache.close();
    folder[Symbol.dispose]();
  };
  return { pool, clock, cache, socketPath, server, [Symbol.asyncDispose]: close };
}

test("a guest that reserves the whole pool gets half of it, keeps it five minutes, and is disconnected", async () => {
  await using all = await setUp({ leaseMs: 300_000 });
  await using quick = await setUp({ leaseMs: 100 });
  for (const { cache, clock, socketPath, pool } of [all, quick]) {
    const honest = await connectCache({ ...large, socketPath });
    const root = { salt: "honest", adapter: "" };
    await save(honest, pool, counting(1600), { root });
    const greedy = await connectCache({ ...large, socketPath, reconnectMs: 60_000 });
    const { parts, full } = await greedy.reserve(bareRoot, counting(8000, 5000), wait);
    expect([parts.length, full]).toEqual([512, true]);
    const more = await greedy.reserve({ salt: "another", adapter: "" }, counting(8000, 5000), wait);
    expect([more.parts.length, more.full]).toEqual([0, true]);
    expect(await loadAndVerify(honest, pool, counting(1600), { root })).toBe(1600);
    if (cache === all.cache) {
      clock.now += 299_000;
      expect([greedy.isConnected, greedy.holds(parts[0]!.lease)]).toEqual([true, true]);
    } else {
      await honest.ping(wait); // what it gave back has arrived
      clock.now += 101;
      await expect.poll(() => cache.stats().leases).toBe(0);
      expect([greedy.isConnected, greedy.holds(parts[0]!.lease)]).toEqual([false, false]);
      expect(await save(honest, pool, counting(1600, 50_000), { root })).toBe(400);
    }
    expect(await loadAndVerify(honest, pool, counting(1600), { root })).toBe(1600);
    expect(honest.isConnected).toBe(true);
    cache.check();
    await Promise.all([honest.close(), greedy.close()]);
  }
});

test("what a disconnected guest may still be writing is nobody else's until the grace is over", async () => {
  await using all = await setUp({ leaseMs: 20, graceMs: 300 });
  const guest = await connectCache({ ...large, socketPath: all.socketPath, reconnectMs: 60_000 });
  const { parts } = await guest.reserve(bareRoot, counting(4), wait);
  all.clock.now = 21;
  await expect.poll(() => guest.isConnected).toBe(false);
  expect(guest.holds(parts[0]!.lease)).toBe(false);
  const gone = performance.now();
  expect(all.cache.stats()).toMatchObject({ leases: 1, memory: { usedSlots: 1 } });
  await expect.poll(() => all.cache.stats().memory.usedSlots).toBe(0);
  expect(performance.now() - gone).toBeGreaterThan(150);
  await guest.close();
});

test("a guest that gives its leases back is never too old", async () => {
  await using all = await setUp({ leaseMs: 50 });
  const session = await connectCache({ ...large, socketPath: all.socketPath });
  await save(session, all.pool, counting(8));
  for (let i = 0; i < 20; i += 1) {
    expect(await loadAndVerify(session, all.pool, counting(8))).toBe(8);
    all.clock.now += 40;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  expect(session.isConnected).toBe(true);
  await session.close();
});

test("a thousand connections that leave at once cost others nothing, and leave nothing behind", async () => {
  await using all = await setUp({ graceMs: 50 });
  const honest = await connectCache({
    space: testSpace(),
    rank: 0,
    slotBytes: [slotBytes],
    socketPath: all.socketPath,
  });
  await save(honest, all.pool, counting(400));
  for (let round = 0; round < 5; round += 1) {
    const guests = Array.from({ length: 200 }, (_, number) => {
      const guest = new RawGuest(all.socketPath);
      guest.send(helloMessage());
      const tokens = tokenBytes(counting(40, 1000 * (number + 200 * round)));
      guest.send({ type: "reserve", id: 2, deadlineMs: 1000, ...rootFields, tokens });
      return guest;
    });
    await Promise.all(guests.map((guest) => guest.until(() => guest.received.length === 2)));
    expect(guests.filter(({ received }) => received[1]?.type === "reserved")).toHaveLength(200);
    for (const guest of guests) guest.socket.destroy();
    expect(await loadAndVerify(honest, all.pool, counting(400))).toBe(400);
    await expect.poll(() => all.cache.stats().sessions).toBe(1);
  }
  expect(honest.isConnected).toBe(true);
  expect(all.cache.stats()).toMatchObject({ leases: 0, chunks: 100 });
  all.cache.check();
  await honest.close();
}, 30_000);

test("one guest too many is told so, those who are there are served, and room that comes free is given", async () => {
  await using all = await setUp({ maxConnections: 3 });
  const guests = await Promise.all([0, 1, 2].map(() => connectCache({ ...large, socketPath: all.socketPath })));
  await expect(connectCache({ ...large, socketPath: all.socketPath })).rejects.toMatchObject({ code: "QUEUE_FULL" });
  await expect(CacheControl.connect(all.socketPath)).rejects.toMatchObject({ code: "QUEUE_FULL" });
  const crowd = Array.from({ length: 100 }, () => new RawGuest(all.socketPath));
  for (const guest of crowd) guest.send(helloMessage());
  await Promise.all(crowd.map((guest) => guest.over()));
  expect(all.cache.stats().sessions).toBe(3);
  for (const guest of guests) expect(await guest.ping(wait)).toBe(true);
  await guests[0]!.close();
  const next = await connectCache({ ...large, socketPath: all.socketPath });
  expect(await next.ping(wait)).toBe(true);
  await Promise.all([...guests, next].map((guest) => guest.close()));
});
