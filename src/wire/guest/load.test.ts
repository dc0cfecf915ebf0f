/** Loads over the socket: what is said first, what comes together, and what is left where it is. */
import { once } from "node:events";
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
  prefix,
} from "../../../test/support/cache.ts";
import { helloMessage, RawGuest, rootFields } from "../../../test/support/raw-peer.ts";
import { gated } from "../../../test/support/late-tier.ts";
import { SharedStore, SharedTier } from "../../../test/support/shared-tier.ts";
import { bareRoot } from "../../identity/keys.ts";
import { tokenBytes, type Tokens } from "../../identity/tokens.ts";
import type { Found, Lookup } from "../../session.ts";
import { DiskTier } from "../../tiers/disk/disk-tier.ts";
import { nodeFiles, type DiskFile, type DiskFiles } from "../../tiers/disk/files.ts";
import { connectCache } from "./link.ts";
import { WireServer } from "../cache/server.ts";

const options = { space: testSpace(), rank: 0, slotBytes: [slotBytes] };
const tokens = counting(40); // ten chunks

/** A cache over a disk, with a guest; `again` closes it and opens one over the same disk, with nothing in memory. */
async function setUp() {
  const folder = temporaryFolder();
  const socketPath = join(folder.path, "s");
  const open = async (files: DiskFiles = nodeFiles) => {
    const pool = testPool();
    const disk = await DiskTier.open({
      drives: [{ directory: join(folder.path, "disk"), capacityBytes: 2 ** 24 }],
      files,
    });
    const cache = await openTestCache({ pool, tiers: [disk] });
    const server = await WireServer.listen({ socketPath, cache });
    const session = await connectCache({ ...options, socketPath });
    await cache.recovered(10_000);
    const close = async () => {
      await session.close();
      await server.close();
      await cache.close();
    };
    return { pool, cache, session, close };
  };
  let now = await open();
  return {
    socketPath,
    get now() {
      return now;
    },
    async again(files?: DiskFiles) {
      await now.close();
      now = await open(files);
    },
    async [Symbol.asyncDispose]() {
      await now.close();
      folder[Symbol.dispose]();
    },
  };
}

/** The answers to one load, frame by frame. */
async function rawLoad(socketPath: string, text: Tokens, { from = 0, onlyReady = false } = {}) {
  const guest = new RawGuest(socketPath);
  guest.send(helloMessage());
  guest.send({
    type: "load",
    id: 2,
    deadlineMs: 5000,
    ...rootFields,
    tokens: tokenBytes(text),
    computeNs: 0,
    from,
    onlyReady,
  });
  await guest.until(() => guest.received.at(-1)?.type === "loaded");
  guest.send({ type: "bye" });
  await guest.over();
  return guest.received.slice(1);
}

test("what is in memory comes in one message, after what was found", async () => {
  await using all = await setUp();
  await save(all.now.session, all.now.pool, tokens);
  const answers = await rawLoad(all.socketPath, tokens, { from: 9 });
  expect(answers.map(({ type }) => type)).toEqual(["found", "parts", "loaded"]);
  expect(answers[0]).toEqual({
    type: "found",
    id: 2,
    segments: [[0, 0, 0, 40, 1]],
    worthTokens: 40,
    more: false,
  });
  const tuples = answers[1]!["parts"] as number[][];
  expect(tuples.map(([, , , firstToken]) => firstToken)).toEqual([8, 12, 16, 20, 24, 28, 32, 36]);
  const shapes = tuples.map(([, group, kind, first, count, skip, take, target, tier, , bytes]) => {
    return [group, kind, count, skip, take, target! - first!, tier, bytes]; // rows of eleven
  });
  expect(shapes).toEqual(tuples.map(() => [0, 0, 4, 0, 4, 0, 1, 512]));
  expect((await rawLoad(all.socketPath, counting(40, 7000))).map(({ type }) => type)).toEqual(["found", "loaded"]);
});

test("a text that is partly on disk: memory's part at once, the rest in order, however the reads end", async () => {
  await using all = await setUp();
  await save(all.now.session, all.now.pool, tokens);
  const disk = lastReadFirst();
  await all.again(disk.files);
  const { session, pool, cache } = all.now;
  expect(await loadAndVerify(session, pool, tokens.subarray(0, 12))).toBe(12);

  const found: Lookup[] = [];
  const tiers: string[] = [];
  const firsts: number[] = [];
  const batches: number[] = [];
  for await (const batch of session.load(bareRoot, tokens, 0, { ...wait, onFound: (what) => found.push(what) })) {
    batches.push(batch.length);
    tiers.push(...batch.map(({ tier }) => tier));
    firsts.push(...batch.map(({ firstToken }) => firstToken));
    session.release(batch.map(({ lease }) => lease));
  }
  expect(found).toEqual([
    { hitTokens: 40, segments: prefix([12, "memory"], [28, "disk"]), worthTokens: 40, more: false },
  ]);
  expect(batches[0]).toBe(3);
  expect(Math.max(...batches.slice(1))).toBeGreaterThan(1); // several were ready when the first of them was
  expect(firsts).toEqual([0, 4, 8, 12, 16, 20, 24, 28, 32, 36]);
  expect(tiers).toEqual([...Array<string>(3).fill("memory"), ...Array<string>(7).fill("disk")]);
  expect(disk.mostWaiting()).toBeGreaterThan(1);
  expect(await loadAndVerify(session, pool, tokens)).toBe(40);
  await expect.poll(() => cache.stats().leases).toBe(0);
  cache.check();
});

