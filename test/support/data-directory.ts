/** Temporary data directories, and what may be found in them and in /dev/shm. */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import { directoryIdentity } from "../../src/tiers/pool/pool-file.ts";

/** A fresh folder that goes with the test. */
export function temporaryDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), "reprise-test-"));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

/** Every file below a folder. */
export function filesBelow(directory: string): string[] {
  return readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
}

export function bytesBelow(directory: string): number {
  return filesBelow(directory).reduce((sum, file) => sum + statSync(file).size, 0);
}

/** Ids of the processes that own a pool in /dev/shm: those that hold its lock. */
export function poolOwners(): number[] {
  return pools().flatMap((path) => ownerOf(path) ?? []);
}

/** Pools of a data directory. */
export function poolsOf(dataDirectory: string): string[] {
  const ofDirectory = `-${directoryIdentity(dataDirectory)}-`;
  return pools().filter((path) => path.includes(ofDirectory));
}

/** What a reboot does to the memory tier of a server that was killed. */
export function forgetMemory(dataDirectory: string): void {
  for (const path of orphanedPools(dataDirectory)) rmSync(path, { force: true });
}

/** Pools of a data directory that no process owns. */
export function orphanedPools(dataDirectory: string): string[] {
  return poolsOf(dataDirectory).filter((path) => ownerOf(path) === undefined);
}

function pools(): string[] {
  return readdirSync("/dev/shm")
    .filter((name) => /^reprise-.*\.pool$/.test(name))
    .map((name) => join("/dev/shm", name));
}

function ownerOf(path: string): number | undefined {
  if (!existsSync(path)) return undefined; // of another program, and gone since it was listed
  const { ino } = statSync(path);
  // "1: FLOCK  ADVISORY  WRITE 1234 00:1a:5678 0 EOF"
  const [, pid] = new RegExp(`FLOCK .* (\\d+) \\w+:\\w+:${ino} `).exec(readFileSync("/proc/locks", "utf8")) ?? [];
  return pid === undefined ? undefined : Number(pid);
}
