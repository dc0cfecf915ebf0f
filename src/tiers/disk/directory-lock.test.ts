import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { temporaryDirectory } from "../../../test/support/data-directory.ts";
import { DirectoryLock } from "./directory-lock.ts";

/** Has the lock from the first line of its output on, and does as the shell's lines say. */
async function holder(lock: string, lines: string): Promise<number> {
  const script = `exec 9<>"$0"; flock 9; echo locked; ${lines}; sleep 30`;
  const shell = spawn("sh", ["-c", script, lock], { stdio: ["ignore", "pipe", "inherit"], detached: true });
  onTestFinished(() => void process.kill(-shell.pid!, "SIGKILL"));
  await once(shell.stdout, "data");
  return shell.pid!;
}

test("who comes second says who has the directory, until that one ends", () => {
  const directory = temporaryDirectory();
  const lock = DirectoryLock.take(directory);
  expect(() => DirectoryLock.take(directory)).toThrow(`${directory} belongs to process ${process.pid}: stop it`);
  expect(readFileSync(join(directory, "lock"), "utf8")).toBe(`${process.pid}\n`);
  lock[Symbol.dispose]();
  DirectoryLock.take(directory)[Symbol.dispose]();
});

test("an owner that has not noted itself yet is waited for, and the one before it is not named", async () => {
  const path = join(temporaryDirectory(), "lock");
  writeFileSync(path, "2147483647\n", { mode: 0o600 });
  const owner = await holder(path, 'sleep 0.1; : > "$0"; sleep 0.05; echo $$ > "$0"');
  expect(() => DirectoryLock.take(join(path, ".."))).toThrow(`belongs to process ${owner}: stop it`);
});

test("an owner that never notes itself is said to be unknown", async () => {
  const path = join(temporaryDirectory(), "lock");
  writeFileSync(path, "no process\n", { mode: 0o600 });
  await holder(path, ":");
  expect(() => DirectoryLock.take(join(path, ".."))).toThrow("belongs to process (unknown): stop it");
});
