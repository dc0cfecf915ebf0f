import { spawnSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { temporaryFolder } from "../../../test/support/cache.ts";
import { rounds, timeoutMs } from "../../../test/support/depth.ts";
import { failing, fill, payloadFor } from "../../../test/support/disk.ts";
import { gated, lateReads } from "../../../test/support/late-tier.ts";
import { ownedLogSuite } from "../log-suite.ts";
import { expectReadable, noSignal, recordOf, recoverAll, RecordingOwner, tierSuite } from "../tier-suite.ts";
import { DiskTier, type DiskTierOptions } from "./disk-tier.ts";
import { nodeFiles, type DiskFiles } from "./files.ts";

const capacityBytes = 4 * 1024 * 1024;

for (const suite of [tierSuite, ownedLogSuite])
  suite("disk", async () => {
    const folder = temporaryFolder();
    return {
      capacityBytes,
      open: () => open(folder.path),
      rot: (payload) => rot(folder.path, payload),
      dispose: async () => folder[Symbol.dispose](),
    };
  });

/** A tier over one directory, from which nothing is read but what the test reads. */
function open(
  directory: string,
  change: Partial<DiskTierOptions> & { capacityBytes?: number } = {},
): Promise<DiskTier> {
  const { capacityBytes: bytes = capacityBytes, ...options } = change;
  return DiskTier.open({ drives: [{ directory, capacityBytes: bytes }], scrubBytesPerSecond: 0, ...options });
}

function directoryBytes(directory: string): number {
  return readdirSync(directory).reduce((sum, name) => sum + statSync(join(directory, name)).size, 0);
}

function regionFiles(directory: string): string[] {
  return readdirSync(directory)
    .filter((name) => name.endsWith(".region"))
    .map((name) => join(directory, name));
}

/** Flips a bit in the middle of a payload, wherever it lies. */
function rot(directory: string, payload: Uint8Array): void {
  for (const path of regionFiles(directory)) {
    const bytes = readFileSync(path);
    const at = bytes.indexOf(payload.subarray(0, 4096));
    if (at === -1) continue;
    bytes[at + payload.length / 2]! ^= 1;
    writeFileSync(path, bytes);
    return;
  }
  throw new Error(`a payload is in no file of ${directory}`);
}

/** Small and the same each time. */
function generator(seed: number): (limit: number) => number {
  let state = seed;
  return (limit) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * limit);
  };
}

test(
  "flipped bits anywhere in the files never yield a wrong payload, and are counted",
  async () => {
    const random = generator(1);
    let missing = 0;
    let counted = 0;
    const damages = rounds({ small: 5, full: 20 });
    for (let round = 0; round < damages; round += 1) {
      using folder = temporaryFolder();
      {
        await using tier = await open(folder.path);
        await recoverAll(tier);
        await fill(tier, 40);
      }
      for (let flip = 0; flip < 10; flip += 1) {
        const files = regionFiles(folder.path);
        const path = files[random(files.length)]!;
        const bytes = readFileSync(path);
        bytes[random(bytes.length)]! ^= 1 << random(8);
        writeFileSync(path, bytes);
      }
      await using tier = await open(folder.path);
      let right = 0;
      for (const record of await recoverAll(tier)) {
        const into = new Uint8Array(9000);
        const answer = await tier
          .read(record.id, record.key, [into], noSignal)
          .catch((error: { code: string }) => error.code);
        if (answer === "read") {
          expect(Buffer.compare(into, payloadFor(record.tokens[0]!))).toBe(0);
          right += 1;
        } else expect(answer).toBe("RECORD_CORRUPT");
      }
      missing += 40 - right;
      counted += tier.stats().corruptRecords;
    }
    expect(missing).toBeGreaterThan(damages);
    expect(counted).toBeGreaterThan(damages);
  },
  timeoutMs(30_000),
);

test("a torn tail costs only the record it belongs to, and the next start reads the contents", async () => {
  using folder = temporaryFolder();
  {
    await using tier = await open(folder.path);
    await recoverAll(tier);
    await fill(tier, 5);
  }
  const [path] = regionFiles(folder.path);
  // As if the process had died while it wrote: no contents, and the last record's payload has not arrived whole.
  truncateSync(path!, 4096 + 4 * (4096 + 12288) + 8192);
  {
    await using tier = await open(folder.path);
    expect((await recoverAll(tier)).map((record) => record.tokens[0])).toEqual([0, 1, 2, 3]);
    expect(tier.stats()).toMatchObject({ corruptRecords: 0 });
  }
  const reads: number[] = [];
  await using tier = await open(folder.path, { files: counting(reads) });
  expect((await recoverAll(tier)).map((record) => record.tokens[0])).toEqual([0, 1, 2, 3]);
  expect(reads).toHaveLength(4); // header, trailer, columns, headers
});

