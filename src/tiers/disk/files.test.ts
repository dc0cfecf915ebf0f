import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { expect, test } from "vitest";
import { temporaryFolder } from "../../../test/support/cache.ts";
import { leavesOf } from "../payload-checksum.ts";
import { alignedBuffer } from "./aligned.ts";
import { nodeFiles } from "./files.ts";

// A place that is no multiple of a sector is what every file system refuses O_DIRECT at, as some do everywhere.
test("a call that O_DIRECT is refused goes through the system's cache, and so do those after it", async () => {
  using folder = temporaryFolder();
  const file = await nodeFiles.create(join(folder.path, "file"));
  const bytes = alignedBuffer(8192);
  bytes.set(randomBytes(8192));
  await file.write([bytes], 0, []);
  const wasDirect = file.direct;

  await Promise.all([file.write([bytes], 8192 + 100, []), file.write([bytes], 3 * 8192 + 100, [])]);
  expect(file.direct).toBe(false);
  for (const position of [0, 8192 + 100, 3 * 8192 + 100]) {
    const into = alignedBuffer(8192);
    expect(await file.read([into], position)).toMatchObject({ bytes: 8192, leaves: [leavesOf(bytes)] });
    expect(into).toEqual(bytes);
  }
  await file.close();

  const again = await nodeFiles.open(join(folder.path, "file"));
  expect(again.direct).toBe(wasDirect);
  const into = alignedBuffer(8192);
  await again.read([into], 8192 + 100);
  expect(into).toEqual(bytes);
  await again.close();
  await expect(again.read([into], 0)).rejects.toMatchObject({ code: "EBADF" });
});

test("of many reads at once each gets its own bytes and leaves, or its own failure", async () => {
  using folder = temporaryFolder();
  const path = join(folder.path, "file");
  const pieces = Array.from({ length: 100 }, (_, i) => alignedBuffer(4096 * (1 + (i % 3))).fill(randomBytes(512)));
  const file = await nodeFiles.create(path);
  await file.write(pieces, 0, []);
  let at = 0;
  const reads = [...pieces, alignedBuffer(4096), alignedBuffer(4096)].map((piece) => {
    const position = at;
    at += piece.length;
    const into = [alignedBuffer(4096), alignedBuffer(piece.length - 4096)].filter(({ length }) => length > 0);
    return { piece, into, answer: file.read(into, position) };
  });
  for (const [i, { piece, into, answer }] of reads.entries()) {
    const { bytes, leaves } = await answer;
    expect(bytes).toBe(i < pieces.length ? piece.length : 0);
    if (i >= pieces.length) continue;
    expect(Buffer.concat(into)).toEqual(piece);
    expect(leaves).toEqual(into.map(leavesOf));
  }

  await file.close();
  const unmapped = await nodeFiles.openReadOnly("/proc/self/mem"); // nothing is mapped at its first pages
  const failed = await Promise.allSettled(pieces.map(async (_, i) => unmapped.read([alignedBuffer(4096)], 4096 * i)));
  await unmapped.close();
  expect(
    failed.every((outcome) => outcome.status === "rejected" && (outcome.reason as { code: string }).code === "EIO"),
  ).toBe(true);
});

test("a file that was closed touches no other that the system gave its number to", async () => {
  using folder = temporaryFolder();
  const bytes = alignedBuffer(8192).fill("the other's");
  const file = await nodeFiles.create(join(folder.path, "file"));
  const last = file.write([alignedBuffer(8192).fill(0)], 0, []);
  await file.close();
  await last;

  const other = await nodeFiles.create(join(folder.path, "other"));
  await other.write([bytes], 0, []);
  const calls = [file.truncate(0), file.write([alignedBuffer(4096).fill(0)], 0, []), file.allocate(65_536)];
  for (const call of [...calls, file.datasync(), file.read([alignedBuffer(4096)], 0)])
    await expect(call).rejects.toMatchObject({ code: "EBADF" });
  await file.close();
  const into = alignedBuffer(16_384);
  expect(await other.read([into], 0)).toMatchObject({ bytes: 8192 });
  expect(into.subarray(0, 8192)).toEqual(bytes);
  await other.close();
});
