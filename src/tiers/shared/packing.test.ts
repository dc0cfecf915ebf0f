import { randomBytes } from "node:crypto";
import { beforeAll, describe, expect, test } from "vitest";
import { kvSample, kvTypes, numbers } from "../../../test/support/kv-sample.ts";
import { openZstd } from "../../ffi/zstd.ts";
import { blockBytes, PayloadPacker } from "./packing.ts";

const zstd = openZstd();
if (zstd === undefined) process.stderr.write("Packing is not tested: there is no libzstd.\n");

function repeated(sample: Buffer, bytes: number): Buffer {
  return Buffer.concat(Array.from({ length: Math.ceil(bytes / sample.length) }, () => sample)).subarray(0, bytes);
}

describe.skipIf(zstd === undefined)("payloads", () => {
  let packer: PayloadPacker;
  beforeAll(() => {
    packer = PayloadPacker.open()!; // there is libzstd
  });

  /** In a place with something else before and behind it, as in a slot. */
  async function unpacked(packed: Uint8Array, bytes: number, offset = 0): Promise<Buffer | "not such a payload"> {
    const around = new Uint8Array(offset + bytes + 16).fill(0xee);
    const place = around.subarray(offset, offset + bytes);
    place.set(packed, bytes - packed.length);
    const right = await packer.unpack(place, packed.length);
    expect([...around.subarray(0, offset), ...around.subarray(offset + bytes)].every((byte) => byte === 0xee)).toBe(true); // prettier-ignore
    return right ? Buffer.from(place) : "not such a payload";
  }

  async function mustPack(payload: Uint8Array): Promise<Uint8Array> {
    const packed = await packer.pack(payload);
    if (packed === undefined) throw new Error("it packs");
    return packed;
  }

  test.each(kvTypes)("real KV of type %s becomes smaller, and is itself again", async (type) => {
    const payload = kvSample(type);
    const packed = await mustPack(payload);
    const least = { f16: 1.12, bf16: 1.35, q8_0: 1.02 }[type];
    expect(payload.length / packed.length).toBeGreaterThan(least);
    for (const offset of [0, 1, 2, 4]) expect(await unpacked(packed, payload.length, offset)).toEqual(payload);
  });

  test.each([4096, 4097, blockBytes - 1, blockBytes, blockBytes + 1, blockBytes + 2, 3 * blockBytes + 12_345])(
    "%i bytes, of one kind or another, with blocks in between that do not pack",
    async (bytes) => {
      const mixed = numbers(bytes);
      randomBytes(Math.max(0, Math.min(blockBytes, bytes - blockBytes))).copy(mixed, blockBytes);
      for (const payload of [numbers(bytes), mixed, repeated(kvSample("q8_0"), bytes), Buffer.alloc(bytes)]) {
        const packed = await mustPack(payload);
        expect(packed.length).toBeLessThan(bytes);
        expect(Buffer.compare((await unpacked(packed, bytes)) as Buffer, payload)).toBe(0);
      }
    },
  );

  test("what would not become smaller is not packed", async () => {
    for (const bytes of [0, 1, 2, 100, 4095]) expect(await packer.pack(Buffer.alloc(bytes))).toBeUndefined();
    for (const bytes of [4096, 5001, blockBytes + 5]) expect(await packer.pack(randomBytes(bytes))).toBeUndefined();
    // One byte in 500.
    expect(await packer.pack(Buffer.concat([numbers(4096), randomBytes(blockBytes - 4096)]))).toBeUndefined();
  });

  test("no wrong byte of what was packed reaches beyond the payload, and what is cut or of another length is told", async () => {
    const payload = numbers(5001);
    const packed = await mustPack(payload);
    for (let place = 0; place < packed.length; place += 1) {
      const bent = Uint8Array.from(packed);
      bent[place]! ^= 1 << (place % 8);
      await unpacked(bent, payload.length); // looks around the place
    }
    for (let bytes = 0; bytes < packed.length; bytes += 97)
      expect(await unpacked(packed.subarray(0, bytes), payload.length)).toBe("not such a payload");
    for (const other of [payload.length + 1, payload.length - 1, payload.length * 2, packed.length])
      if (other >= packed.length) expect(await unpacked(packed, other)).toBe("not such a payload");
  });

  test("a bomb fills no more than the payload's place", async () => {
    const bomb = new Uint8Array(4096);
    const bytes = (await zstd!.compress(new Uint8Array(64 * blockBytes), bomb.subarray(8)))!; // there is libzstd
    for (const row of [
      [bytes, 0xffff_ffff],
      [bytes, 0],
      [0, bytes],
    ] as const) {
      const table = new DataView(bomb.buffer);
      table.setUint32(0, row[0], true);
      table.setUint32(4, row[1], true);
      for (const place of [8 + bytes, 2 * bytes + 40, 60_000, blockBytes])
        expect(await unpacked(bomb.subarray(0, 8 + bytes), place)).toBe("not such a payload");
    }
  });

  test("many at a time share the scratch of four, and none gets another's bytes", async () => {
    const payloads = Array.from({ length: 24 }, (_, i) => numbers(5000 + i * 70_001));
    const all = await Promise.all(payloads.map(mustPack));
    const back = await Promise.all(all.map((packed, i) => unpacked(packed, payloads[i]!.length)));
    for (const [i, each] of back.entries()) expect(Buffer.compare(each as Buffer, payloads[i]!)).toBe(0);
  });

  test("others get their turn while a large payload is packed and unpacked", async () => {
    const payload = numbers(24 * blockBytes);
    let turns = 0;
    const count = setInterval(() => (turns += 1), 1);
    const packed = await mustPack(payload);
    const [first, done] = [turns, await unpacked(packed, payload.length)];
    clearInterval(count);
    expect(first).toBeGreaterThan(10);
    expect(turns - first).toBeGreaterThan(10);
    expect(Buffer.compare(done as Buffer, payload)).toBe(0);
  });
});
