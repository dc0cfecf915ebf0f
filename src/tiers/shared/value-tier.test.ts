import { randomBytes } from "node:crypto";
import { chmodSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { MemoryStore } from "../../../test/support/memory-store.ts";
import { temporaryDirectory } from "../../../test/support/data-directory.ts";
import { codeOf } from "../../errors.ts";
import { chunkKey, type ChunkKey } from "../../identity/keys.ts";
import type { ChunkRecord } from "../../tier.ts";
import { noSignal, recordOf, stored, tierSuite } from "../tier-suite.ts";
import { readTierKeys, TierKey } from "./tier-keys.ts";
import { ValueTier } from "./value-tier.ts";

const keys = [new TierKey(randomBytes(32))];
const limits = { prefix: "reprise:", maxRecordBytes: 4 * 1024 * 1024 };

function tierOver(store: MemoryStore, tierKeys: readonly TierKey[] = []): ValueTier {
  return new ValueTier({ store, keys: tierKeys, ...limits });
}

for (const [how, tierKeys] of [
  ["open", []],
  ["sealed", keys],
] as const)
  tierSuite(`a store of values, ${how}`, () => {
    const store = new MemoryStore();
    return Promise.resolve({
      capacityBytes: limits.maxRecordBytes,
      open: () => Promise.resolve(tierOver(store, tierKeys)),
      dispose: async () => {},
    });
  });

const tokens = Uint32Array.from({ length: 64 }, (_, i) => 1_000_000 + i);

async function written(tierKeys: readonly TierKey[]) {
  const store = new MemoryStore();
  const tier = tierOver(store, tierKeys);
  const payloads = [randomBytes(300_000), randomBytes(5000)];
  const record = recordOf(tokens, payloads);
  const id = await stored(tier, record, payloads);
  return { store, tier, payloads, record, id };
}

test.each([
  ["open", []],
  ["sealed", keys],
] as const)("a head that is longer than a record of the space can have is not taken (%s)", async (_, tierKeys) => {
  const { store, tier, record } = await written(tierKeys);
  const find = (parts: number, count: number) =>
    tier.find(record.space, record.root, Object.assign([record.key], { bounds: { parts, tokens: count } }), noSignal);
  expect(await find(2, 64)).toHaveLength(1);
  expect(await find(1, 64)).toEqual([]);
  expect(await find(2, 63)).toEqual([]);
  expect(tier.stats().corruptRecords).toBe(0);
  // All that 500 heads of 64 tokens can bring here.
  store.mostBytes.length = 0;
  await find(1, 64);
  expect(store.mostBytes).toEqual([492]);
});

/** As another host finds it and reads it. */
async function readElsewhere(store: MemoryStore, record: ChunkRecord, tierKeys: readonly TierKey[]) {
  const tier = tierOver(store, tierKeys);
  const [found] = await tier.find(record.space, record.root, [record.key], noSignal);
  if (found === undefined) return "not found";
  const into = record.payloadBytes.map((bytes) => new Uint8Array(bytes));
  const outcome = await tier.read(found.id, record.key, into, noSignal).catch(codeOf);
  return outcome === "read" ? Buffer.concat(into) : outcome;
}

test.each([
  ["open", []],
  ["sealed", keys],
] as const)("no wrong byte of any value gives a wrong payload (%s)", async (_, tierKeys) => {
  const { store, payloads, record } = await written(tierKeys);
  const right = Buffer.concat(payloads);
  for (const [name, value] of new Map(store.values)) {
    const places = [
      0,
      9,
      10,
      13,
      20,
      33,
      60,
      100,
      170,
      value.length - 1,
      ...Array.from({ length: 40 }, (__, i) => i * 7),
    ];
    for (const place of new Set(places)) {
      if (place >= value.length) continue;
      const bent = Buffer.from(value);
      bent[place]! ^= 1 << (place % 8);
      store.values.set(name, bent);
      const got = await readElsewhere(store, record, tierKeys);
      if (Buffer.isBuffer(got)) expect(got.equals(right), `${name} at ${place}`).toBe(true);
      else expect(["not found", "gone", "RECORD_CORRUPT"]).toContain(got);
    }
    for (const other of [value.subarray(0, -1), Buffer.alloc(0), Buffer.concat([value, Buffer.from([0])])]) {
      store.values.set(name, other);
      expect(["not found", "gone", "RECORD_CORRUPT"]).toContain(await readElsewhere(store, record, tierKeys));
    }
    store.values.set(name, value);
  }
  expect(await readElsewhere(store, record, tierKeys)).toEqual(right);
});

test("a head put under another chunk's name is not that chunk's", async () => {
  const { store, record } = await written([]);
  const other = recordOf(Uint32Array.from([7]), [randomBytes(300_000), randomBytes(5000)]);
  store.values.set(`reprise:${other.key}`, store.values.get(`reprise:${record.key}`)!);
  expect(await readElsewhere(store, other, [])).toBe("not found");
  // Nor is one of another root or space, whoever wrote it there.
  for (const change of [
    { root: other.key as unknown as ChunkRecord["root"] },
    { space: "0".repeat(64) as ChunkRecord["space"] },
  ])
    expect(await readElsewhere(store, { ...record, ...change }, [])).toBe("not found");
});

test("sealed: neither names nor values tell anything of the text, and no two writings look alike", async () => {
  const payloads = [Buffer.alloc(300_000, "the same KV again and again ")];
  const stores = [new MemoryStore(), new MemoryStore()];
  const record = recordOf(tokens, payloads);
  for (const store of stores) await stored(tierOver(store, keys), record, payloads);
  for (const store of stores)
    for (const [name, value] of store.values) {
      expect(name).not.toContain(record.key);
      for (const text of [tokens.slice(0, 2), Buffer.from(record.key, "hex"), Buffer.from(record.root, "hex")])
        expect(value.includes(Buffer.from(text.buffer, text.byteOffset, text.byteLength))).toBe(false);
      expect(value.includes("the same KV")).toBe(false);
    }
  const pieces = stores.map((store) => [...store.values.values()].find(({ length }) => length === 300_000)!);
  expect(pieces[0]!.equals(pieces[1]!)).toBe(false);
});

test("a key that is changed: what the old one sealed is read while it stands in the file, and not after", async () => {
  const [old, anew] = [new TierKey(randomBytes(32)), new TierKey(randomBytes(32))];
  const { store, payloads, record } = await written([old]);
  expect(await readElsewhere(store, record, [anew, old])).toEqual(Buffer.concat(payloads));
  expect(await readElsewhere(store, record, [anew])).toBe("not found");
  expect(await readElsewhere(store, record, [])).toBe("not found");
  // With a key nothing unsealed is believed, even under the right name.
  const open = await written([]);
  store.values.set(`reprise:${old.nameOf(open.record.key)}`, open.store.values.get(`reprise:${open.record.key}`)!);
  for (const [name, value] of open.store.values) store.values.set(name, value);
  expect(await readElsewhere(store, open.record, [old])).toBe("not found");
});

test("a long text is found in two round trips; one that nobody has in one, of few names", async () => {
  const store = new MemoryStore();
  const tier = tierOver(store);
  const records: ChunkRecord[] = [];
  const payload = randomBytes(10);
  for (let i = 0; i < 600; i += 1) records.push(recordOf(Uint32Array.from([i]), [payload], records.at(-1)));
  for (const record of records) await stored(tier, record, [payload]);
  const { space, root } = records[0]!;
  const found = await tierOver(store).find(space, root, records.map(({ key }) => key), noSignal); // prettier-ignore
  expect(found).toHaveLength(600);
  expect(store.roundTrips).toEqual([16, 584]);

  store.roundTrips.length = 0;
  let hashed = 0;
  function* unknown() {
    for (let key = "f".repeat(64) as ChunkKey; hashed < 600; key = chunkKey(key, tokens)) {
      hashed += 1;
      yield key;
    }
  }
  expect(await tier.find(space, root, unknown(), noSignal)).toEqual([]);
  expect([store.roundTrips, hashed]).toEqual([[16], 16]);
});

test("a head is there only when all pieces are, and a piece that went is a miss", async () => {
  const { store, record, tier, id } = await written([]);
  expect(store.order.at(-1)).toBe(`reprise:${record.key}`);
  const piece = [...store.values.keys()].find((name) => name.endsWith(":0:0"))!;
  store.values.delete(piece);
  expect(await readElsewhere(store, record, [])).toBe("gone");
  const into = record.payloadBytes.map((bytes) => new Uint8Array(bytes));
  expect(await tier.read(id, record.key, into, noSignal)).toBe("gone");
});

test("a read that fails has let go of its memory", async () => {
  const { store, record, tier, id } = await written([]);
  store.failsRead = (name) => name.endsWith(":0:0");
  const into = record.payloadBytes.map((bytes) => new Uint8Array(bytes));
  store.readDelayMs = 20;
  expect(await tier.read(id, record.key, into, noSignal).catch(codeOf)).toBe("TIER_UNAVAILABLE");
  expect(store.readsUnderWay).toBe(0);
});

test("a file of keys: comments, two keys; whatever else is refused by name", () => {
  const file = join(temporaryDirectory(), "keys");
  const write = (text: string) => writeFileSync(file, text, { mode: 0o600 });
  write(`# new\n${"ab".repeat(32)}\n\n# old\n${"CD".repeat(32)}\n`);
  expect(readTierKeys(file)).toHaveLength(2);
  for (const [text, fault] of [
    ["", /has no key; `openssl rand -hex 32`/],
    ["abc", /key 1 does not have 64/],
    [`${"ab".repeat(32)}\nnonsense`, /key 2 does not have 64/],
    [`${"ab".repeat(32)}\n`.repeat(9), /9 keys, more than 8/],
  ] as const) {
    write(text);
    expect(() => readTierKeys(file)).toThrow(fault);
  }
  write("ab".repeat(32));
  chmodSync(file, 0o644);
  expect(() => readTierKeys(file)).toThrow(/nobody else can read/);
  expect(() => readTierKeys(`${file}.not`)).toThrow(/no such file/);
});
