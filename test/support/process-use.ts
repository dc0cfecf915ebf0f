/** What processes hold, from Linux's /proc: open files and memory of their own. */
import { readdirSync, readFileSync } from "node:fs";

export function openFiles(pids: readonly number[]): number {
  return pids.reduce((sum, pid) => sum + readdirSync(`/proc/${pid}/fd`).length, 0);
}

/** Bytes that are theirs alone: heaps and stacks, and nothing of the shared pool or of files. */
export function ownMemory(pids: readonly number[]): number {
  const kibibytes = (pid: number) =>
    Number(/^RssAnon:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]);
  return pids.reduce((sum, pid) => sum + 1024 * kibibytes(pid), 0);
}