/** Files that note where they are read. */
function counting(reads: number[]): DiskFiles {
  return {
    ...nodeFiles,
    open: async (path) => {
      const file = await nodeFiles.open(path);
      return {
        ...file,
        read: (into, position) => {
          reads.push(position);
          return file.read(into, position);
        },
      };
    },
  };
}

test("the files never exceed the capacity, also when it is smaller than before", async () => {
  using folder = temporaryFolder();
  {
    await using tier = await open(folder.path);
    await recoverAll(tier);
    for (let i = 0; i < 10; i += 1) {
      await fill(tier, 60);
      expect(directoryBytes(folder.path)).toBeLessThanOrEqual(capacityBytes);
    }
  }
  await using tier = await open(folder.path, { capacityBytes: capacityBytes / 4 });
  await recoverAll(tier);
  expect(directoryBytes(folder.path)).toBeLessThanOrEqual(capacityBytes / 4);
  await fill(tier, 60);
  expect(directoryBytes(folder.path)).toBeLessThanOrEqual(capacityBytes / 4);
});

test("a segment of format 1 and a region of another version are left alone until their room is needed", async () => {
  using folder = temporaryFolder();
  const foreign = Buffer.alloc(32768, 7);
  foreign.write("RPSEGMNT");
  foreign.writeUInt32LE(1, 8);
  writeFileSync(join(folder.path, "0000000005.segment"), foreign);
  foreign.write("RPREGION");
  foreign.writeUInt32LE(99, 8);
  writeFileSync(join(folder.path, "0000000006.region"), foreign);
  await using tier = await open(folder.path, { capacityBytes: 1024 * 1024 });
  expect(await recoverAll(tier)).toEqual([]);
  expect(tier.stats()).toMatchObject({ foreignBytes: 65536, regions: 2, corruptRecords: 0 });
  await fill(tier, 80);
  expect(tier.stats().foreignBytes).toBe(0);
});

test("a second opener learns who owns the directory", async () => {
  using folder = temporaryFolder();
  await using _owner = await open(folder.path);
  await expect(open(folder.path)).rejects.toMatchObject({
    code: "DATA_DIRECTORY_IN_USE",
    message: expect.stringContaining(String(process.pid)),
  });
});

test("a full disk rejects and a broken one is unavailable; both work again afterwards, with nothing half written", async () => {
  using folder = temporaryFolder();
  const state: { fault: string | undefined } = { fault: "ENOSPC" };
  const payload = payloadFor(1);
  const record = recordOf(Uint32Array.from([1, 7]), [payload]);
  {
    await using tier = await open(folder.path, { files: failing(state) });
    await recoverAll(tier);
    expect(await tier.write(record, [payload], noSignal)).toBe("rejected");
    state.fault = undefined;
    const id = await tier.write(record, [payload], noSignal);
    state.fault = "EIO";
    await expect(tier.write(record, [payload], noSignal)).rejects.toMatchObject({ code: "TIER_UNAVAILABLE" });
    await expect(tier.read(id as never, record.key, [new Uint8Array(9000)], noSignal)).rejects.toMatchObject({
      code: "TIER_UNAVAILABLE",
    });
    state.fault = undefined;
    await fill(tier, 3);
    expect(tier.stats().records).toBe(4);
  }
  await using tier = await open(folder.path);
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
    const answers: unknown[] = [];
    writeFileSync(join(mount, "other"), Buffer.alloc(2 ** 20));
    const write = (tier: DiskTier, i: number) => {
      const payload = payloadFor(i, 300_000);
      return tier.write(recordOf(Uint32Array.from([i]), [payload]), [payload], noSignal);
    };
    {
      await using tier = await DiskTier.open({ drives: [{ directory, capacityBytes: 64 * 2 ** 20 }] });
      await recoverAll(tier);
      for (let i = 0; i < 10; i += 1) answers.push(await write(tier, i));
      expect(answers.filter((answer) => answer === "rejected").length).toBeGreaterThan(2);
      rmSync(join(mount, "other"));
      answers.push(await write(tier, 10));
      expect(answers.at(-1)).not.toBe("rejected");
    }
    await using tier = await DiskTier.open({ drives: [{ directory, capacityBytes: 64 * 2 ** 20 }] });
    const records = await recoverAll(tier);
    expect(records.map(({ tokens }) => tokens[0])).toEqual(
      [...answers.keys()].filter((i) => answers[i] !== "rejected"),
    );
    for (const { id, key, tokens } of records) {
      const into = new Uint8Array(300_000);
      expect(await tier.read(id, key, [into], noSignal)).toBe("read");
      expect(Buffer.compare(into, payloadFor(tokens[0]!, 300_000))).toBe(0);
    }
  } finally {
    spawnSync("umount", [mount]);
  }
});

