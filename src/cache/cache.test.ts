import { afterEach, expect, test } from "vitest";
import {
  counting,
  loadAll,
  loadAndVerify,
  openTestCache,
  payloadOf,
  save,
  slotBytes,
  temporaryFolder,
  testPool,
  testSpace,
  text,
  wait,
  prefix,
} from "../../test/support/cache.ts";
import { gated, lateReads } from "../../test/support/late-tier.ts";
import { filesThrough } from "../../test/support/disk.ts";
import { DiskTier } from "../tiers/disk/disk-tier.ts";
import { leavesOf } from "../tiers/payload-checksum.ts";
import type { DiskFile, DiskFiles } from "../tiers/disk/files.ts";
import type { Cache } from "./cache.ts";
import { bareRoot } from "../identity/keys.ts";
import { type Tokens } from "../identity/tokens.ts";
import type { CacheSession, LoadedPart } from "../session.ts";

const space = testSpace();
const options = { space, rank: 0, slotBytes: [slotBytes] };
/** Eight slots fill the smallest pool. */
const eighth = 8 * 1024 * 1024;

const open = new Set<Cache>();
afterEach(async () => {
  for (const cache of open) await cache.close();
  open.clear();
});

async function setUp(change: Parameters<typeof openTestCache>[0] = {}) {
  const pool = testPool();
  const cache = await openTestCache({ pool, ...change });
  open.add(cache);
  const session = cache.openSession(options);
  await cache.recovered(1000);
  return { cache, pool, session };
}

async function hits(session: CacheSession, tokens: Tokens): Promise<number> {
  return (await session.lookup(bareRoot, tokens, wait)).hitTokens;
}

test("what was committed is found token by token and read as it was written", async () => {
  const { cache, pool, session } = await setUp();
  const tokens = counting(11);
  expect(await save(session, pool, tokens)).toBe(3);
  expect(await save(session, pool, tokens)).toBe(0);
  expect(await hits(session, counting(6))).toBe(6);
  expect(await hits(session, text(1, 2, 3, 4, 5, 99))).toBe(5);
  expect(await loadAndVerify(session, pool, tokens)).toBe(11);
  const [chunk] = await loadAll(session, text(1, 2, 3, 4, 5, 6, 99), 4);
  expect(chunk).toMatchObject({
    kind: "exact",
    firstToken: 4,
    tokenCount: 4,
    skip: 0,
    take: 2,
    target: 4,
    tier: "memory",
  });
  cache.check();
});

test("other salts and adapters see nothing", async () => {
  const { pool, session } = await setUp();
  await save(session, pool, counting(8));
  for (const root of [
    { salt: "a", adapter: "" },
    { salt: "", adapter: "a" },
  ])
    expect((await session.lookup(root, counting(8), wait)).hitTokens).toBe(0);
});

test("a reserved chunk is given to one writer and seen by nobody until it is committed", async () => {
  const { cache, session } = await setUp();
  const other = cache.openSession(options);
  const first = await session.reserve(bareRoot, counting(8), wait);
  expect(first.parts).toHaveLength(2);
  expect((await other.reserve(bareRoot, counting(8), wait)).parts).toHaveLength(0);
  expect(await hits(other, counting(8))).toBe(0);
  await session.close();
  cache.check();
  expect(cache.stats().memory.usedSlots).toBe(0);
  expect((await other.reserve(bareRoot, counting(8), wait)).parts).toHaveLength(2);
});

test("a chunk without those before it is not found, and is found once they are there again", async () => {
  const { cache, pool, session } = await setUp();
  const { parts } = await session.reserve(bareRoot, counting(8), wait);
  const [first, second] = parts;
  pool.view(second!.slot.offset, 512).set(payloadOf(counting(4, 5), 4));
  await session.commit([{ lease: second!.lease, bytes: 512 }], wait);
  session.abandon([first!.lease]);
  cache.check();
  expect(await hits(session, counting(8))).toBe(0);
  expect(await save(session, pool, counting(8))).toBe(1);
  expect(await loadAndVerify(session, pool, counting(8))).toBe(8);
});

test("a longer sibling replaces a tail, when the tail's reader is done", async () => {
  const { cache, pool, session } = await setUp();
  await save(session, pool, counting(2));
  const [tail] = await loadAll(session, counting(2));
  await save(session, pool, counting(4));
  expect(cache.stats().memory.usedSlots).toBe(2);
  expect(session.holds(tail!.lease)).toBe(true);
  session.release([tail!.lease]);
  expect(session.holds(tail!.lease)).toBe(false);
  expect(cache.stats().memory.usedSlots).toBe(1);
  expect(await save(session, pool, counting(3))).toBe(0);
  expect(await hits(session, counting(3))).toBe(3);
  cache.check();
});

