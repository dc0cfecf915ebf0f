/** The data directory in any state: the server starts without what cannot be kept, or one line says why it does not start. */
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { dirname, join } from "node:path";
import { expect, onTestFinished, test, vi } from "vitest";
import { temporaryDirectory } from "../../test/support/data-directory.ts";
import {
  folderOfOther,
  keptByOther,
  needsAnotherUser,
  otherUser,
  plants,
  privateFolder,
  sharedFolder,
} from "../../test/support/other-user.ts";
import type { Config } from "../config.ts";
import { describe } from "../errors.ts";
import { createLog } from "../log.ts";
import { connectCache } from "../wire/guest/link.ts";
import { CacheControl } from "../wire/guest/control.ts";
import { slotBytes, testSpace } from "../../test/support/cache.ts";
import { CacheHost } from "./cache-host.ts";
import { lockIfThere } from "./data-directory.ts";

const mebibyte = 1024 * 1024;
const promptMs = 5000;

type HostConfig = Pick<Config, "dataDir" | "memory" | "poolDir" | "disk" | "socket">;

async function start(change: Partial<HostConfig>) {
  const lines: string[] = [];
  const log = createLog({ level: "warn", write: (line) => lines.push(line) });
  const disk = [{ directory: undefined, bytes: 16 * mebibyte }];
  const config = {
    memory: 64 * mebibyte,
    disk,
    socket: "",
    ...change,
    dataDir: change.dataDir ?? privateFolder(),
    scrubDays: 7,
    poolDir: change.poolDir ?? sharedFolder(),
  };
  const host = await CacheHost.open({ config, log });
  onTestFinished(() => host[Symbol.asyncDispose]());
  return { host, lines, config };
}

/** What a start says that is refused: one line. */
async function refusal(change: Partial<HostConfig>): Promise<string> {
  const begin = performance.now();
  const error: unknown = await start(change).then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(performance.now() - begin).toBeLessThan(promptMs);
  expect(error).toMatchObject({ code: "BAD_CONFIG" });
  expect(describe(error)).not.toContain("\n");
  return describe(error);
}

test("one line and no start: a file, a special file system, a directory that others can write, too long a path", async () => {
  const folder = temporaryDirectory();
  writeFileSync(join(folder, "file"), "");
  expect(await refusal({ dataDir: join(folder, "file") })).toContain("is a file, not a directory");
  expect(await refusal({ dataDir: join(folder, "file", "below") })).toContain("is a file, not a directory");
  for (const dataDir of ["/proc/reprise", "/proc/self/fdinfo/reprise", "/sys/reprise/data", "/proc/self"])
    expect(await refusal({ dataDir })).toContain(dataDir);
  const open = join(folder, "open");
  mkdirSync(open);
  chmodSync(open, 0o777);
  expect(await refusal({ dataDir: open })).toContain("can be written by others; run chmod go-w");
  expect(readdirSync(open)).toEqual([]);
  const long = join(folder, "x".repeat(100));
  expect(await refusal({ dataDir: long })).toMatch(
    /has \d+ bytes, and an address holds 107: give a shorter one with --socket/,
  );
  expect(existsSync(long)).toBe(false);
  await start({ dataDir: long, socket: join(privateFolder(), "s") });
});

test("another user's directory is refused, whatever root could do in it", async (context) => {
  needsAnotherUser(context);
  const theirs = folderOfOther();
  expect(await refusal({ dataDir: theirs })).toContain(`belongs to user ${otherUser.uid}`);
  expect(await refusal({ dataDir: join(theirs, "data") })).toContain(`belongs to user ${otherUser.uid}`);
  expect(readdirSync(theirs)).toEqual([]);
  await expect(lockIfThere(theirs)).rejects.toMatchObject({ code: "BAD_CONFIG" });
});