test("onlyReady: the leading run in memory and nothing else; nothing is read from below", async () => {
  await using all = await setUp();
  await save(all.now.session, all.now.pool, tokens);
  await all.again();
  const { session, pool, cache } = all.now;
  expect((await rawLoad(all.socketPath, tokens, { onlyReady: true })).map(({ type }) => type)).toEqual([
    "found",
    "loaded",
  ]);
  expect(cache.stats()).toMatchObject({ memory: { usedSlots: 0 }, loadedTokens: {}, lookups: 1 });

  await loadAndVerify(session, pool, tokens.subarray(0, 12));
  const [found, parts, loaded] = await rawLoad(all.socketPath, tokens, { onlyReady: true });
  expect(found).toMatchObject({
    segments: [
      [0, 0, 0, 12, 1],
      [0, 12, 12, 40, 2],
    ],
    worthTokens: 40,
  });
  expect((parts!["parts"] as number[][]).map(([, , , firstToken]) => firstToken)).toEqual([0, 4, 8]);
  expect(loaded!.type).toBe("loaded");
  // Beyond the run there is nothing to have, though some of it may be asked for.
  expect((await rawLoad(all.socketPath, tokens, { from: 12, onlyReady: true })).map(({ type }) => type)).toEqual([
    "found",
    "loaded",
  ]);
  expect(cache.stats().memory.usedSlots).toBe(3);
  expect(cache.stats().leases).toBe(0);
});

/** A disk that ends the reads that are under way in the reverse of the order in which they were begun. */
function lastReadFirst(): { files: DiskFiles; mostWaiting: () => number } {
  const waiting: (() => void)[] = [];
  let most = 0;
  const slow = (file: DiskFile): DiskFile => ({
    ...file,
    async read(into, position) {
      const bytes = await file.read(into, position);
      await new Promise<void>((resolve) => {
        waiting.push(resolve);
        most = Math.max(most, waiting.length);
        setTimeout(() => waiting.pop()?.(), 2);
      });
      return bytes;
    },
  });
  const open = async (path: string) => slow(await nodeFiles.open(path));
  return { files: { ...nodeFiles, open }, mostWaiting: () => most };
}

test("over the socket too a lookup says at once what is here, and a load whether others may have more", async () => {
  using folder = temporaryFolder();
  const tier = new SharedTier(new SharedStore());
  const gate = gated();
  tier.beforeFind = () => gate.promise;
  const cache = await openTestCache({ pool: testPool(), tiers: [tier] });
  const server = await WireServer.listen({ socketPath: join(folder.path, "s"), cache });
  const session = await connectCache({ ...options, socketPath: join(folder.path, "s") });
  const said: boolean[] = [];
  const onFound = ({ more }: Found) => said.push(more);
  for await (const _ of session.load(bareRoot, tokens, 0, { ...wait, onlyReady: true, onFound }));
  const answer = new Promise<Lookup>((resolve) => {
    const onAsk = (known: Lookup) => {
      gate.open();
      resolve(known);
    };
    void session.lookup(bareRoot, tokens, { ...wait, onAsk }).then(({ hitTokens }) => said.push(hitTokens > 0));
  });
  expect(await answer).toMatchObject({ hitTokens: 0 });
  await expect.poll(() => said).toEqual([true, false]);
  await session.close();
  await server.close();
  await cache.close();
});

for (const how of ["calls it off", "goes"] as const)
  test(`a guest that ${how} in the middle of a load, a prefetch or a pin: no more is read, and no lease is left`, async () => {
    const store = new SharedStore(256 * 2 ** 20);
    const large = { ...options, slotBytes: [65_536] };
    const text = counting(1600); // 400 chunks, of which 65 are read at a time
    {
      const pool = testPool();
      await using far = await openTestCache({ pool, tiers: [new SharedTier(store)] });
      await save(far.openSession(large), pool, text, { bytes: 65_536 });
      await far.flush();
    }
    using folder = temporaryFolder();
    const socketPath = join(folder.path, "s");
    const tier = new SharedTier(store, "valkey");
    const gate = gated();
    tier.beforeRead = (signal) => Promise.race([gate.promise, once(signal, "abort")]).then(() => {});
    await using cache = await openTestCache({ pool: testPool(), tiers: [tier] });
    await using _server = await WireServer.listen({ socketPath, cache });
    const guest = await connectCache({ ...large, socketPath });
    const client = new AbortController();
    const called = { ...wait, signal: client.signal };
    const verbs = [
      guest.prefetch(bareRoot, text, called),
      guest.pin(bareRoot, text, 60, called),
      (async () => {
        let parts = 0;
        for await (const batch of guest.load(bareRoot, text, 0, called)) parts += batch.length;
        return parts;
      })(),
    ];
    await expect.poll(() => tier.counts.reads).toBe(65);
    expect(cache.stats().leases).toBe(1200);
    if (how === "goes") await guest.close();
    else client.abort();
    expect(await Promise.all(verbs)).toEqual([0, 0, 0]);
    await expect.poll(() => cache.stats().leases).toBe(0);
    gate.open();
    if (how === "calls it off") {
      expect(await guest.lookup(bareRoot, text, wait)).toMatchObject({ hitTokens: 1600 }); // it is connected as before
      expect(await guest.prefetch(bareRoot, text, called)).toBe(0); // called off before it was asked for
      await guest.close();
    }
    expect(tier.counts.reads).toBe(65);
    expect(cache.stats()).toMatchObject({ pinnedBytes: 0, leases: 0 });
    cache.check();
  });
