import { randomBytes } from "node:crypto";
import { xxh3 } from "@node-rs/xxhash";
import { beforeAll, describe, expect, test } from "vitest";
import { kvSample } from "../../../test/support/kv-sample.ts";
import { MemoryStore } from "../../../test/support/memory-store.ts";
import { codeOf } from "../../errors.ts";
import { openZstd } from "../../ffi/zstd.ts";
import type { ChunkRecord } from "../../tier.ts";
import { payloadChecksum } from "../payload-checksum.ts";
import { noSignal, recordOf, stored, tierSuite, withAbsentParts } from "../tier-suite.ts";
import { HeadWriter } from "./head.ts";
import { PayloadPacker } from "./packing.ts";
import type { Compression } from "./payloads.ts";
import { TierKey } from "./tier-keys.ts";
import { ValueTier } from "./value-tier.ts";

const keys = [new TierKey(randomBytes(32))];
const limits = { prefix: "reprise:", maxRecordBytes: 4 * 1024 * 1024 };
const tokens = Uint32Array.from({ length: 64 }, (_, i) => 1_000_000 + i);
const zstd = openZstd();

describe.skipIf(zstd === undefined)("records that are packed", () => {
  let packer: PayloadPacker;
  beforeAll(() => {
    packer = PayloadPacker.open()!; // there is libzstd
  });

  function tierOver(store: MemoryStore, tierKeys: readonly TierKey[] = [], compress: Compression = "lossless") {
    return new ValueTier({ store, keys: tierKeys, packer, compress, ...limits });
  }

  async function written(tierKeys: readonly TierKey[], payloads: readonly Buffer[], compress?: Compression) {
    const store = new MemoryStore();
    const tier = tierOver(store, tierKeys, compress);
    const record = recordOf(tokens, payloads);
    await stored(tier, record, payloads);
    return { store, tier, record };
  }

  async function readBy(tier: ValueTier, record: ChunkRecord) {
    const [found] = await tier.find(record.space, record.root, [record.key], noSignal);
    if (found === undefined) return "not found";
    const into = record.payloadBytes.map((bytes) => new Uint8Array(Math.ceil(bytes / 4096) * 4096).fill(0xee));
    const outcome = await tier.read(found.id, record.key, into, noSignal).catch(codeOf);
    if (outcome !== "read") return outcome;
    // What lies behind a payload up to a whole page is zeros, as it is written to the disk.
    for (const [part, view] of into.entries())
      expect(view.subarray(record.payloadBytes[part]).every((byte) => byte === 0)).toBe(true);
    return Buffer.concat(into.map((view, part) => view.subarray(0, record.payloadBytes[part])));
  }

  for (const [how, tierKeys] of [
    ["open", []],
    ["sealed", keys],
  ] as const)
    tierSuite(`a store of packed values, ${how}`, () => {
      const store = new MemoryStore();
      return Promise.resolve({
        capacityBytes: limits.maxRecordBytes,
        open: () => Promise.resolve(tierOver(store, tierKeys)),
        dispose: async () => {},
      });
    });

  const kv = kvSample("bf16");
  const noise = randomBytes(9000);

  test.each([
    [[kv]],
    [[kvSample("f16"), Buffer.alloc(0), Buffer.from([7]), noise, kvSample("q8_0")]],
    [[noise, kv.subarray(0, 4096), kv.subarray(0, 8191)]],
    ...withAbsentParts.map((parts) => [parts.map((bytes) => kv.subarray(0, bytes))]),
  ])("parts of all shapes come back, on hosts that pack and on one that does not (case %#)", async (payloads) => {
    for (const tierKeys of [[], keys]) {
      const packed = await written(tierKeys, payloads);
      const plain = await written(tierKeys, payloads, "none");
      for (const { store, record } of [packed, plain])
        for (const compress of ["lossless", "none"] as const) {
          const tier = tierOver(store, tierKeys, compress);
          expect(await readBy(tier, record)).toEqual(Buffer.concat(payloads));
          const { readStoredBytes } = tier.stats();
          const readBytes = record.payloadBytes.reduce((sum, bytes) => sum + bytes, 0);
          if (store === packed.store) expect(readStoredBytes).toBeLessThan(readBytes);
          else expect(readStoredBytes).toBe(readBytes);
        }
      const { writtenStoredBytes, usedBytes } = packed.tier.stats();
      expect(writtenStoredBytes).toBeLessThan(payloads.reduce((sum, { length }) => sum + length, 0));
      expect(usedBytes).toBe(writtenStoredBytes);
      const inStore = [...packed.store.values].flatMap(([name, { length }]) =>
        /:\d+:\d+$/.test(name) ? [length] : [],
      );
      expect(inStore.reduce((sum, length) => sum + length, 0)).toBe(writtenStoredBytes);
    }
  });

  test("a part that is not wanted is not read", async () => {
    const { store, record } = await written([], [kv, noise, kvSample("f16")]);
    const tier = tierOver(store);
    const [found] = await tier.find(record.space, record.root, [record.key], noSignal);
    const last = new Uint8Array(record.payloadBytes[2]!);
    expect(await tier.read(found!.id, record.key, [undefined, undefined, last], noSignal)).toBe("read");
    expect(Buffer.from(last)).toEqual(kvSample("f16"));
  });

  test("a host without libzstd takes them for another version's, and writes its own beside", async () => {
    const { store, record } = await written([], [kv]);
    const without = new ValueTier({ store, keys: [], ...limits });
    expect(await readBy(without, record)).toBe("not found");
    expect(without.stats().corruptRecords).toBe(0);
    await stored(without, record, [kv]);
    for (const tier of [without, tierOver(store)]) expect(await readBy(tier, record)).toEqual(kv);
  });

  test("what has nothing packed is as it always was, also for whoever packs", async () => {
    const { store, record } = await written([], [noise, Buffer.from([7])]);
    const head = store.values.get(`reprise:${record.key}`)!;
    expect(head.readUInt16LE(8)).toBe(1);
    expect(await readBy(new ValueTier({ store, keys: [], ...limits }), record)).toEqual(Buffer.concat([noise, Buffer.from([7])])); // prettier-ignore
  });

  test.each([
    ["open", []],
    ["sealed", keys],
  ] as const)("no wrong byte of any value gives a wrong payload (%s)", async (_, tierKeys) => {
    const payload = kv.subarray(0, 4200);
    const { store, record } = await written(tierKeys, [payload]);
    const tier = tierOver(store, tierKeys);
    for (const [name, value] of new Map(store.values)) {
      for (let place = 0; place < value.length; place += 1) {
        const bent = Buffer.from(value);
        bent[place]! ^= 1 << (place % 8);
        store.values.set(name, bent);
        const got = await readBy(tier, record);
        if (Buffer.isBuffer(got)) expect(got.equals(payload), `${name} at ${place}`).toBe(true);
        else expect(["not found", "gone", "RECORD_CORRUPT"]).toContain(got);
      }
      store.values.set(name, value);
    }
    expect(tier.stats().corruptRecords).toBeGreaterThan(1000);
    expect(await readBy(tier, record)).toEqual(payload);
  });

  test("a bomb under a right head is corrupt, and fills nothing but its place", async () => {
    const payload = Buffer.alloc(100_000);
    const bomb = new Uint8Array(8192);
    const bytes = (await zstd!.compress(new Uint8Array(64 * 1024 * 1024), bomb.subarray(8)))!; // there is libzstd
    new DataView(bomb.buffer).setUint32(0, bytes, true);
    new DataView(bomb.buffer).setUint32(4, 0xffff_ffff, true);
    const storedBytes = 8 + bytes;
    const store = new MemoryStore();
    const record = recordOf(tokens, [payload]);
    const writer = new HeadWriter(undefined);
    const tag = new Uint8Array(16);
    const head = writer.encode(record, [{ checksum: await payloadChecksum(payload), storedBytes, tag }]);
    store.values.set(`reprise:${record.key}`, head);
    store.values.set(`reprise:${writer.id.toString("hex")}:0:0`, Buffer.from(bomb.subarray(0, storedBytes)));
    expect(await readBy(tierOver(store), record)).toBe("RECORD_CORRUPT");
  });

  test("a head that promises more packed than unpacked bytes is damaged, whatever its checksum says", async () => {
    const { store, record } = await written([], [kv]);
    const name = `reprise:${record.key}`;
    const head = Buffer.from(store.values.get(name)!);
    const packedBytesAt = 40 + 4 * 32 + 3 * 4 + 4;
    const packedBytes = head.readUInt32LE(packedBytesAt);
    for (const [bytes, outcome] of [
      [kv.length + 1, "not found"],
      [0xffff_ffff, "not found"],
      [packedBytes, kv],
    ] as const) {
      head.writeUInt32LE(bytes, packedBytesAt);
      const sum = xxh3.xxh128(head.subarray(0, -16));
      head.writeBigUInt64LE(sum & 0xffff_ffff_ffff_ffffn, head.length - 16);
      head.writeBigUInt64LE(sum >> 64n, head.length - 8);
      store.values.set(name, head);
      expect(await readBy(tierOver(store), record)).toEqual(outcome);
    }
  });
});
