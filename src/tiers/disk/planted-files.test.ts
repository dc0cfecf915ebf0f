/** What lies in a drive's directory and is none of the tier's: told, left alone, and in nobody's way. */
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { temporaryDirectory } from "../../../test/support/data-directory.ts";
import {
  counting,
  loadAndVerify,
  openTestCache,
  save,
  slotBytes,
  testPool,
  testSpace,
} from "../../../test/support/cache.ts";
import { createLog } from "../../log.ts";
import { DirectoryLock } from "./directory-lock.ts";
import { DiskTier } from "./disk-tier.ts";
import { nodeFiles } from "./files.ts";

const mebibyte = 1024 * 1024;

/** Stores and loads a text over the directory. @returns the log's lines */
async function use(directory: string, options: { expectHit: boolean }): Promise<string[]> {
  const lines: string[] = [];
  const log = createLog({ level: "warn", write: (line) => lines.push(line) });
  const pool = testPool();
  const tier = await DiskTier.open({
    drives: [{ directory, capacityBytes: 8 * mebibyte }],
    regionBytes: mebibyte,
    log,
  });
  await using cache = await openTestCache({ pool, tiers: [tier] });
  const session = cache.openSession({ space: testSpace(), rank: 0, slotBytes: [slotBytes] });
  await cache.recovered(10_000);
  if (options.expectHit) expect(await loadAndVerify(session, pool, counting(16))).toBe(16);
  else await save(session, pool, counting(16));
  await session.close();
  await cache.flush();
  return lines;
}

test("odd things under regions' names are told of, stay, and stop neither this start nor the next", async () => {
  const directory = temporaryDirectory();
  const victim = join(temporaryDirectory(), "victim");
  writeFileSync(victim, "ours", { mode: 0o600 });
  const at = (name: string) => join(directory, name);
  mkdirSync(at("0000000001.region"));
  symlinkSync(victim, at("0000000002.region"));
  execFileSync("mkfifo", [at("0000000003.region")]);
  writeFileSync(at("0000000004.region"), "x", { mode: 0o600 });
  chmodSync(at("0000000004.region"), 0o666);
  symlinkSync(at("nowhere"), at("0000000005.region"));
  writeFileSync(at("9999999999.region"), Buffer.alloc(16_384), { mode: 0o600 });
  writeFileSync(at("12.region"), "", { mode: 0o600 });
  const odd = readdirSync(directory).filter((name) => name.endsWith(".region"));

  const lines = await use(directory, { expectHit: false });
  for (const name of odd) expect(lines.filter((line) => line.includes(name))).toHaveLength(1);
  expect(readdirSync(directory)).toEqual(expect.arrayContaining(odd));
  expect(readFileSync(victim, "utf8")).toBe("ours");
  expect(existsSync(at("nowhere"))).toBe(false);
  expect(lstatSync(at("0000000003.region")).isFIFO()).toBe(true);
  await use(directory, { expectHit: true });
});

test("what came back from a backup with its modes lost is used, and closed to others again", async () => {
  const directory = temporaryDirectory();
  await use(directory, { expectHit: false });
  for (const name of readdirSync(directory)) chmodSync(join(directory, name), 0o644);
  await use(directory, { expectHit: true });
  for (const name of readdirSync(directory)) expect(statSync(join(directory, name)).mode & 0o077, name).toBe(0);
});

test("the lock is not written through a link or a second name, and the refusal says what to do", () => {
  const directory = temporaryDirectory();
  const victim = join(temporaryDirectory(), "victim");
  const lock = join(directory, "lock");
  writeFileSync(victim, "ours", { mode: 0o600 });
  symlinkSync(victim, lock);
  expect(() => DirectoryLock.take(directory)).toThrow(`${lock} is a link, and no lock of ours: remove it`);
  execFileSync("rm", [lock]);
  linkSync(victim, lock);
  expect(() => DirectoryLock.take(directory)).toThrow(`${lock} has 2 names`);
  expect(readFileSync(victim, "utf8")).toBe("ours");
  execFileSync("rm", [lock]);
  mkdirSync(lock);
  expect(() => DirectoryLock.take(directory)).toThrow(expect.objectContaining({ code: "BAD_CONFIG" }));
});

test("a directory that others can write is refused as a drive", async () => {
  const directory = temporaryDirectory();
  chmodSync(directory, 0o777);
  await expect(DiskTier.open({ drives: [{ directory, capacityBytes: mebibyte }] })).rejects.toMatchObject({
    code: "BAD_CONFIG",
    message: expect.stringContaining("can be written by others") as string,
  });
});

test("a full drive is told of once, every write that it refuses is counted, and so is the end of it", async () => {
  const directory = temporaryDirectory();
  const lines: string[] = [];
  const log = createLog({ level: "info", write: (line) => lines.push(line) });
  let isFull = true;
  const files = {
    ...nodeFiles,
    create: async (path: string) => {
      const file = await nodeFiles.create(path);
      return {
        ...file,
        direct: file.direct,
        allocate: async (bytes: number) => (isFull ? "full" : file.allocate(bytes)),
      } as const;
    },
  };
  const drives = [{ directory, capacityBytes: 8 * mebibyte }];
  const pool = testPool();
  const tier = await DiskTier.open({ drives, regionBytes: mebibyte, log, files });
  await using cache = await openTestCache({ pool, tiers: [tier] });
  const session = cache.openSession({ space: testSpace(), rank: 0, slotBytes: [slotBytes] });
  await cache.recovered(10_000);
  for (let text = 0; text < 10; text += 1) await save(session, pool, counting(8, 100 * text));
  await expect.poll(() => tier.stats().drives[0]?.refused).toBeGreaterThan(10);
  const told = () => lines.filter((line) => line.includes("full") || line.includes("has room again"));
  expect(told()).toEqual([expect.stringContaining(`the file system of ${directory} is full`)]);
  isFull = false;
  await save(session, pool, counting(8, 5000));
  await expect.poll(() => told().length).toBe(2);
  expect(told()[1]).toContain("has room again");
  await session.close();
});
