/**
 * What a process and its descendants cost, from Linux's /proc: processor seconds, resident memory, bytes of drives.
 *
 * The tree is followed through `task/…/children`, so that only its own processes are read and never all of a machine's:
 * it is read while requests are timed. A descendant whose parent has ended is not found any more.
 */
import { readdirSync, readFileSync } from "node:fs";
import { codeOf } from "../errors.ts";

/** USER_HZ: 100 on every Linux that Node runs on. */
const ticksPerSecond = 100;

export interface TreeCost {
  /** Since the processes began, ended children that were waited for included. */
  readonly cpuSeconds: number;
  /** Memory of one's own, summed, and the largest shared mapping once: processes of a server share one pool. */
  readonly residentBytes: number;
}

/** Zeros for what has ended, and where there is no /proc. */
export function treeCost(rootPid: number): TreeCost {
  let cpuSeconds = 0;
  let ownBytes = 0;
  let sharedBytes = 0;
  for (const pid of treeOf(rootPid)) {
    const times = readProc(`/proc/${pid}/stat`).split(") ").at(-1)?.split(" ") ?? [];
    // Counted after the name, which may hold anything: utime, stime, cutime, cstime are fields 14 to 17 of the line.
    const ticks = times.slice(11, 15).reduce((sum, field) => sum + Number(field), 0);
    cpuSeconds += ticks / ticksPerSecond;
    const status = readProc(`/proc/${pid}/status`);
    ownBytes += kibibytes(status, "RssAnon") + kibibytes(status, "RssFile");
    sharedBytes = Math.max(sharedBytes, kibibytes(status, "RssShmem"));
  }
  return { cpuSeconds, residentBytes: ownBytes + sharedBytes };
}

/** Bytes that the tree has read from and written to drives; what the system's cache served is not among them. */
export function treeTraffic(rootPid: number): { readonly readBytes: number; readonly writtenBytes: number } {
  let readBytes = 0;
  let writtenBytes = 0;
  for (const pid of treeOf(rootPid)) {
    const io = readProc(`/proc/${pid}/io`);
    readBytes += Number(/^read_bytes: (\d+)$/m.exec(io)?.[1] ?? 0);
    writtenBytes += Number(/^write_bytes: (\d+)$/m.exec(io)?.[1] ?? 0);
  }
  return { readBytes, writtenBytes };
}

/** Watches a tree's resident size; the largest that was seen counts. */
export class TreeWatch implements Disposable {
  #peakBytes = 0;
  readonly #rootPid: number;
  readonly #timer: NodeJS.Timeout;

  constructor(rootPid: number, everyMs = 1000) {
    this.#rootPid = rootPid;
    this.#timer = setInterval(() => this.cost(), everyMs).unref();
  }

  /** The cost now, with the largest resident size so far. */
  cost(): TreeCost {
    const { cpuSeconds, residentBytes } = treeCost(this.#rootPid);
    this.#peakBytes = Math.max(this.#peakBytes, residentBytes);
    return { cpuSeconds, residentBytes: this.#peakBytes };
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }
}

function treeOf(rootPid: number): number[] {
  const tree = [rootPid];
  for (const pid of tree) tree.push(...childrenOf(pid)); // grows while it is walked
  return tree;
}

function childrenOf(pid: number): number[] {
  return tasksOf(pid).flatMap((task) =>
    readProc(`/proc/${pid}/task/${task}/children`).split(" ").filter(Boolean).map(Number),
  );
}

function tasksOf(pid: number): string[] {
  try {
    return readdirSync(`/proc/${pid}/task`);
  } catch (error) {
    if (hasEnded(error)) return [];
    throw error;
  }
}

function readProc(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    if (hasEnded(error)) return "";
    throw error;
  }
}

/** A process may end between two looks. */
function hasEnded(error: unknown): boolean {
  return ["ENOENT", "ESRCH", "EACCES"].includes(codeOf(error) ?? "");
}

function kibibytes(status: string, name: string): number {
  const [, digits] = new RegExp(`^${name}:\\s+(\\d+) kB$`, "m").exec(status) ?? [];
  return digits === undefined ? 0 : Number(digits) * 1024;
}
