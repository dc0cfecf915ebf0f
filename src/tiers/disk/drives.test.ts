/** Several directories, each on a drive of its own, as one tier. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { failing, fill } from "../../../test/support/disk.ts";
import { temporaryFolder } from "../../../test/support/cache.ts";
import { noSignal, recoverAll, RecordingOwner } from "../tier-suite.ts";
import { DiskTier } from "./disk-tier.ts";
import { nodeFiles, type DiskFiles } from "./files.ts";

const capacityBytes = 4 * 1024 * 1024;

test("several drives share the records; one that goes costs only its own", async () => {
  using folder = temporaryFolder();
  const drives = ["a", "b"].map((name) => ({ directory: join(folder.path, name), capacityBytes }));
  const state: { fault: string | undefined } = { fault: undefined };
  const failingOn = (directory: string): DiskFiles => {
    const broken = failing(state);
    const pick = (path: string) => (path.startsWith(directory) ? broken : nodeFiles);
    return { ...nodeFiles, create: (path) => pick(path).create(path), open: (path) => pick(path).open(path) };
  };
  const owner = new RecordingOwner();
  {
    await using tier = await DiskTier.open({
      drives,
      files: failingOn(join(folder.path, "b")),
      scrubBytesPerSecond: 0,
    });
    await recoverAll(tier, owner);
    await fill(tier, 20);
    const [a, b] = tier.stats().drives;
    expect(a!.usedBytes).toBeGreaterThan(4096 * 10);
    expect(b!.usedBytes).toBeGreaterThan(4096 * 10);
  }
  await using tier = await DiskTier.open({ drives, files: failingOn(join(folder.path, "b")), scrubBytesPerSecond: 0 });
  const records = await recoverAll(tier, owner);
  expect(records).toHaveLength(20);
  state.fault = "EIO";
  const answers = [];
  for (const { id, key } of records)
    answers.push(await tier.read(id, key, [new Uint8Array(9000)], noSignal).catch(() => "failed"));
  const lost = answers.filter((answer) => answer === "failed").length;
  expect(lost).toBe(3);
  expect(answers.filter((answer) => answer === "read").length).toBe(20 - owner.evicted.size);
  expect(owner.evicted.size).toBeGreaterThan(5);
  expect(tier.stats()).toMatchObject({
    records: 20 - owner.evicted.size,
    drives: [
      { errors: 0, gone: false },
      { errors: 3, gone: true },
    ],
  });
  await fill(tier, 5);
});

test("of several drives one that cannot be opened is left out", async () => {
  using folder = temporaryFolder();
  writeFileSync(join(folder.path, "file"), "");
  const directories = [join(folder.path, "file", "x"), join(folder.path, "good")];
  const drives = directories.map((directory) => ({ directory, capacityBytes }));
  await using tier = await DiskTier.open({ drives });
  await recoverAll(tier);
  await fill(tier, 3);
  expect(tier.stats()).toMatchObject({ records: 3, drives: [{ directory: directories[1] }] });
});
