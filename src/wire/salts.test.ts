/** No text that a client chooses ends a connection, or another's hits. */
import { join } from "node:path";
import * as fc from "fast-check";
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
} from "../../test/support/cache.ts";
import { rounds, seedOr, timeoutMs } from "../../test/support/depth.ts";
import { RepriseError } from "../errors.ts";
import { silentLog, type Log } from "../log.ts";
import { textBytes } from "../identity/text-bytes.ts";
import { connectCache } from "./guest/link.ts";
import { CacheControl } from "./guest/control.ts";
import { WireServer } from "./cache/server.ts";

const options = { space: testSpace(), rank: 0, slotBytes: [slotBytes] };

/** Any row of UTF-16 units, halves of characters among them; the longest has a million of them. */
const anyText = fc
  .record({
    units: fc.array(fc.oneof(fc.constantFrom(0, 0xd800, 0xdfff, 0xfeff, 0xfffd, 0x0a), fc.nat(0xffff)), {
      maxLength: 40,
    }),
    times: fc.oneof(fc.constant(1), fc.constantFrom(0, 26, 103, 1024, 26_215)),
  })
  .map(({ units, times }) => String.fromCharCode(...units).repeat(times));

async function setUp() {
  const folder = temporaryFolder();
  const pool = testPool();
  const cache = await openTestCache({ pool });
  const socketPath = join(folder.path, "s");
  const server = await WireServer.listen({ socketPath, cache });
  const close = async () => {
    await server.close();
    await cache.close();
    folder[Symbol.dispose]();
  };
  return { pool, cache, socketPath, [Symbol.asyncDispose]: close };
}

test(
  "texts of clients as salt, adapter and tenant are stored under and found; nobody's connection or hits end",
  async () => {
    await using all = await setUp();
    const lost: string[] = [];
    const log: Log = { ...silentLog, warn: (line) => lost.push(line) };
    const honest = await connectCache({ ...options, socketPath: all.socketPath });
    const odd = await connectCache({ ...options, socketPath: all.socketPath, log });
    const known = counting(40, 900_000);
    await save(honest, all.pool, known);
    await fc.assert(
      fc.asyncProperty(anyText, anyText, fc.option(anyText, { nil: undefined }), async (salt, adapter, tenant) => {
        const tokens = counting(8, 1 + (salt.length % 100));
        const root = { salt, adapter, tenant };
        await save(odd, all.pool, tokens, { root });
        expect(await loadAndVerify(odd, all.pool, tokens, { root })).toBe(8);
        // A salt that only differs in what plain UTF-8 cannot say is another.
        const [half, other] = ["\ud800", "\ud801"].map((end) => ({ ...root, salt: `${salt}x${end}` }));
        await save(odd, all.pool, tokens, { root: half! });
        expect((await odd.lookup(half!, tokens, wait)).hitTokens).toBe(8);
        expect((await odd.lookup(other!, tokens, wait)).hitTokens).toBe(0);
        expect(await loadAndVerify(honest, all.pool, known)).toBe(40);
      }),
      { numRuns: rounds({ small: 150, full: 2000 }), seed: seedOr(11) },
    );
    expect([lost, odd.isConnected, honest.isConnected]).toEqual([[], true, true]);
    all.cache.check();
    await Promise.all([honest.close(), odd.close()]);
  },
  timeoutMs(120_000),
);

test("numbers that no message can carry are brought within its limits, request by request", async () => {
  await using all = await setUp();
  const session = await connectCache({ ...options, socketPath: all.socketPath });
  const root = { salt: "", adapter: "" };
  const tokens = counting(8);
  await save(session, all.pool, tokens);
  const numbers = [Number.NaN, Infinity, -Infinity, -1, 0.5, 2 ** 60, 1e300];
  for (const number of numbers) {
    await session.lookup(root, tokens, { deadlineMs: 1000, computeMsPerToken: number });
    await session.lookup(root, tokens, { deadlineMs: number });
    for await (const batch of session.load(root, tokens, number, { deadlineMs: 1000 }))
      session.release(batch.map(({ lease }) => lease));
    await session.pin(root, tokens, number, wait);
    const { parts } = await session.reserve({ salt: `${number}`, adapter: "" }, counting(4), wait);
    expect(parts).toHaveLength(1);
    await session.commit([{ lease: parts[0]!.lease, bytes: number === 0.5 ? -4 : number }], wait);
    expect(session.holds(parts[0]!.lease)).toBe(false);
    expect(await session.ping(wait)).toBe(true);
  }
  expect(all.cache.stats().leases).toBe(0);
  await session.close();
});

test("more long texts than may wait are misses, and cost the connection nothing", async () => {
  await using all = await setUp();
  const lost: string[] = [];
  const log: Log = { ...silentLog, warn: (line) => lost.push(line) };
  const limits = { maxOutgoingBytes: 2 ** 20 };
  const session = await connectCache({ ...options, socketPath: all.socketPath, limits, log });
  const root = { salt: "", adapter: "" };
  const tokens = counting(8);
  await save(session, all.pool, tokens);
  const long = counting(200_000, 500);
  const asked = Array.from({ length: 40 }, () => session.lookup(root, long, wait));
  await Promise.all(asked);
  expect((await session.lookup(root, tokens, wait)).hitTokens).toBe(8);
  expect(lost).toEqual([]);
  await session.close();
});

test("a space or token that does not fit a message is refused with its name, before anything is sent", async () => {
  await using all = await setUp();
  const { socketPath } = all;
  const long = "x".repeat(5000);
  await expect(connectCache({ ...options, socketPath, space: testSpace({ weights: long }) })).rejects.toMatchObject({
    code: "BAD_REQUEST",
    field: "weights",
  });
  for (const token of [long, "\ud800"])
    await expect(connectCache({ ...options, socketPath, token })).rejects.toMatchObject({ field: "token" });
  const marked = await connectCache({ ...options, socketPath, space: testSpace({ weights: "\ufeffx" }) });
  expect(await marked.ping(wait)).toBe(true);
  await marked.close();
});

test("what fails in the cache is told to whoever asked, and the cache lives on", async () => {
  using folder = temporaryFolder();
  await using cache = await openTestCache({ tiers: [] });
  const refusing = {
    openSession: cache.openSession.bind(cache),
    stats: cache.stats.bind(cache),
    compact: cache.compact.bind(cache),
    clear: () => Promise.reject(new RepriseError("TIER_UNAVAILABLE", "the drive is gone")),
  };
  const socketPath = join(folder.path, "s");
  await using _server = await WireServer.listen({ socketPath, cache: refusing });
  await using control = await CacheControl.connect(socketPath);
  await expect(control!.clear()).rejects.toMatchObject({ code: "CACHE_UNAVAILABLE" });
  expect(await control!.stats()).toMatchObject({ sessions: 0 });
});

test("bytes of a text are UTF-8 where there is such, and differ where texts differ", () => {
  fc.assert(
    fc.property(anyText, anyText, (a, b) => {
      expect(textBytes(a).equals(textBytes(b))).toBe(a === b);
      expect(textBytes(`${a}\ud800x`).equals(textBytes(`${a}\ud801x`))).toBe(false);
      if (!/\p{Surrogate}/u.test(a)) expect(textBytes(a).toString("utf8")).toBe(a);
    }),
    { numRuns: 300, seed: 3 },
  );
});
