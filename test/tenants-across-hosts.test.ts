/**
 * What a host stored for one tenant, another tenant of another host does not get, though it can list every name in the store and try every
 * key; and what the store's owner gets by copying values to other names.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { Redis } from "ioredis";
import { describe, expect, test } from "vitest";
import { chunkKeys, keyedRoot, type ChunkKey, type Root } from "../src/identity/keys.ts";
import { codeOf } from "../src/errors.ts";
import { spaceId } from "../src/identity/space.ts";
import type { Tier } from "../src/tier.ts";
import { readTierKeys, type TierKey } from "../src/tiers/shared/tier-keys.ts";
import { ValueTier } from "../src/tiers/shared/value-tier.ts";
import { noSignal } from "../src/tiers/tier-suite.ts";
import { parseValkeyAddress } from "../src/tiers/valkey/address.ts";
import { ValkeyStore } from "../src/tiers/valkey/valkey-store.ts";
import { counting, loadAndVerify, openTestCache, save, slotBytes, testPool, testSpace, wait } from "./support/cache.ts";
import { temporaryDirectory } from "./support/data-directory.ts";
import { startFakeS3 } from "./support/fake-s3.ts";
import { tierOf } from "./support/s3.ts";
import { programs, startStore } from "./support/valkey.ts";

/** A store as its owner has it: every name, every value. */
interface Store extends AsyncDisposable {
  tier(keys: readonly TierKey[]): Promise<Tier>;
  values(): Promise<ReadonlyMap<string, Buffer>>;
  put(name: string, value: Buffer): Promise<void>;
  remove(name: string): Promise<void>;
  /** Requests that it has answered. */
  asked(): Promise<number>;
}

const kinds: readonly { readonly name: string; readonly open: () => Promise<Store>; readonly isHere: boolean }[] = [
  { name: "Valkey", open: openValkey, isHere: programs.length > 0 },
  { name: "a bucket", open: openBucket, isHere: true },
];
const [tenantA, tenantB]: readonly Root[] = [
  { salt: "of tenant A", adapter: "" },
  { salt: "of tenant B", adapter: "" },
];
const text = counting(40);
const options = { space: testSpace(), rank: 0, slotBytes: [slotBytes] };
const space = spaceId(options.space);

/** A host: its cache, with an engine. */
async function hostOn(tier: Tier) {
  const pool = testPool();
  const cache = await openTestCache({ pool, tiers: [tier], retryMs: 50 });
  const session = cache.openSession(options);
  return {
    cache,
    save: async (root: Root, tokens = text) => {
      await save(session, pool, tokens, { root });
      await cache.flush();
    },
    load: (root: Root, tokens = text) => loadAndVerify(session, pool, tokens, { root }),
    lookup: (root: Root, tokens = text) => session.lookup(root, tokens, wait),
    [Symbol.asyncDispose]: () => cache.close(),
  };
}

function newKeys(how: "sealed" | "plain"): readonly TierKey[] {
  if (how === "plain") return [];
  const path = join(temporaryDirectory(), "key");
  writeFileSync(path, `${"5a".repeat(32)}\n`, { mode: 0o600 });
  return readTierKeys(path);
}