test("with tensor parallelism a chunk is seen when every rank has committed", async () => {
  const { cache, pool } = await setUp();
  const parallel = testSpace({ tensorParallel: 2 });
  const ranks = [0, 1].map((rank) => cache.openSession({ space: parallel, rank, slotBytes: [slotBytes] }));
  const tokens = counting(6);
  const held = await ranks[0]!.reserve(bareRoot, tokens, wait);
  expect(await save(ranks[1]!, pool, tokens, { rank: 1 })).toBe(2);
  expect(await hits(ranks[1]!, tokens)).toBe(0);
  for (const { lease, firstToken, tokenCount, slot } of held.parts) {
    pool.view(slot.offset, 512).set(payloadOf(tokens.subarray(firstToken, firstToken + tokenCount), firstToken, 0));
    await ranks[0]!.commit([{ lease, bytes: 512 }], wait);
  }
  for (const rank of [0, 1]) expect(await loadAndVerify(ranks[rank]!, pool, tokens, { rank })).toBe(6);
  cache.check();
});

test("a full pool evicts leaves first, least recently used first, and never what is leased", async () => {
  const { cache, pool } = await setUp();
  const session = cache.openSession({ ...options, slotBytes: [eighth] });
  await save(session, pool, counting(16)); // four chunks
  await save(session, pool, counting(16, 100)); // four more: full
  const leased = await loadAll(session, counting(4));
  await save(session, pool, counting(8, 200));
  cache.check();
  expect(await hits(session, counting(16))).toBe(8);
  expect(await hits(session, counting(16, 100))).toBe(16);

  const rest = await session.reserve(bareRoot, counting(40, 300), wait);
  expect(rest.full).toBe(true);
  expect(rest.parts).toHaveLength(4); // half of the pool, as one guest may reserve
  expect(leased.every(({ lease }) => session.holds(lease))).toBe(true);
  cache.check();
});

test("a space in use takes room from one that no longer is", async () => {
  const { cache, pool } = await setUp();
  const session = cache.openSession({ ...options, slotBytes: [eighth] });
  await save(session, pool, counting(32));
  const other = cache.openSession({ space: testSpace({ engine: "other" }), rank: 0, slotBytes: [4096] });
  expect(await save(other, pool, counting(32))).toBe(8);
  expect(await loadAndVerify(other, pool, counting(32))).toBe(32);
  expect(await hits(session, counting(32))).toBe(0);
  cache.check();
});

test("limits: leases, chunks, tokens and sessions each have an answer", async () => {
  const limits = { openLeases: 3, chunksPerReservation: 2, tokensPerRequest: 16, sessions: 2 };
  const { cache, pool, session } = await setUp({ limits });
  expect(await session.reserve(bareRoot, counting(16), wait)).toMatchObject({ full: true, parts: [{}, {}] });
  await session.close();
  const again = cache.openSession(options);
  for (let i = 0; i < 3; i += 1) await save(again, pool, counting(16));
  expect(await hits(again, counting(20))).toBe(16);
  expect(await loadAll(again, counting(16))).toHaveLength(3);
  cache.openSession(options);
  expect(() => cache.openSession(options)).toThrow(expect.objectContaining({ code: "QUEUE_FULL" }));
  expect(() => cache.openSession({ ...options, rank: 1 })).toThrow(expect.objectContaining({ field: "rank" }));
  expect(() => cache.openSession({ ...options, slotBytes: [2 ** 40] })).toThrow(
    expect.objectContaining({ field: "slotBytes" }),
  );
});

function reading(counts: { reads: number; failing: boolean }): DiskFiles {
  const wrap = (file: DiskFile): DiskFile => ({
    ...file,
    read: (into, position) => {
      counts.reads += 1;
      return counts.failing ? Promise.reject(new Error("EIO")) : file.read(into, position);
    },
    write: (pieces, position, headers) =>
      counts.failing ? Promise.reject(new Error("EIO")) : file.write(pieces, position, headers),
  });
  return filesThrough(wrap);
}

const diskBytes = 64 * 1024 * 1024;

