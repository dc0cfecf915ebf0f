/** Temporary data directories, and what may be found in them and in /dev/shm. */
import { existsSync, mkdtempSync, readdirSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onTestFinished } from "vitest";

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

/** Ids of the processes that have a pool in /dev/shm, from the files' names: reprise-USER-PROCESS-RANDOM.pool. */
export function poolOwners(): number[] {
  return readdirSync("/dev/shm").flatMap((name) => {
    const [, owner] = /^reprise-\d+-(\d+)-[0-9a-f]+\.pool$/.exec(name) ?? [];
    return owner === undefined ? [] : [Number(owner)];
  });
}

/** Pools whose process is gone. */
export function orphanedPools(): number[] {
  return poolOwners().filter((owner) => !existsSync(`/proc/${owner}`));
}
