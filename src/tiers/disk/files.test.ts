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
