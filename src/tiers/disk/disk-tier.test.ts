import { spawnSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { temporaryFolder } from "../../../test/support/cache.ts";
import { noSignal, recordOf, recoverAll, RecordingOwner, tierSuite } from "../tier-suite.ts";
import { DiskTier } from "./disk-tier.ts";
import { nodeFiles, type DiskFile, type DiskFiles } from "./files.ts";

const capacityBytes = 4 * 1024 * 1024;

tierSuite("disk", async () => {
  const folder = temporaryFolder();
  return {
    capacityBytes,
    open: () => DiskTier.open({ directory: folder.path, capacityBytes }),
    dispose: async () => folder[Symbol.dispose](),
  };
});

/** Payloads that name their record, so that a wrong one is seen. */
function payloadFor(i: number, bytes = 9000): Buffer {
  const payload = Buffer.alloc(bytes);
  for (let at = 0; at + 4 <= bytes; at += 4) payload.writeUInt32LE((Math.imul(i + 1, 2654435761) ^ at) >>> 0, at);
  return payload;
}

async function fill(tier: DiskTier, count: number): Promise<void> {
  for (let i = 0; i < count; i += 1) {
    const payload = payloadFor(i);
    await tier.write(recordOf(Uint32Array.from([i, 7]), [payload]), [payload], noSignal);
  }
}

function directoryBytes(directory: string): number {
  return readdirSync(directory).reduce((sum, name) => sum + statSync(join(directory, name)).size, 0);
}

function segmentFiles(directory: string): string[] {
  return readdirSync(directory)
    .filter((name) => name.endsWith(".segment"))
    .map((name) => join(directory, name));
}

/** Small and the same each time. */
function generator(seed: number): (limit: number) => number {
  let state = seed;
  return (limit) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * limit);
  };
}

test("flipped bits anywhere in the files never yield a wrong payload, and are counted", async () => {
  const random = generator(1);
  let missing = 0;
  let counted = 0;
  for (let round = 0; round < 20; round += 1) {
    using folder = temporaryFolder();
    {
      await using tier = await DiskTier.open({ directory: folder.path, capacityBytes });
      await recoverAll(tier);
      await fill(tier, 40);
    }
    for (let flip = 0; flip < 10; flip += 1) {
      const files = segmentFiles(folder.path);
      const path = files[random(files.length)]!;
      const bytes = readFileSync(path);
      bytes[random(bytes.length)]! ^= 1 << random(8);
      writeFileSync(path, bytes);
    }
    await using tier = await DiskTier.open({ directory: folder.path, capacityBytes });
    let right = 0;
    for (const record of await recoverAll(tier)) {
      const into = new Uint8Array(9000);
      const answer = await tier.read(record.id, [into], noSignal).catch((error: { code: string }) => error.code);
      if (answer === "read") {
        expect(Buffer.compare(into, payloadFor(record.tokens[0]!))).toBe(0);
        right += 1;
      } else expect(answer).toBe("RECORD_CORRUPT");
    }
    missing += 40 - right;
    counted += tier.stats().corruptRecords;
  }
  expect(missing).toBeGreaterThan(20);
  expect(counted).toBeGreaterThan(20);
});

test("a torn tail is cut and costs only the record it belongs to", async () => {
  using folder = temporaryFolder();
  {
    await using tier = await DiskTier.open({ directory: folder.path, capacityBytes });
    await recoverAll(tier);
    await fill(tier, 5);
  }
  const [path] = segmentFiles(folder.path);
  const bytes = readFileSync(path!);
  writeFileSync(path!, bytes.subarray(0, bytes.length - 5000));
  await using tier = await DiskTier.open({ directory: folder.path, capacityBytes });
  expect((await recoverAll(tier)).map((record) => record.tokens[0])).toEqual([0, 1, 2, 3]);
  expect(tier.stats().corruptRecords).toBe(0);
  expect(statSync(path!).size).toBe(4096 + 4 * (4096 + 12288));
});

