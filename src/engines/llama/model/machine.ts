/**
 * What this machine has: processors, cores worth a thread each, and memory that may be used.
 */
import { readFileSync } from "node:fs";
import { availableParallelism, freemem, totalmem } from "node:os";
import { cpuQuota } from "./cpu-quota.ts";

/** The processors of a machine, as far as this process may use them. */
export interface Processors {
  /** Hardware threads that it may run on. */
  readonly allowed: number;
  /** Their numbers; undefined where nothing is known of them. */
  readonly numbers: ReadonlySet<number> | undefined;
  /** Processors whose time it may use up, where a container has a limit: 1.5 is one and a half. */
  readonly quota: number;
  /** What Linux says of the processors; nothing is known of other systems' cores. */
  readonly cpuInfo: string;
}

/**
 * Physical cores this process may use, 1 or more: a second thread on a core slows a memory-bound decode down, and one more than a
 * container's limit stops all of them for the rest of its period.
 */
export function physicalCores(machine: Processors = processorsHere()): number {
  const { allowed, numbers, quota, cpuInfo } = machine;
  const cores = new Set<string>();
  let [socket, isAllowed] = ["", true];
  for (const line of cpuInfo.split("\n")) {
    const value = line.slice(line.indexOf(":") + 1).trim();
    if (/^processor\s*:/.test(line)) isAllowed = numbers?.has(Number(value)) ?? true;
    else if (line.startsWith("physical id")) socket = value;
    else if (line.startsWith("core id") && isAllowed) cores.add(`${socket} ${value}`);
  }
  const count = cores.size === 0 ? allowed : Math.min(allowed, cores.size);
  return Math.max(1, Math.min(count, Math.floor(quota)));
}

/**
 * Processors whose time this process may use at once, 1 or more. Threads beyond them do not help, they hinder: all wait for each other
 * by spinning, so that each wait takes a time slice of those that do not run.
 */
export function usableProcessors({ allowed, quota }: Processors = processorsHere()): number {
  return Math.max(1, Math.min(allowed, Math.ceil(quota)));
}

/** Numbers of a list as Linux writes them: "0-3,8". */
export function numbersOf(list: string): Set<number> {
  const numbers = new Set<number>();
  for (const range of list.split(",")) {
    const [from, to = from] = range.split("-").map(Number) as [number, number?];
    for (let number = from; number <= to; number += 1) numbers.add(number);
  }
  return numbers;
}

function processorsHere(): Processors {
  const list = /^Cpus_allowed_list:\s*(\S+)$/m.exec(read("/proc/self/status"))?.[1];
  return {
    allowed: availableParallelism(),
    numbers: list === undefined ? undefined : numbersOf(list),
    quota: cpuQuota(),
    cpuInfo: read("/proc/cpuinfo"),
  };
}

/** Memory of the machine or of the container around this process. */
export function constrainedMemoryBytes(): number {
  const limit = process.constrainedMemory();
  return limit === undefined || limit === 0 ? totalmem() : Math.min(limit, totalmem());
}

/** Memory that can be had now without swapping. */
export function availableMemoryBytes(): number {
  const available = process.availableMemory();
  return available > 0 ? available : freemem();
}

function read(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return ""; // no Linux, or a sandbox without /proc: the number of allowed threads has to do
  }
}
