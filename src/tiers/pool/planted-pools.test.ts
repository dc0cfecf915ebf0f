/** A shared folder in the hands of another user: pools he plants are not adopted, and nothing he does stops or delays a start. */
import { execFileSync } from "node:child_process";
import {
  closeSync,
  existsSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { basename, join } from "node:path";
import { expect, test, vi } from "vitest";
import { temporaryDirectory } from "../../../test/support/data-directory.ts";
import { rounds } from "../../../test/support/depth.ts";
import { asOther, needsAnotherUser, plants, privateFolder, sharedFolder } from "../../../test/support/other-user.ts";
import { PoolMapping } from "../../ffi/pool-mapping.ts";
import { createLog, silentLog } from "../../log.ts";
import { MemoryPool } from "../memory.ts";
import { sweepLeftovers } from "./leftovers.ts";
import { directoryIdentity, rememberedPool, rememberPool } from "./pool-file.ts";

const extent = 64 * 1024 * 1024;
/** Far above what a start takes, far below what a FIFO or a million names would. */
const promptMs = 5000;

function setUp() {
  const [shared, dataDirectory] = [sharedFolder(), privateFolder()];
  const lines: string[] = [];
  const log = createLog({ level: "warn", write: (line) => lines.push(line) });
  return {
    shared,
    dataDirectory,
    lines,
    open: () => MemoryPool.open({ dataDirectory, directory: shared, capacityBytes: extent, log }),
    /** A name as the next pool's would be, remembered as if it were that of a killed server. */
    rememberedName: (): string => {
      const path = join(
        shared,
        `reprise-${process.geteuid!()}-${directoryIdentity(dataDirectory)}-0123456789abcdef.pool`,
      );
      rememberPool(dataDirectory, path);
      return path;
    },
  };
}

test("whatever another user plants under the name that is adopted next: not adopted, not touched, and no delay", async (context) => {
  needsAnotherUser(context);
  for (const [name, plant] of Object.entries(plants)) {
    const { rememberedName, open, lines, shared } = setUp();
    const victim = join(privateFolder(), "victim");
    writeFileSync(victim, "ours", { mode: 0o600 });
    const planted = rememberedName();
    plant(planted, victim);
    const before = lstatSync(planted);

    const start = performance.now();
    await using pool = open();
    await pool.swept;
    expect(performance.now() - start, name).toBeLessThan(promptMs);
    expect(pool.path).not.toBe(planted);
    expect(pool.stats().usedSlots).toBe(0);
    expect(lstatSync(planted)).toMatchObject({ ino: before.ino, size: before.size, mtimeMs: before.mtimeMs });
    expect(readFileSync(victim, "utf8")).toBe("ours");
    expect(lines, name).toEqual([expect.stringContaining(`${planted} is not adopted: it `)]);
    expect(readdirSync(shared).sort()).toEqual([basename(planted), basename(pool.path)].sort());
  }
}, 60_000);

test("a whole pool that another user planted is not adopted, and he cannot read the one that is made", async (context) => {
  needsAnotherUser(context);
  const { rememberedName, open, shared, dataDirectory } = setUp();
  // A pool with a valid header of this very data directory: what the worst planter could make.
  const model = open();
  const copy = join(shared, "copy");
  execFileSync("cp", ["--sparse=always", model.path, copy]);
  await model[Symbol.asyncDispose]();
  const planted = rememberedName();
  execFileSync("chmod", ["666", copy]);
  asOther(`fs.copyFileSync(${JSON.stringify(copy)}, argument); fs.chmodSync(argument, 0o666)`, planted);
  await using pool = open();
  expect(pool.path).not.toBe(planted);
  expect(rememberedPool(dataDirectory)).toBe(pool.path);
  pool.view(pool.allocate(4096) as number, 4096).fill(7);
  const read = "try { fs.readFileSync(argument) ; console.log('read') } catch (error) { console.log(error.code) }";
  expect(asOther(read, pool.path).trim()).toBe("EACCES");
  expect(statSync(pool.path).mode & 0o777).toBe(0o600);
});

test("a pool of ours that others can write, or of another data directory under this one's name, is not adopted", async () => {
  const { rememberedName, open, lines, shared } = setUp();
  const model = open();
  const planted = rememberedName();
  execFileSync("cp", ["--sparse=always", model.path, planted]);
  execFileSync("chmod", ["666", planted]);
  await model[Symbol.asyncDispose]();
  rememberedName();
  await using pool = open();
  expect(pool.path).not.toBe(planted);
  expect(lines).toEqual([expect.stringContaining("can be written by others")]);

  const other = setUp();
  await using others = MemoryPool.open({
    dataDirectory: other.dataDirectory,
    directory: shared,
    capacityBytes: extent,
  });
  const linked = setUp();
  const name = linked.rememberedName();
  execFileSync("cp", ["--sparse=always", others.path, name]);
  await using own = linked.open();
  expect(own.path).not.toBe(name);
  expect(linked.lines).toEqual([expect.stringContaining("it is of another data directory")]);
});

const manyNames = rounds({ small: 10_000, full: 50_000 });

test(`${manyNames} names of others delay nothing, and leftovers among them still go`, async (context) => {
  needsAnotherUser(context);
  const { shared, open, dataDirectory } = setUp();
  asOther(
    `for (let i = 0; i < ${manyNames}; i += 1) fs.closeSync(fs.openSync(argument + "/reprise-0-" + i + ".pool", "w"))`,
    shared,
  );
  const leftover = join(shared, `reprise-${process.geteuid!()}-gone-0123456789abcdef.pool`);
  writeFileSync(leftover, "", { mode: 0o600 });
  const start = performance.now();
  const place = await MemoryPool.place({ dataDirectory, directory: shared, wantedBytes: extent });
  await using pool = open();
  expect(performance.now() - start).toBeLessThan(500);
  expect(place.freeBytes).toBeGreaterThan(0);
  await pool.swept;
  expect(existsSync(leftover)).toBe(false);
  expect(readdirSync(shared)).toHaveLength(manyNames + 1);
}, 60_000);

test("where there is no room, leftovers go for it, and the folder is looked through for two seconds at most", async () => {
  const { shared, dataDirectory } = setUp();
  const leftover = join(shared, `reprise-${process.geteuid!()}-gone-0123456789abcdef.pool`);
  writeFileSync(leftover, "", { mode: 0o600 });
  const place = () => MemoryPool.place({ dataDirectory, directory: shared, wantedBytes: 2 ** 60 });
  const timeout = vi.spyOn(AbortSignal, "timeout").mockReturnValueOnce(AbortSignal.abort());
  await place(); // the two seconds are over at once
  expect(timeout).toHaveBeenCalledWith(2000);
  expect(existsSync(leftover)).toBe(true);
  await place();
  expect(existsSync(leftover)).toBe(false);
  timeout.mockRestore();
});

test("a guest maps no pool of another user, no link, and nothing that others can write", (context) => {
  needsAnotherUser(context);
  const shared = sharedFolder();
  const path = join(shared, "pool");
  asOther("fs.writeFileSync(argument, Buffer.alloc(65536), { mode: 0o600 })", path);
  const refused = expect.objectContaining({
    code: "CACHE_UNAVAILABLE",
    message: expect.stringContaining("is not used: it ") as string,
  }) as Error;
  expect(() => PoolMapping.open(path, 65_536)).toThrow(refused);
  const [ours, link] = [join(temporaryDirectory(), "ours"), join(shared, "link")];
  writeFileSync(ours, Buffer.alloc(65_536), { mode: 0o600 });
  symlinkSync(ours, link);
  expect(() => PoolMapping.open(link, 65_536)).toThrow(refused);
  PoolMapping.open(ours, 65_536).close();
  execFileSync("chmod", ["620", ours]);
  expect(() => PoolMapping.open(ours, 65_536)).toThrow(refused);
});

test("folders that servers left which were killed while they loaded go when they are old and nobody has them open", async (context) => {
  needsAnotherUser(context);
  const shared = sharedFolder();
  const folder = (name: string, ...files: string[]) => {
    const path = join(shared, name);
    mkdirSync(path, { mode: 0o700 });
    for (const file of files) writeFileSync(join(path, file), "", { mode: 0o600 });
    return path;
  };
  const age = (path: string) => utimesSync(path, 1, 1);
  const [old, empty, young, more] = [
    folder("reprise-engine-aaaaaa", "abort-flag"),
    folder("reprise-engine-bbbbbb"),
    folder("reprise-engine-cccccc", "abort-flag"),
    folder("reprise-engine-dddddd", "abort-flag", "something else"),
  ];
  const used = folder("reprise-engine-eeeeee", "abort-flag");
  const theirs = join(shared, "reprise-engine-ffffff");
  asOther(
    "fs.mkdirSync(argument); fs.writeFileSync(argument + '/abort-flag', ''); fs.utimesSync(argument, 1, 1)",
    theirs,
  );
  const flag = openSync(join(used, "abort-flag"), "r+");
  for (const path of [old, empty, more, used]) age(path);
  await sweepLeftovers(shared, { signal: new AbortController().signal, log: silentLog });
  expect([old, empty].filter((path) => existsSync(path))).toEqual([]);
  for (const path of [young, more, used, theirs]) expect(existsSync(path), path).toBe(true);
  expect(existsSync(join(theirs, "abort-flag"))).toBe(true);
  closeSync(flag);
});
