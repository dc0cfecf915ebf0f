import { once } from "node:events";
import { connect, createServer, type AddressInfo, type Socket } from "node:net";
import { expect, onTestFinished, test } from "vitest";
import { counting, temporaryFolder, testSpace } from "../../../test/support/cache.ts";
import { allThere, peersOf, startHost, type TestHost } from "../../../test/support/peers.ts";
import { bareRoot, chunkKeys, rootKey } from "../../identity/keys.ts";
import { spaceId } from "../../identity/space.ts";
import { DiskTier } from "../../tiers/disk/disk-tier.ts";
import { noSignal } from "../../tiers/tier-suite.ts";

const space = spaceId(testSpace());
const root = rootKey(space, bareRoot);
const large = { slotBytes: 4 * 1024 * 1024, poolBytes: 256 * 1024 * 1024 };

test("a host finds what another has read, in one question, and loads it byte for byte", async () => {
  await using far = await startHost();
  await far.save(402);
  const tier = await peersOf([far.address]);
  await using near = await startHost({ tiers: [tier] });
  expect(await near.hitTokens(402)).toBe(402);
  expect(await near.load(402)).toBe(402);
  expect(near.cache.stats().loadedTokens).toEqual({ peer: 402 });
  expect(await near.load(402)).toBe(402); // from its own memory now
  expect(near.cache.stats().loadedTokens).toEqual({ peer: 402, memory: 402 });
  expect(await near.load(30, 512, 5000)).toBe(0);
  expect(far.cache.stats().leases).toBe(0);
  expect(far.server.stats()).toMatchObject({ servedChunks: 101 });
  expect(near.cache.stats().writeBehind.byTier).toEqual({}); // nobody writes there
});

for (const bytes of [1, 4096, 5000, 1_048_576, 1_048_577, 3_000_000])
  test(`payloads of ${bytes} bytes arrive as they are`, async () => {
    await using far = await startHost(large);
    await far.save(20, bytes);
    await using near = await startHost({ ...large, tiers: [await peersOf([far.address])] });
    expect(await near.load(20, bytes)).toBe(20);
    expect(near.cache.stats()).toMatchObject({ corruptRecords: 0, tiers: { peer: { failures: 0 } } });
    await using next = await startHost({ ...large, tiers: [await peersOf([far.address])] });
    expect(await next.load(20, bytes)).toBe(20); // with the checksums that were noted
  });

test("what lies on the other host's disk is read from there, and stays there", async () => {
  using folder = temporaryFolder();
  const disk = await DiskTier.open({ drives: [{ directory: folder.path, capacityBytes: 64 * 2 ** 20 }] });
  await using far = await startHost({ tiers: [disk], poolBytes: 64 * 1024 * 1024, slotBytes: 1024 * 1024 });
  await far.save(40, 1_000_000);
  await far.cache.flush();
  await far.save(400, 1_000_000, 10_000); // the first text leaves memory
  expect(far.cache.stats().evictedChunks).toBeGreaterThanOrEqual(10);
  await using near = await startHost({ ...large, tiers: [await peersOf([far.address])] });
  const before = far.cache.stats().memory.usedBytes;
  expect(await near.load(40, 1_000_000)).toBe(40);
  expect(far.cache.stats()).toMatchObject({ leases: 0, loadedTokens: {} });
  expect(far.cache.stats().memory.usedBytes).toBe(before);
});

test("a question ends where it was asked: what a third host has is not found through the second", async () => {
  await using third = await startHost();
  await third.save(40);
  const between = await peersOf([third.address]);
  await using second = await startHost({ tiers: [between] });
  await second.save(20, 512, 500);
  await using first = await startHost({ tiers: [await peersOf([second.address])] });
  expect(await second.hitTokens(40)).toBe(40); // it knows where it is
  expect(await first.hitTokens(40)).toBe(0);
  expect(await first.hitTokens(20, 500)).toBe(20);
  expect(third.server.stats().servedChunks).toBe(0);
});

test("two hosts that read from each other end every question", async () => {
  await using one = await startHost();
  await one.save(20);
  const toOne = await peersOf([one.address]);
  await using two = await startHost({ tiers: [toOne] });
  await two.save(20, 512, 100);
  expect(await two.load(20)).toBe(20);
  expect(await two.hitTokens(24, 900)).toBe(0);
});

test("another root or space finds nothing, whatever keys it names", async () => {
  await using far = await startHost();
  await far.save(40);
  await using tier = await peersOf([far.address]);
  const keys = chunkKeys(root, counting(40), 4);
  expect(await tier.find(space, root, keys, noSignal)).toHaveLength(10);
  const other = rootKey(space, { salt: "another", adapter: "" });
  expect(await tier.find(space, other, keys, noSignal)).toEqual([]);
  expect(await tier.find(spaceId(testSpace({ weights: "01" })), root, keys, noSignal)).toEqual([]);
});

test("of several hosts the one that has the most is read, and a dead one costs the others nothing", async () => {
  await using little = await startHost();
  await using much = await startHost();
  await little.save(20);
  await much.save(40);
  const tier = await peersOf([little.address, much.address]);
  await using near = await startHost({ tiers: [tier] });
  expect(await near.load(40)).toBe(40);
  expect([little.server.stats().servedChunks, much.server.stats().servedChunks]).toEqual([0, 10]);
  await much.server.close();
  await little.save(40, 512, 7000);
  await expect.poll(() => Object.values(tier.stats().hosts)).toContain("away");
  expect(await near.load(40, 512, 7000)).toBe(40);
  expect(near.cache.stats().tiers.peer?.failures).toBe(0);
});

