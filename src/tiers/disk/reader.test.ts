import { join } from "node:path";
import { expect, test } from "vitest";
import { temporaryFolder } from "../../../test/support/cache.ts";
import { filesThrough, payloadFor } from "../../../test/support/disk.ts";
import { gated } from "../../../test/support/late-tier.ts";
import { noSignal, recordOf, recoverAll, stored } from "../tier-suite.ts";
import { alignedBuffer } from "./aligned.ts";
import { padded } from "../../pages.ts";
import { DiskTier } from "./disk-tier.ts";
import { nodeFiles, type DiskFile } from "./files.ts";
import { readRecord } from "./reader.ts";

test("a read that fails in part has let go of the memory when it says so", async () => {
  using folder = temporaryFolder();
  const stored = alignedBuffer(5 * 2 ** 20 + 4096).fill("stored");
  const file = await nodeFiles.create(join(folder.path, "file"));
  await file.write([stored], 0, []);
  const late = gated();
  const calls: Promise<unknown>[] = [];
  const read: DiskFile["read"] = (into, at) => {
    const call = at === 0 ? Promise.reject(new Error("EIO")) : late.promise.then(() => file.read(into, at));
    calls.push(call);
    return call;
  };
  const position = { regionSlot: 0, offset: 0, totalBytes: stored.length, headerBytes: 4096, firstToken: 0 };
  const slot = alignedBuffer(stored.length - 4096);

  const answer = readRecord({ file: { ...file, read }, nonce: Buffer.alloc(16) }, position, [slot], undefined);
  const failed = answer.catch((error: unknown) => {
    slot.fill("another's");
    return error;
  });
  await new Promise((resolve) => setImmediate(resolve));
  late.open();
  expect(await failed).toEqual(new Error("EIO"));
  expect(await Promise.allSettled(calls)).toHaveLength(3);
  expect(slot.equals(Buffer.alloc(slot.length, "another's"))).toBe(true);
  await file.close();
});

test("of a part that is not wanted no byte is read, and the others with as few calls as can be", async () => {
  using folder = temporaryFolder();
  const reads: { at: number; bytes: number }[] = [];
  const files = filesThrough((file) => ({
    ...file,
    read: (into, at) => {
      reads.push({ at, bytes: into.reduce((sum, { length }) => sum + length, 0) });
      return file.read(into, at);
    },
  }));
  await using tier = await DiskTier.open({
    drives: [{ directory: folder.path, capacityBytes: 16 * 2 ** 20 }],
    scrubBytesPerSecond: 0,
    files,
  });
  await recoverAll(tier);
  const payloads = [5000, 0, 300_000, 9000, 100].map((bytes, part) => payloadFor(part, bytes));
  const record = recordOf(Uint32Array.from([1]), payloads);
  const id = await stored(tier, record, payloads);
  const readsOf = async (wanted: readonly number[]) => {
    reads.length = 0;
    const into = payloads.map(({ length }, part) => (wanted.includes(part) ? Buffer.alloc(length) : undefined));
    expect(await tier.read(id, record.key, into, noSignal)).toBe("read");
    for (const part of wanted) expect(into[part]?.equals(payloads[part]!)).toBe(true);
    const needed = wanted.reduce((sum, part) => sum + padded(payloads[part]!.length), 4096);
    expect(reads.reduce((sum, { bytes }) => sum + bytes, 0)).toBe(needed);
    return reads.map(({ at, bytes }) => [at, at + bytes]);
  };
  // The region's header, the record's, and parts of 8192, 0, 303,104, 12,288 and 4096 bytes.
  const [header, second, third, last] = [4096, 16_384, 319_488, 331_776];
  const end = 335_872;
  expect(await readsOf([0, 1, 2, 3, 4])).toEqual([[header, end]]);
  expect(await readsOf([0, 1, 2])).toEqual([[header, third]]);
  expect(await readsOf([])).toEqual([[header, header + 4096]]);
  expect(await readsOf([3, 4])).toEqual([
    [header, header + 4096],
    [third, end],
  ]);
  expect(await readsOf([0, 1, 4])).toEqual([
    [header, second],
    [last, end],
  ]);
  // Where it begins stands in the header.
  expect(await readsOf([0, 2, 4])).toEqual([
    [header, second],
    [last, end],
    [second, third],
  ]);
  for (let choice = 0; choice < 32; choice += 1)
    await readsOf([0, 1, 2, 3, 4].filter((part) => (choice >> part) % 2 === 1));
});
