import { expect, test } from "vitest";
import { counting, temporaryFolder, prefix, testSpace } from "../test/support/cache.ts";
import { gated } from "../test/support/late-tier.ts";
import { within } from "./deadline.ts";
import { openCache } from "./index.ts";

const options = { name: "test engine", memoryBytes: 64 * 2 ** 20, bytesPerToken: 16, chunkTokens: 8 };

const fill = (firstToken: number, tokenCount: number, into: Uint8Array): number => {
  for (let i = 0; i < tokenCount; i += 1) into.fill(firstToken + i, 16 * i, 16 * (i + 1));
  return 16 * tokenCount;
};

test("what was saved is known, loaded and released", async () => {
  await using cache = await openCache(options);
  const tokens = counting(20);
  expect(await cache.save(tokens, fill)).toEqual({ savedTokens: 20 });
  expect(await cache.save(tokens, fill)).toEqual({ savedTokens: 0 });
  expect(await cache.lookup(counting(30))).toEqual({
    hitTokens: 20,
    segments: prefix([20, "memory"]),
    worthTokens: 20,
  });
  {
    using known = await cache.load(counting(18));
    expect(known.hitTokens).toBe(18);
    expect(known.chunks.map(({ target, take, bytes }) => [target, take, bytes[0], bytes.length])).toEqual([
      [0, 8, 0, 128],
      [8, 8, 8, 128],
      [16, 2, 16, 64],
    ]);
    expect(cache.stats().leases).toBe(3);
  }
  expect(cache.stats().leases).toBe(0);
});

test("a subscriber follows what is in memory and on disk until the cache is closed", async () => {
  using folder = temporaryFolder();
  const cache = await openCache({ ...options, directory: folder.path, diskBytes: 2 ** 22 });
  await cache.save(counting(8), fill);
  await cache.flush();
  const subscription = cache.subscribe({ tokens: true });
  const seen = [...subscription.held()].map(({ kind, tier, firstToken }) => `${kind} ${tier} ${firstToken}`);
  const following = (async () => {
    for await (const { events } of subscription)
      for (const event of events)
        if (event.kind !== "cleared") seen.push(`${event.kind} ${event.tier} ${event.firstToken}`);
  })();
  await cache.save(counting(16), fill);
  await cache.close();
  await following;
  expect(seen).toEqual(["stored memory 0", "recorded disk 0", "stored memory 8", "recorded disk 8"]);
});

test("another name, salt or adapter finds nothing", async () => {
  using folder = temporaryFolder();
  const tokens = counting(8);
  {
    await using cache = await openCache({ ...options, directory: folder.path, diskBytes: 2 ** 22 });
    await cache.save(tokens, fill, { root: { salt: "a" } });
    expect((await cache.lookup(tokens)).hitTokens).toBe(0);
    expect((await cache.lookup(tokens, { root: { salt: "a", adapter: "b" } })).hitTokens).toBe(0);
  }
  await using other = await openCache({
    ...options,
    name: "test engine 2",
    directory: folder.path,
    diskBytes: 2 ** 22,
  });
  expect((await other.lookup(tokens, { root: { salt: "a" } })).hitTokens).toBe(0);
});

test("a writer that fails costs its own chunk alone", async () => {
  await using cache = await openCache(options);
  const failing = (firstToken: number, tokenCount: number, into: Uint8Array): number => {
    if (firstToken === 8) throw new Error("the engine is tired");
    return fill(firstToken, tokenCount, into);
  };
  await expect(cache.save(counting(20), failing)).rejects.toThrow("tired");
  expect((await cache.lookup(counting(20))).hitTokens).toBe(8);
  await expect(cache.save(counting(20), () => 1000)).rejects.toMatchObject({ code: "BAD_REQUEST", field: "write" });
  expect(cache.stats()).toMatchObject({ leases: 0, chunks: 1 });
});

test("closing waits for a writer that has the cache's memory in its hands, and keeps what it writes", async () => {
  using folder = temporaryFolder();
  const all = { ...options, directory: folder.path, diskBytes: 2 ** 22 };
  const { promise, open } = gated();
  {
    await using cache = await openCache(all);
    const saving = cache.save(counting(20), (...chunk) => promise.then(() => fill(...chunk)));
    expect(await within(cache.close(), 200)).toBe("late");
    open();
    expect(await saving).toEqual({ savedTokens: 20 });
    await cache.close();
    expect(await cache.save(counting(20), fill)).toEqual({ savedTokens: 0 });
    expect((await cache.load(counting(20))).hitTokens).toBe(0);
  }
  await using cache = await openCache(all);
  expect((await cache.lookup(counting(20))).hitTokens).toBe(20);
});

test("a text is prefetched from disk, and no further when its signal has fired", async () => {
  using folder = temporaryFolder();
  const all = { ...options, directory: folder.path, diskBytes: 2 ** 22 };
  {
    await using cache = await openCache(all);
    await cache.save(counting(20), fill);
  }
  await using cache = await openCache(all);
  const tierOf = async () => (await cache.lookup(counting(20))).segments.map(({ tier }) => tier);
  expect(await tierOf()).toEqual(["disk"]);
  expect(await cache.prefetch(counting(20), { signal: AbortSignal.abort() })).toBe(0);
  expect(await tierOf()).toEqual(["disk"]);
  expect(await cache.prefetch(counting(30), { signal: new AbortController().signal })).toBe(20);
  expect(await tierOf()).toEqual(["memory"]);
  expect(await cache.prefetch(counting(20), { root: { salt: "another" } })).toBe(0);
  expect(cache.stats().leases).toBe(0);
});

test("options that cannot be served are refused, and the directory is free again", async () => {
  using folder = temporaryFolder();
  const all = { ...options, directory: folder.path, diskBytes: 2 ** 22 };
  await expect(openCache({ ...all, bytesPerToken: 0 })).rejects.toMatchObject({ field: "bytesPerToken" });
  await expect(openCache({ ...all, bytesPerToken: 2 ** 30 })).rejects.toMatchObject({ field: "slotBytes" });
  await expect(openCache({ ...all, diskBytes: 1 })).rejects.toMatchObject({ code: "BAD_CONFIG" });
  await using _cache = await openCache(all);
  await expect(openCache(all)).rejects.toMatchObject({ code: "DATA_DIRECTORY_IN_USE" });
});

test("what only types would have refused is refused by its name", async () => {
  const open = (change: object) => openCache({ ...options, ...change });
  for (const [field, change] of [
    ["directroy", { directroy: "/tmp/x" }],
    ["name", { name: undefined }],
    ["name", { name: "" }],
    ["name", { name: testSpace({ groups: ["rows", "snapshot"] }) }],
    ["memoryBytes", { memoryBytes: "2GiB" }],
    ["diskBytes", { diskBytes: 0 }],
  ] as const)
    await expect(open(change)).rejects.toMatchObject({ code: "BAD_REQUEST", field });
  await using cache = await openCache(options);
  const list = [1, 2, 3] as unknown as Uint32Array;
  for (const tokens of [list, new Uint8Array(4) as unknown as Uint32Array]) {
    const refused = { code: "BAD_REQUEST", field: "tokens" };
    await expect(cache.lookup(tokens)).rejects.toMatchObject(refused);
    await expect(cache.load(tokens)).rejects.toMatchObject(refused);
    await expect(cache.prefetch(tokens)).rejects.toMatchObject(refused);
    await expect(cache.save(tokens, () => 1)).rejects.toMatchObject(refused);
  }
});
