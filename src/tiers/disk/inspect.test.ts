import { readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { temporaryFolder } from "../../../test/support/cache.ts";
import { noSignal, recordOf, recoverAll, RecordingOwner } from "../tier-suite.ts";
import { DiskTier } from "./disk-tier.ts";
import { inspectDisk } from "./inspect.ts";

test("what lies on disk is told beside the running tier and after it, by space", async () => {
  using folder = temporaryFolder();
  const drives = [{ directory: folder.path, capacityBytes: 4 * 2 ** 20 }];
  const payload = Buffer.alloc(9000, 1);
  const before = Date.now();
  {
    await using tier = await DiskTier.open({ drives, regionBytes: 65536 });
    await recoverAll(tier, new RecordingOwner());
    for (let i = 0; i < 7; i += 1) await tier.write(recordOf(Uint32Array.from([i, 7]), [payload]), [payload], noSignal);
    const beside = await inspectDisk([folder.path]);
    expect(beside.spaces).toMatchObject([
      { roots: 1, parts: 1, chunks: 7, tokens: 14, payloadBytes: 63_000, bytes: 7 * 16384, hits: 0 },
    ]);
    expect(beside.regions.map(({ state, chunks }) => [state, chunks])).toEqual([
      ["sealed", 3],
      ["sealed", 3],
      ["open", 1],
    ]);
    expect(tier.stats().records).toBe(7);
  }
  writeFileSync(join(folder.path, "0000000001.segment"), Buffer.alloc(5000));
  const names = readdirSync(folder.path);
  const after = await inspectDisk([folder.path]);
  expect(after.spaces[0]?.oldest.getTime()).toBeGreaterThanOrEqual(before);
  expect(after.spaces[0]?.newest.getTime()).toBeLessThanOrEqual(Date.now());
  expect(after.spaces).toMatchObject([{ chunks: 7 }]);
  expect(after.regions.map(({ state }) => state)).toEqual(["sealed", "foreign", "sealed", "sealed"]);
  expect(readdirSync(folder.path)).toEqual(names);
});