test("the files never exceed the capacity, also when it is smaller than before", async () => {
  using folder = temporaryFolder();
  {
    await using tier = await DiskTier.open({ directory: folder.path, capacityBytes });
    await recoverAll(tier);
    for (let i = 0; i < 10; i += 1) {
      await fill(tier, 60);
      expect(directoryBytes(folder.path)).toBeLessThanOrEqual(capacityBytes);
    }
  }
  await using tier = await DiskTier.open({ directory: folder.path, capacityBytes: capacityBytes / 4 });
  await recoverAll(tier);
  expect(directoryBytes(folder.path)).toBeLessThanOrEqual(capacityBytes / 4);
  await fill(tier, 60);
  expect(directoryBytes(folder.path)).toBeLessThanOrEqual(capacityBytes / 4);
});

test("a segment of another version is left alone until its room is needed", async () => {
  using folder = temporaryFolder();
  const foreign = Buffer.alloc(65536, 7);
  foreign.write("RPSEGMNT");
  foreign.writeUInt32LE(99, 8);
  writeFileSync(join(folder.path, "0000000005.segment"), foreign);
  writeFileSync(join(folder.path, "0000000006.segment"), "");
  await using tier = await DiskTier.open({ directory: folder.path, capacityBytes: 1024 * 1024 });
  expect(await recoverAll(tier)).toEqual([]);
  expect(tier.stats()).toMatchObject({ foreignBytes: 65536, segments: 2, corruptRecords: 0 });
  await fill(tier, 80);
  expect(tier.stats().foreignBytes).toBe(0);
});

test("a second opener learns who owns the directory", async () => {
  using folder = temporaryFolder();
  await using _owner = await DiskTier.open({ directory: folder.path, capacityBytes });
  await expect(DiskTier.open({ directory: folder.path, capacityBytes })).rejects.toMatchObject({
    code: "DATA_DIRECTORY_IN_USE",
    message: expect.stringContaining(String(process.pid)),
  });
});

/** Files whose writes fail while `fault` has a code; some bytes may have arrived before they did. */
function failing(state: { fault: string | undefined }): DiskFiles {
  const wrap = (file: DiskFile): DiskFile => ({
    ...file,
    write: async (pieces, position) => {
      if (state.fault === undefined) return file.write(pieces, position);
      await file.write([pieces[0]!.subarray(0, 100)], position);
      throw Object.assign(new Error(state.fault), { code: state.fault });
    },
    read: async (into, position) => {
      if (state.fault === "EIO") throw Object.assign(new Error("EIO"), { code: "EIO" });
      return file.read(into, position);
    },
  });
  return {
    ...nodeFiles,
    create: async (path) => wrap(await nodeFiles.create(path)),
    open: async (path) => wrap(await nodeFiles.open(path)),
  };
}

test("a full disk rejects and a broken one is unavailable; both work again afterwards, with nothing half written", async () => {
  using folder = temporaryFolder();
  const state: { fault: string | undefined } = { fault: "ENOSPC" };
  const payload = payloadFor(1);
  const record = recordOf(Uint32Array.from([1, 7]), [payload]);
  {
    await using tier = await DiskTier.open({ directory: folder.path, capacityBytes, files: failing(state) });
    await recoverAll(tier);
    expect(await tier.write(record, [payload], noSignal)).toBe("rejected");
    state.fault = undefined;
    const id = await tier.write(record, [payload], noSignal);
    state.fault = "EIO";
    await expect(tier.write(record, [payload], noSignal)).rejects.toMatchObject({ code: "TIER_UNAVAILABLE" });
    await expect(tier.read(id as never, [new Uint8Array(9000)], noSignal)).rejects.toMatchObject({
      code: "TIER_UNAVAILABLE",
    });
    state.fault = undefined;
    await fill(tier, 3);
    expect(tier.stats().records).toBe(4);
  }
  await using tier = await DiskTier.open({ directory: folder.path, capacityBytes });
  expect(await recoverAll(tier)).toHaveLength(4);
  expect(tier.stats().corruptRecords).toBe(0);
});