test("a region that cannot be read costs itself, not the others", async () => {
  using folder = temporaryFolder();
  {
    await using tier = await open(folder.path, { regionBytes: 65536 });
    await recoverAll(tier);
    await fill(tier, 9);
  }
  const [bad] = regionFiles(folder.path);
  const files: DiskFiles = {
    ...nodeFiles,
    open: async (path) => {
      const file = await nodeFiles.open(path);
      const fails = (position: number) => path === bad && position > 0;
      const broken = () => Promise.reject(new Error("EIO"));
      return { ...file, read: (into, at) => (fails(at) ? broken() : file.read(into, at)) };
    },
  };
  await using tier = await open(folder.path, { files });
  expect((await recoverAll(tier)).map(({ tokens }) => tokens[0])).toEqual([3, 4, 5, 6, 7, 8]);
  expect(tier.stats().corruptRecords).toBe(1);
});

test("records larger than a region get one of their own", async () => {
  using folder = temporaryFolder();
  await using tier = await open(folder.path, { regionBytes: 65536 });
  await recoverAll(tier, new RecordingOwner());
  const payload = payloadFor(3, 500_000);
  for (let i = 0; i < 20; i += 1) {
    const id = await tier.write(recordOf(Uint32Array.from([i]), [payload]), [payload], noSignal);
    expect(id).not.toBe("rejected");
    expect(directoryBytes(folder.path)).toBeLessThanOrEqual(capacityBytes);
  }
});

test("a record of more parts than are read again is rejected", async () => {
  using folder = temporaryFolder();
  await using tier = await open(folder.path);
  await recoverAll(tier);
  const write = (parts: number) => {
    const payloads = Array.from({ length: parts }, (_, part) => payloadFor(part, part === 1000 ? 9000 : 0));
    const record = recordOf(Uint32Array.from([parts]), payloads);
    return { record, payloads, outcome: tier.write(record, payloads, noSignal) };
  };
  expect(await write(1025).outcome).toBe("rejected");
  const { record, payloads, outcome } = write(1024);
  const id = await outcome;
  if (id === "rejected") throw new Error("there is room");
  await expectReadable(tier, { ...record, id }, payloads);
});

test("a data directory that cannot be made is an error of the world", async () => {
  using folder = temporaryFolder();
  writeFileSync(join(folder.path, "file"), "");
  await expect(open(join(folder.path, "file", "x"))).rejects.toMatchObject({
    code: "TIER_UNAVAILABLE",
    cause: { code: "ENOTDIR" },
  });
  mkdirSync(join(folder.path, "tiny"));
  await expect(open(join(folder.path, "tiny"), { capacityBytes: 10 })).rejects.toMatchObject({
    code: "BAD_CONFIG",
  });
});

test("rot is found by the scrubber before anybody reads it", async () => {
  using folder = temporaryFolder();
  {
    await using tier = await open(folder.path);
    await recoverAll(tier);
    await fill(tier, 6);
  }
  const [path] = regionFiles(folder.path);
  const bytes = readFileSync(path!);
  bytes[4096 + 4096 + 100]! ^= 1;
  writeFileSync(path!, bytes);
  const owner = new RecordingOwner();
  await using tier = await open(folder.path, { scrubBytesPerSecond: 2 ** 30 });
  const records = await recoverAll(tier, owner);
  await expect.poll(() => tier.stats().corruptRecords, { timeout: 10_000 }).toBe(1);
  expect([...owner.evicted]).toEqual([records.find(({ tokens }) => tokens[0] === 0)!.id]);
  expect(tier.stats()).toMatchObject({ records: 5 });
  expect(tier.stats().scrubbedBytes).toBeGreaterThan(0);
});

test("room is reserved when a region is begun", async () => {
  using folder = temporaryFolder();
  await using tier = await open(folder.path);
  await recoverAll(tier);
  await fill(tier, 1);
  const [path] = regionFiles(folder.path);
  expect(statSync(path!).blocks * 512).toBeGreaterThanOrEqual(capacityBytes / 8);
  expect(tier.stats().drives).toMatchObject([{ direct: true }]);
});

test("a write waits while reads are under way, and goes on all the same", async () => {
  using folder = temporaryFolder();
  const { promise: gate, open: letGo } = gated();
  const files = lateReads(gate);
  await using tier = await open(folder.path, { files });
  await recoverAll(tier);
  const payload = payloadFor(0);
  const record = recordOf(Uint32Array.from([0, 7]), [payload]);
  const id = await tier.write(record, [payload], noSignal);
  const read = tier.read(id as never, record.key, [new Uint8Array(9000)], noSignal);
  const startedAt = performance.now();
  await fill(tier, 1);
  expect(performance.now() - startedAt).toBeGreaterThan(15);
  letGo();
  expect(await read).toBe("read");
});