test("on a read-only file system the server starts in memory alone, with the secret that lies there", async (context) => {
  const dataDir = privateFolder();
  const first = await start({ dataDir });
  await first.host[Symbol.asyncDispose]();
  readOnly(dataDir, context);
  const { host, lines } = await start({ dataDir });
  expect(host.secret).toEqual(first.host.secret);
  expect(Object.keys(host.stats().tiers)).toEqual(["memory"]);
  expect(lines.filter((line) => line.includes("going on in memory alone"))).toHaveLength(1);
  expect(dirname(host.socketPath)).not.toBe(dataDir);
  expect(statSync(dirname(host.socketPath)).mode & 0o777).toBe(0o700);
  const session = await connectCache({
    space: testSpace(),
    rank: 0,
    slotBytes: [slotBytes],
    socketPath: host.socketPath,
  });
  await session.close();
  await host[Symbol.asyncDispose]();
  expect(existsSync(dirname(host.socketPath))).toBe(false);
});

test("on a full file system the server starts without what does not fit there, and is reached elsewhere", async (context) => {
  const dataDir = privateFolder();
  fullFileSystem(dataDir, context);
  const { host, lines } = await start({ dataDir });
  expect(host.secret).toHaveLength(32);
  expect(lines.some((line) => line.includes("ENOSPC"))).toBe(true);
  const control = await CacheControl.connect(host.socketPath);
  expect(await control?.stats()).toMatchObject({ sessions: 0 });
  await control?.[Symbol.asyncDispose]();
});

test("where neither the data directory nor the folder for temporary files takes a socket, one line says so", async (context) => {
  const dataDir = privateFolder();
  fullFileSystem(dataDir, context);
  const poolDir = sharedFolder();
  onTestFinished(() => void vi.unstubAllEnvs());
  for (const folder of [dataDir, join(dataDir, "absent")]) {
    vi.stubEnv("TMPDIR", folder);
    const said = await refusal({ dataDir, poolDir });
    expect(said).toContain(`no socket can be made at ${dataDir}/cache.sock, nor in the folder for temporary files`);
  }
});

test("a secret that is empty, cut, a link or open to others is put aside, and a new one is made", async () => {
  const victim = join(temporaryDirectory(), "victim");
  writeFileSync(victim, "v".repeat(32), { mode: 0o600 });
  const faults: Record<string, (path: string) => void> = {
    "has 0 bytes": (path) => writeFileSync(path, "", { mode: 0o600 }),
    "has 31 bytes": (path) => writeFileSync(path, "x".repeat(31), { mode: 0o600 }),
    "can be read by others": (path) => writeFileSync(path, "x".repeat(32), { mode: 0o644 }),
    "is a link": (path) => symlinkSync(victim, path),
    "is a directory": (path) => mkdirSync(path),
    "is a FIFO": (path) => void execFileSync("mkfifo", [path]),
  };
  for (const [fault, make] of Object.entries(faults)) {
    const dataDir = privateFolder();
    make(join(dataDir, "secret"));
    const { host, lines } = await start({ dataDir, disk: [] });
    expect(lines, fault).toEqual([expect.stringContaining(`secret ${fault}`)]);
    expect(readFileSync(join(dataDir, "secret"))).toEqual(host.secret);
    expect(statSync(join(dataDir, "secret")).mode & 0o777).toBe(0o600);
    expect(readdirSync(dataDir).filter((name) => name.startsWith("secret.odd-"))).toHaveLength(1);
    await host[Symbol.asyncDispose]();
    const again = await start({ dataDir, disk: [] });
    expect(again.host.secret).toEqual(host.secret);
    await again.host[Symbol.asyncDispose]();
  }
  expect(readFileSync(victim, "utf8")).toBe("v".repeat(32));
}, 60_000);

test("what a killed server had half written goes at the next start", async () => {
  const dataDir = privateFolder();
  writeFileSync(join(dataDir, "weights.json.0123456789abcdef.new"), "{", { mode: 0o600 });
  await start({ dataDir });
  expect(readdirSync(dataDir).filter((name) => name.endsWith(".new"))).toEqual([]);
});

