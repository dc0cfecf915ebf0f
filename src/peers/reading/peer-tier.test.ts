import { expect, test } from "vitest";
import { allThere, peersOf, startHost } from "../../../test/support/peers.ts";

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
  expect(near.cache.stats().writeBehind.byTier).toEqual({});
});

for (const bytes of [1, 4096, 5000, 1_048_576, 1_048_577, 3_000_000])
  test(`payloads of ${bytes} bytes arrive as they are`, async () => {
    const size = { slotBytes: 4 * 1024 * 1024, poolBytes: 128 * 1024 * 1024 };
    await using far = await startHost(size);
    await far.save(20, bytes);
    await using near = await startHost({ ...size, tiers: [await peersOf([far.address])] });
    expect(await near.load(20, bytes)).toBe(20);
    expect(near.cache.stats()).toMatchObject({ corruptRecords: 0, tierFailures: 0 });
    void allThere;
  });
