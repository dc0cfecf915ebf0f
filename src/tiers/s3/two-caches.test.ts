/** Whole caches over a bucket: what one has written, another finds, loads and believes. */
import { afterAll, beforeEach, expect, test } from "vitest";
import {
  counting,
  loadAndVerify,
  openTestCache,
  save,
  slotBytes,
  testPool,
  testSpace,
  wait,
} from "../../../test/support/cache.ts";
import { sequentialRequests, startFakeS3 } from "../../../test/support/fake-s3.ts";
import { tierOf } from "../../../test/support/s3.ts";
import { bareRoot } from "../../identity/keys.ts";

const options = { space: testSpace(), rank: 0, slotBytes: [slotBytes] };
/** Tokens of 128 chunks of the test's space. */
const tokens = 512;

const fake = await startFakeS3();
afterAll(() => fake[Symbol.asyncDispose]());
beforeEach(() => {
  fake.objects.clear();
  fake.meddle = () => undefined;
});

async function opened(access: "read" | "all" = "all") {
  const pool = testPool();
  const cache = await openTestCache({ pool, tiers: [tierOf(fake, { access })], retryMs: 50 });
  const session = cache.openSession(options);
  return { cache, pool, session, [Symbol.asyncDispose]: () => cache.close() };
}

async function written(): Promise<void> {
  await using first = await opened();
  await save(first.session, first.pool, counting(tokens));
  await first.cache.flush();
}

test("what one cache has written another finds and loads, in at most three sequential round trips", async () => {
  await written();
  await using second = await opened();
  fake.meddle = () => ({ delayMs: 300 });
  fake.requests.length = 0;
  expect(await second.session.lookup(bareRoot, counting(tokens), wait)).toMatchObject({
    hitTokens: tokens,
    segments: [{ from: 0, to: tokens, tier: "s3" }],
  });
  expect(await loadAndVerify(second.session, second.pool, counting(tokens))).toBe(tokens);
  expect(sequentialRequests(fake.requests)).toBeLessThanOrEqual(3);
  const { s3 } = second.cache.stats().tiers;
  expect(s3).not.toHaveProperty("quota");
  await using limited = tierOf(fake, { maxBytes: 2 ** 30 });
  expect(limited.stats().quota).toEqual({ limitBytes: 2 ** 30 }); // what is used only its collector counts
  expect(s3).toMatchObject({ where: `s3://kv-cache/test at http://127.0.0.1:${fake.port}`, readChunks: 128 });
  expect(fake.requests.length).toBeLessThan(60);
  second.cache.check();
});

test("a store that only may be read is read, and takes nothing", async () => {
  await written();
  await using reader = await opened("read");
  const before = fake.objects.size;
  expect(await loadAndVerify(reader.session, reader.pool, counting(tokens))).toBe(tokens);
  expect(await save(reader.session, reader.pool, counting(40, 5000))).toBe(10);
  await reader.cache.flush();
  expect(fake.objects.size).toBe(before);
});

test("where writing is refused, reading goes on", async () => {
  await written();
  fake.meddle = ({ method }) => (method === "PUT" ? { status: 403, code: "AccessDenied" } : undefined);
  await using host = await opened();
  await save(host.session, host.pool, counting(40, 5000));
  await host.cache.flush();
  expect(host.cache.stats()).toMatchObject({ tiers: { s3: { refusedWrites: 10, failures: 0 } } });
  expect(await loadAndVerify(host.session, host.pool, counting(tokens))).toBe(tokens);
});

test("objects that vanish, are cut or changed while they are read are computed anew, and never believed", async () => {
  await written();
  for (const fault of [{ status: 404, code: "NoSuchKey" }, { cutAt: 10 }, { bentAt: 3 }, { status: 500 }]) {
    await using host = await opened();
    fake.meddle = ({ name }) => (name.includes("/d/") ? fault : undefined);
    const loaded = await loadAndVerify(host.session, host.pool, counting(tokens));
    expect(loaded, JSON.stringify(fault)).toBeLessThan(tokens);
    host.cache.check();
  }
  fake.meddle = () => undefined;
  await using host = await opened();
  expect(await loadAndVerify(host.session, host.pool, counting(tokens))).toBe(tokens);
});