test("a disk that is really full rejects, keeps what it has, and takes more once there is room", async ({ skip }) => {
  using folder = temporaryFolder();
  const mount = join(folder.path, "small");
  mkdirSync(mount);
  const mounted = spawnSync("mount", ["-t", "tmpfs", "-o", "size=3m", "tmpfs", mount]).status === 0;
  if (!mounted) skip("mounting a small tmpfs needs root on linux");
  try {
    const directory = join(mount, "data");
    writeFileSync(join(mount, "other"), Buffer.alloc(2 ** 20));
    const write = (tier: DiskTier, i: number) => {
      const payload = payloadFor(i, 300_000);
      return tier.write(recordOf(Uint32Array.from([i]), [payload]), [payload], noSignal);
    };
    {
      await using tier = await DiskTier.open({ directory, capacityBytes: 64 * 2 ** 20 });
      await recoverAll(tier);
      const answers = [];
      for (let i = 0; i < 10; i += 1) answers.push(await write(tier, i));
      expect(answers.filter((answer) => answer === "rejected").length).toBe(4);
      rmSync(join(mount, "other"));
      expect(await write(tier, 10)).not.toBe("rejected");
    }
    await using tier = await DiskTier.open({ directory, capacityBytes: 64 * 2 ** 20 });
    const records = await recoverAll(tier);
    expect(records.map(({ tokens }) => tokens[0])).toEqual([0, 1, 2, 3, 4, 5, 10]);
    for (const { id, tokens } of records) {
      const into = new Uint8Array(300_000);
      expect(await tier.read(id, [into], noSignal)).toBe("read");
      expect(Buffer.compare(into, payloadFor(tokens[0]!, 300_000))).toBe(0);
    }
  } finally {
    spawnSync("umount", [mount]);
  }
});

test("a segment that cannot be read costs itself, not the others", async () => {
  using folder = temporaryFolder();
  {
    await using tier = await DiskTier.open({ directory: folder.path, capacityBytes, segmentBytes: 65536 });
    await recoverAll(tier);
    await fill(tier, 9);
  }
  const [bad] = segmentFiles(folder.path);
  const files: DiskFiles = {
    ...nodeFiles,
    open: async (path) => {
      const file = await nodeFiles.open(path);
      const fails = (position: number) => path === bad && position > 0;
      return { ...file, read: (into, at) => (fails(at) ? Promise.reject(new Error("EIO")) : file.read(into, at)) };
    },
  };
  await using tier = await DiskTier.open({ directory: folder.path, capacityBytes, files });
  expect((await recoverAll(tier)).map(({ tokens }) => tokens[0])).toEqual([3, 4, 5, 6, 7, 8]);
  expect(tier.stats().corruptRecords).toBe(1);
});

test("records larger than a segment get one of their own", async () => {
  using folder = temporaryFolder();
  await using tier = await DiskTier.open({ directory: folder.path, capacityBytes, segmentBytes: 65536 });
  await recoverAll(tier, new RecordingOwner());
  const payload = payloadFor(3, 500_000);
  for (let i = 0; i < 20; i += 1) {
    const id = await tier.write(recordOf(Uint32Array.from([i]), [payload]), [payload], noSignal);
    expect(id).not.toBe("rejected");
    expect(directoryBytes(folder.path)).toBeLessThanOrEqual(capacityBytes);
  }
});

test("a data directory that cannot be made is an error of the world", async () => {
  using folder = temporaryFolder();
  writeFileSync(join(folder.path, "file"), "");
  await expect(DiskTier.open({ directory: join(folder.path, "file", "x"), capacityBytes })).rejects.toThrow(/ENOTDIR/);
  mkdirSync(join(folder.path, "tiny"));
  await expect(DiskTier.open({ directory: join(folder.path, "tiny"), capacityBytes: 10 })).rejects.toMatchObject({
    code: "BAD_CONFIG",
  });
});
