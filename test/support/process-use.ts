/** What processes hold, from Linux's /proc: open files and memory of their own. */
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { codeOf } from "../../src/errors.ts";

export function openFiles(pids: readonly number[]): number {
  return pids.reduce((sum, pid) => sum + readdirSync(`/proc/${pid}/fd`).length, 0);
}

/** Those of the open files that are sockets: a connection that is forgotten is one. */
export function openSockets(pids: readonly number[]): number {
  const isSocket = (path: string) => {
    try {
      return readlinkSync(path).startsWith("socket:");
    } catch (error) {
      if (codeOf(error) === "ENOENT") return false; // closed between two looks
      throw error;
    }
  };
  const socketsOf = (pid: number) => readdirSync(`/proc/${pid}/fd`).filter((fd) => isSocket(`/proc/${pid}/fd/${fd}`));
  return pids.reduce((sum, pid) => sum + socketsOf(pid).length, 0);
}

/** Bytes that are theirs alone: heaps and stacks, and nothing of the shared pool or of files. */
export function ownMemory(pids: readonly number[]): number {
  const kibibytes = (pid: number) =>
    Number(/^RssAnon:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]);
  return pids.reduce((sum, pid) => sum + 1024 * kibibytes(pid), 0);
}
