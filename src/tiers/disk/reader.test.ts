import { join } from "node:path";
import { expect, test } from "vitest";
import { temporaryFolder } from "../../../test/support/cache.ts";
import { gated } from "../../../test/support/late-tier.ts";
import { alignedBuffer } from "./aligned.ts";
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