test("a socket lies only in a private folder, and nothing but a dead server's socket is replaced", async (context) => {
  needsAnotherUser(context);
  const shared = sharedFolder();
  expect(await refusal({ socket: join(shared, "cache.sock") })).toContain("can be written by others");
  const folder = privateFolder();
  const victim = join(folder, "notes.txt");
  writeFileSync(victim, "ours", { mode: 0o600 });
  symlinkSync(victim, join(folder, "link"));
  mkdirSync(join(folder, "directory"));
  for (const [name, kind] of [
    ["notes.txt", "a file"],
    ["link", "a link"],
    ["directory", "a directory"],
  ] as const)
    expect(await refusal({ socket: join(folder, name) })).toContain(`is ${kind}, not a socket`);
  expect(readFileSync(victim, "utf8")).toBe("ours");
}, 60_000);

test("guests speak to no socket of another user, nor to one that he could put there", async (context) => {
  needsAnotherUser(context);
  const shared = sharedFolder();
  const theirs = join(shared, "theirs.sock");
  await keptByOther("net.createServer(() => {}).listen(argument, () => console.log('listening'))", theirs);
  await expect(CacheControl.connect(theirs)).rejects.toMatchObject({ code: "CACHE_UNAVAILABLE" });
  const begin = performance.now();
  await expect(
    connectCache({ space: testSpace(), rank: 0, slotBytes: [slotBytes], socketPath: theirs }),
  ).rejects.toThrow("is not used");
  expect(performance.now() - begin).toBeLessThan(1000);
  // A folder of ours in which a socket of his was left, as when the folder was open before.
  const folder = privateFolder();
  const moved = join(folder, "cache.sock");
  const server = createServer().listen(moved);
  onTestFinished(() => void server.close());
  await new Promise((resolve) => server.once("listening", resolve));
  chownSync(moved, otherUser.uid, otherUser.gid);
  await expect(CacheControl.connect(moved)).rejects.toThrow(`it belongs to user ${otherUser.uid}`);
});

test.skipIf(process.getuid?.() !== 0).each([
  { where: "a shared folder", folder: () => sharedFolder() },
  { where: "/dev/shm itself", folder: () => "/dev/shm" },
])(
  "names planted by another user in $where neither delay a start nor change what it does",
  async ({ folder }) => {
    const poolDir = folder();
    const victim = join(privateFolder(), "victim");
    writeFileSync(victim, "ours", { mode: 0o600 });
    const planted = Object.values(plants).map((plant, i) => {
      const path = join(poolDir, `reprise-${process.geteuid!()}-planted-by-test-${process.pid}-${i}.pool`);
      onTestFinished(() => rmSync(path, { recursive: true, force: true }));
      plant(path, victim);
      return path;
    });
    const begin = performance.now();
    const { host, lines } = await start({ poolDir });
    expect(performance.now() - begin).toBeLessThan(promptMs);
    expect(lines).toEqual([]);
    await host[Symbol.asyncDispose]();
    expect(readFileSync(victim, "utf8")).toBe("ours");
    for (const path of planted) expect(lstatSync(path).uid).toBe(otherUser.uid);
  },
  30_000,
);

/** Makes what is written to `directory` fail with EROFS, or skips the test where that cannot be arranged. */
function readOnly(directory: string, { skip }: { skip: (condition: boolean, note: string) => void }): void {
  mounted(directory, ["--bind", directory, directory], skip);
  execFileSync("mount", ["-o", "remount,bind,ro", directory]);
}

/** Mounts a file system over `directory` that has no room for one more byte or name. */
function fullFileSystem(directory: string, { skip }: { skip: (condition: boolean, note: string) => void }): void {
  mounted(directory, ["-t", "tmpfs", "-o", "size=16k,nr_inodes=3,mode=700", "tmpfs", directory], skip);
  writeFileSync(join(directory, "filler"), "");
  writeFileSync(join(directory, "filler2"), "");
}

function mounted(
  directory: string,
  options: readonly string[],
  skip: (condition: boolean, note: string) => void,
): void {
  let done = false;
  try {
    execFileSync("mount", options, { stdio: "ignore" });
    done = true;
  } catch {
    // told by the skipped test
  }
  skip(!done, "needs the right to mount file systems");
  onTestFinished(() => void execFileSync("umount", ["-l", directory]));
}