test("a host that comes back is used again", async () => {
  await using far = await startHost();
  await far.save(40);
  const tier = await peersOf([far.address]);
  await using near = await startHost({ tiers: [tier], retryMs: 20 });
  const { port } = far.server;
  await far.server.close();
  expect(await near.load(40)).toBe(0);
  expect(near.cache.stats().tiers.peer?.failures).toBe(1);
  await using again = await startHost({ server: { port } });
  await again.save(40);
  await allThere(tier);
  await expect.poll(() => near.load(40), { timeout: 10_000 }).toBe(40);
});

test("a chunk that has gone between question and read is a miss", async () => {
  await using far = await startHost();
  await far.save(40);
  const tier = await peersOf([far.address]);
  await using near = await startHost({ tiers: [tier] });
  expect(await near.hitTokens(40)).toBe(40);
  await far.cache.clear();
  expect(await near.load(40)).toBe(0);
  expect(near.cache.stats()).toMatchObject({ corruptRecords: 0, tiers: { peer: { failures: 0 } } });
});

/** Stands between two hosts and does what it is told to what the far one sends. */
async function between(far: TestHost) {
  const way = { change: (piece: Buffer): Buffer | undefined => piece, sockets: new Set<Socket>(), sentBytes: 0 };
  const server = createServer((near) => {
    const socket = connect(far.server.port, "127.0.0.1");
    for (const each of [near, socket]) {
      way.sockets.add(each);
      each.on("error", () => {});
    }
    near.pipe(socket);
    socket.on("data", (piece: Buffer) => {
      way.sentBytes += piece.length;
      const changed = way.change(piece);
      if (changed !== undefined) near.write(changed);
    });
    socket.on("close", () => near.destroy());
    near.on("close", () => socket.destroy());
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  onTestFinished(() => {
    for (const socket of way.sockets) socket.destroy();
    server.close();
  });
  return { ...far.address, port: (server.address() as AddressInfo).port, way };
}

test("bytes that the way has changed are a miss, are counted, and reach nobody", async () => {
  await using far = await startHost(large);
  await far.save(40, 1_000_000);
  const { way, ...address } = await between(far);
  const tier = await peersOf([address]);
  await using near = await startHost({ ...large, tiers: [tier] });
  let seen = 0;
  way.change = (piece) => {
    seen += piece.length;
    if (seen < 3_000_000 || piece.length < 1000) return piece;
    seen = -Infinity;
    const flipped = Buffer.from(piece);
    flipped[500]! ^= 1;
    return flipped;
  };
  const loaded = await near.load(40, 1_000_000); // compares every byte
  expect(loaded).toBeLessThan(40);
  expect(near.cache.stats().corruptRecords).toBe(1);
  expect(tier.stats().corruptRecords).toBe(1);
  expect(await near.load(40, 1_000_000)).toBe(40); // it is asked for anew
});

test("one that falls silent in a chunk costs its patience once; leases fall on both sides, and nothing is written late", async () => {
  await using far = await startHost({ ...large, server: { times: { stallMs: 1000 } } });
  await far.save(40, 4_000_000);
  const { way, ...address } = await between(far);
  const tier = await peersOf([address], { stallMs: 600, reconnectMs: 60_000 });
  await using near = await startHost({ ...large, tiers: [tier], retryMs: 60_000 });
  expect(await near.hitTokens(40)).toBe(40);
  let seen = 0;
  way.change = (piece) => ((seen += piece.length) < 6_000_000 ? piece : undefined);
  const began = performance.now();
  expect(await near.load(40, 4_000_000)).toBeLessThan(40);
  expect(performance.now() - began).toBeLessThan(4000);
  const again = performance.now();
  expect(await near.hitTokens(400, 90_000)).toBe(0);
  expect(performance.now() - again).toBeLessThan(200);
  expect(near.cache.stats()).toMatchObject({ leases: 0 });
  for (const socket of way.sockets) socket.destroy();
  await expect.poll(() => far.cache.stats().leases, { timeout: 5000 }).toBe(0);
  near.cache.check();
});

test("one that does not answer a question is left out within its patience, and asked again when it is back", async () => {
  await using far = await startHost();
  await far.save(40);
  const { way, ...address } = await between(far);
  const tier = await peersOf([address], { patienceMs: 200 });
  await using near = await startHost({ tiers: [tier] });
  way.change = () => undefined;
  const began = performance.now();
  expect(await near.hitTokens(40)).toBe(0);
  expect(performance.now() - began).toBeLessThan(700);
  expect(Object.values(tier.stats().hosts)).toEqual(["away"]);
  way.change = (piece) => piece;
  await expect.poll(() => near.hitTokens(40), { timeout: 10_000 }).toBe(40);
});

test("a text of 32,000 tokens is one round trip", async () => {
  await using far = await startHost({ space: { chunkTokens: 64 } });
  await far.save(32_000);
  const { way, ...address } = await between(far);
  const tier = await peersOf([address]);
  await using near = await startHost({ space: { chunkTokens: 64 }, tiers: [tier] });
  let answers = 0;
  let last = 0;
  way.change = (piece) => {
    if (performance.now() - last > 20) answers += 1;
    last = performance.now();
    return piece;
  };
  expect(await near.hitTokens(32_000)).toBe(32_000);
  expect(answers).toBe(1);
});