test("after a restart chunks come from disk, each read once however many ask", async () => {
  using folder = temporaryFolder();
  const tokens = counting(10);
  {
    const tier = await DiskTier.open({ drives: [{ directory: folder.path, capacityBytes: diskBytes }] });
    const { cache, pool, session } = await setUp({ tiers: [tier] });
    await save(session, pool, counting(9));
    await save(session, pool, tokens);
    await cache.flush();
    await cache.close();
  }
  const counts = { reads: 0, failing: false };
  const tier = await DiskTier.open({
    drives: [{ directory: folder.path, capacityBytes: diskBytes }],
    files: reading(counts),
    scrubBytesPerSecond: 0, // it reads too, when the test takes longer than a second
  });
  const { cache, pool, session } = await setUp({ tiers: [tier] });
  expect(await session.lookup(bareRoot, tokens, wait)).toEqual({
    hitTokens: 10,
    segments: prefix([10, "disk"]),
    worthTokens: 10,
  });
  counts.reads = 0;
  const other = cache.openSession(options);
  expect(await Promise.all([session, other].map((each) => loadAndVerify(each, pool, tokens)))).toEqual([10, 10]);
  expect(counts.reads).toBe(3);
  expect(await session.lookup(bareRoot, tokens, wait)).toEqual({
    hitTokens: 10,
    segments: prefix([10, "memory"]),
    worthTokens: 10,
  });
  expect(cache.stats().tiers.disk?.records).toBe(3);
  cache.check();
});

test("a tier that fails is a miss, is said once, and is used again later", async () => {
  using folder = temporaryFolder();
  const counts = { reads: 0, failing: true };
  const tier = await DiskTier.open({
    drives: [{ directory: folder.path, capacityBytes: diskBytes }],
    files: reading(counts),
  });
  const lines: string[] = [];
  const log = { debug() {}, info() {}, warn: (line: string) => void lines.push(line), error() {}, named: () => log };
  const { cache, pool, session } = await setUp({ tiers: [tier], retryMs: 300, log });
  await save(session, pool, counting(12));
  await cache.flush();
  expect(await loadAndVerify(session, pool, counting(12))).toBe(12);
  expect(lines).toHaveLength(1);
  counts.failing = false;
  await expect.poll(() => cache.stats().tiers.disk?.records, { timeout: 5000 }).toBe(3);
  cache.check();
});

test("a corrupt record is a miss, is dropped, and can be saved again", async () => {
  using folder = temporaryFolder();
  const counts = { reads: 0, failing: false };
  const files = reading(counts);
  const flip: DiskFiles = {
    ...files,
    create: async (path) => {
      const file = await files.create(path);
      return {
        ...file,
        read: async (into, position) => {
          const answer = await file.read(into, position);
          into.at(-1)![0]! ^= 1; // the payload's first byte
          return { ...answer, leaves: into.map(leavesOf) };
        },
      };
    },
  };
  const tier = await DiskTier.open({ drives: [{ directory: folder.path, capacityBytes: diskBytes }], files: flip });
  const { cache, pool } = await setUp({ tiers: [tier] });
  const session = cache.openSession({ ...options, slotBytes: [eighth] });
  await save(session, pool, counting(4));
  await cache.flush();
  await save(session, pool, counting(32, 100));
  expect(await session.lookup(bareRoot, counting(4), wait)).toEqual({
    hitTokens: 4,
    segments: prefix([4, "disk"]),
    worthTokens: 4,
  });
  expect(await loadAll(session, counting(4))).toEqual([]);
  expect(await hits(session, counting(4))).toBe(0);
  expect(cache.stats()).toMatchObject({ corruptRecords: 1, leases: 0 });
  expect(await save(session, pool, counting(4))).toBe(1);
  cache.check();
});

test("a load that is late ends without what is late; the read goes on for the next one", async () => {
  using folder = temporaryFolder();
  const { promise: gate, open: letGo } = gated();
  const files = lateReads(gate);
  const tier = await DiskTier.open({ drives: [{ directory: folder.path, capacityBytes: diskBytes }], files });
  const { cache, pool } = await setUp({ tiers: [tier] });
  const session = cache.openSession({ ...options, slotBytes: [eighth] });
  await save(session, pool, counting(4));
  await cache.flush();
  await save(session, pool, counting(32, 100));
  const late: LoadedPart[] = [];
  for await (const batch of session.load(bareRoot, counting(4), 0, { deadlineMs: 5 })) late.push(...batch);
  expect(late).toEqual([]);
  const closing = session.load(bareRoot, counting(4), 0, wait)[Symbol.asyncIterator]().next();
  const other = cache.openSession({ ...options, slotBytes: [eighth] });
  await session.close();
  letGo();
  expect((await closing).done).toBe(true);
  expect(await loadAndVerify(other, pool, counting(4))).toBe(4);
  expect(cache.stats()).toMatchObject({ lateLoads: 1, leases: 0 });
  cache.check();
});
