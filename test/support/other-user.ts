/**
 * Another user of this machine, who may plant things in shared folders. Only root can act as somebody else; elsewhere the tests
 * that need it are skipped, and say so.
 */
import { execFileSync, spawn } from "node:child_process";
import { chmodSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { onTestFinished, type TestContext } from "vitest";
import { temporaryDirectory } from "./data-directory.ts";

/** "nobody" on Debian; any but ours will do. */
export const otherUser = { uid: 65_534, gid: 65_534 };

/** The first line of a test that plants things as another user. */
export function needsAnotherUser({ skip }: Pick<TestContext, "skip">): void {
  skip(process.getuid?.() !== 0, "needs root, to act as another user");
}

/** A folder as /dev/shm is: everybody may make names, nobody may move those of others. */
export function sharedFolder(): string {
  const folder = temporaryDirectory();
  chmodSync(folder, 0o1777);
  return folder;
}

/** A folder of the other user's own. */
export function folderOfOther(): string {
  const folder = join(sharedFolder(), "theirs");
  asOther(`fs.mkdirSync(argument, { mode: 0o755 })`, folder);
  return folder;
}

/** Runs a piece of JavaScript as the other user; `argument` is given to it. @returns what it prints */
export function asOther(script: string, argument: string): string {
  return execFileSync(process.execPath, ["-e", prologue + script, argument], {
    ...otherUser,
    encoding: "utf8",
    stdio: ["ignore", "pipe", "pipe"],
  });
}

/** As {@link asOther}, of a process that goes on until the test ends. Resolves when it has printed something. */
export async function keptByOther(script: string, argument: string): Promise<void> {
  const process_ = spawn(process.execPath, ["-e", prologue + script, argument], {
    ...otherUser,
    stdio: ["ignore", "pipe", "inherit"],
  });
  onTestFinished(() => void process_.kill("SIGKILL"));
  await new Promise((resolve) => process_.stdout.once("data", resolve));
}

/** What somebody may put under a name. Each makes `path`, as the other user. `victim` is a file of ours. */
export const plants: Readonly<Record<string, (path: string, victim: string) => void>> = {
  "a file that all may write": (path) =>
    void asOther("fs.writeFileSync(argument, 'x'); fs.chmodSync(argument, 0o666)", path),
  "a file of 0600": (path) => void asOther("fs.writeFileSync(argument, 'x', { mode: 0o600 })", path),
  "a directory": (path) => void asOther("fs.mkdirSync(argument); fs.writeFileSync(argument + '/x', 'x')", path),
  "a FIFO": (path) => void execFileSync("mkfifo", ["-m", "666", path], otherUser),
  "a socket": (path) => void asOther("net.createServer().listen(argument, () => process.exit(0))", path),
  "a link to a file of ours": (path, victim) =>
    void asOther(`fs.symlinkSync(${JSON.stringify(victim)}, argument)`, path),
  "a dangling link": (path) => void asOther("fs.symlinkSync(argument + '-of-others', argument)", path),
  "a link to a device": (path) => void asOther("fs.symlinkSync('/dev/zero', argument)", path),
};

const prologue =
  "const fs = require('fs'); const net = require('net'); const argument = process.argv[1]; process.umask(0);\n";

/** A directory that is ours, below which all is private. */
export function privateFolder(): string {
  const folder = join(temporaryDirectory(), "ours");
  mkdirSync(folder, { mode: 0o700 });
  return folder;
}