for (const { name, open, isHere } of kinds)
  for (const how of ["plain", "sealed"] as const)
    describe.skipIf(!isHere)(`${name}, ${how}`, () => {
      test("another tenant gets nothing, by any key, and learns nothing by what its questions cost", async () => {
        await using store = await open();
        const keys = newKeys(how);
        const costOf = async (host: Awaited<ReturnType<typeof hostOn>>) => {
          const before = await store.asked();
          expect(await host.lookup(tenantB!)).toMatchObject({ hitTokens: 0, segments: [] });
          return (await store.asked()) - before;
        };
        await using early = await hostOn(await store.tier(keys));
        const unknown = await costOf(early);
        await using a = await hostOn(await store.tier(keys));
        await a.save(tenantA!);
        // Of A's text B is told what it was told before A had it, for as many requests.
        const tier = await store.tier(keys);
        await using b = await hostOn(tier);
        expect(await costOf(b)).toBe(unknown);
        for (const root of [tenantB!, { salt: "", adapter: "" }, { salt: "", adapter: "of tenant A" }])
          expect(await b.load(root)).toBe(0);

        // Every name that is there, as the key of something of B's; and A's own keys, as a client that has guessed the text computes them.
        const names = [...(await store.values()).keys()];
        expect(names.length).toBeGreaterThan(1);
        const tried = new Set(names.flatMap((each) => /[0-9a-f]{64}/.exec(each) ?? []) as ChunkKey[]);
        const { key } = keyedRoot(space, tenantB!);
        for (const each of tried) expect(await tier.find(space, key, [each], noSignal)).toEqual([]);
        const found = await tier.find(
          space,
          keyedRoot(space, tenantA!).key,
          chunkKeys(keyedRoot(space, tenantA!).key, text, 4),
          noSignal,
        );
        expect(found).toHaveLength(10); // the same tier, for those whose it is
        if (how === "sealed")
          for (const value of (await store.values()).values())
            for (const one of [text, keyedRoot(space, tenantA!).key])
              expect(
                value.includes(typeof one === "string" ? Buffer.from(one, "hex") : Buffer.from(one.buffer, 0, 16)),
              ).toBe(false);
      });

      test("values that are copied to other names are misses, or what is asked for", async () => {
        await using store = await open();
        const keys = newKeys(how);
        await using a = await hostOn(await store.tier(keys));
        await a.save(tenantA!);
        await a.save(tenantB!, counting(40, 500));
        const values = await store.values();
        const names = [...values.keys()];
        let wrong = 0;
        let right = 0;
        for (let shift = 1; shift < names.length; shift += 1) {
          for (const [i, each] of names.entries())
            await store.put(each, values.get(names[(i + shift) % names.length]!)!); // listed
          await using b = await hostOn(await store.tier(keys));
          // Throws when a byte is another's.
          for (const loaded of [
            await b.load(tenantA!),
            await b.load(tenantB!, counting(40, 500)),
            await b.load(tenantB!),
          ])
            if (loaded === 0) wrong += 1;
            else right += 1;
        }
        expect(wrong).toBeGreaterThan(right);
        for (const [each, value] of values) await store.put(each, value);
        await using b = await hostOn(await store.tier(keys));
        expect(await b.load(tenantA!)).toBe(40);
      });

      test("old heads that are put back are harmless: right, or a miss that is stored anew", async () => {
        await using store = await open();
        const keys = newKeys(how);
        await using a = await hostOn(await store.tier(keys));
        await a.save(tenantA!);
        const old = await store.values();
        for (const each of old.keys()) await store.remove(each);
        await using c = await hostOn(await store.tier(keys));
        await c.save(tenantA!);
        const now = await store.values();
        // Names that both have are heads; payloads lie under names of their own.
        const heads = [...old.keys()].filter((each) => now.has(each));
        expect(heads.length).toBeGreaterThan(0);
        for (const each of heads) await store.put(each, old.get(each)!);
        await using b = await hostOn(await store.tier(keys));
        expect(await b.load(tenantA!)).toBe(0);
        await expect.poll(() => b.cache.stats().memory.usedBytes).toBe(0); // what was read ahead has ended as well
        await b.save(tenantA!);
        await using d = await hostOn(await store.tier(keys));
        expect(await d.load(tenantA!)).toBe(40);
        for (const [each, value] of old) await store.put(each, value);
        await using e = await hostOn(await store.tier(keys));
        expect(await e.load(tenantA!)).toBe(40);
      });
    });

test("with another tier key nothing of it can be read, nor is it in anybody's way", async () => {
  await using store = await openBucket();
  await using a = await hostOn(await store.tier(newKeys("sealed")));
  await a.save(tenantA!);
  const path = join(temporaryDirectory(), "key");
  writeFileSync(path, `${"a5".repeat(32)}\n`, { mode: 0o600 });
  for (const keys of [[], readTierKeys(path)]) {
    await using b = await hostOn(await store.tier(keys));
    expect(await b.load(tenantA!)).toBe(0);
    await b.save(tenantA!);
    await using c = await hostOn(await store.tier(keys));
    expect(await c.load(tenantA!)).toBe(40);
  }
});

async function openValkey(): Promise<Store> {
  const server = await startStore();
  const client = new Redis({ port: server.port, host: "127.0.0.1" });
  return {
    async tier(keys) {
      const valkey = new ValkeyStore(parseValkeyAddress(`valkey://127.0.0.1:${server.port}`));
      const tier = new ValueTier({ store: valkey, keys, prefix: "reprise:", maxRecordBytes: 2 ** 22 });
      const { key } = keyedRoot(space, tenantA!);
      const [nobodys] = chunkKeys(key, counting(4, 77_777), 4);
      await expect.poll(() => tier.find(space, key, [nobodys!], noSignal).catch(codeOf)).toEqual([]); // it is connected
      return tier;
    },
    async values() {
      const names = await client.keys("*");
      return new Map(
        await Promise.all(names.sort().map(async (name) => [name, (await client.getBuffer(name))!] as const)),
      ); // listed
    },
    put: async (name, value) => void (await client.set(name, value, "EX", 1000)),
    remove: async (name) => void (await client.del(name)),
    async asked() {
      const said = await client.info("commandstats");
      return Number(/cmdstat_getrange:calls=(\d+)/.exec(said)?.[1] ?? 0);
    },
    async [Symbol.asyncDispose]() {
      client.disconnect();
      await server[Symbol.asyncDispose]();
    },
  };
}

async function openBucket(): Promise<Store> {
  const fake = await startFakeS3();
  return {
    tier: (keys) => Promise.resolve(tierOf(fake, { keys })),
    values: () => Promise.resolve(new Map([...fake.objects].map(([name, { bytes }]) => [name, bytes]))),
    put: (name, bytes) =>
      Promise.resolve(void fake.objects.set(name, { bytes, modified: Date.now(), etag: `"${name.length}"` })),
    remove: (name) => Promise.resolve(void fake.objects.delete(name)),
    asked: () => Promise.resolve(fake.requests.length),
    [Symbol.asyncDispose]: () => fake[Symbol.asyncDispose](),
  };
}
