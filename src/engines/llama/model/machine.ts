/**
 * What this machine has: cores worth a thread each, and memory that may be used.
 */
import { readFileSync } from "node:fs";
import { availableParallelism, freemem, totalmem } from "node:os";

/**
 * Physical cores this process may use: a second thread on a core slows a memory-bound decode down.
 *
 * @param cpuInfo what Linux says of the processors; nothing is known of other systems' cores
 */
export function physicalCores(allowed = availableParallelism(), cpuInfo = readCpuInfo()): number {
  const cores = new Set<string>();
  let socket = "";
  for (const line of cpuInfo.split("\n")) {
    const value = line.slice(line.indexOf(":") + 1).trim();
    if (line.startsWith("physical id")) socket = value;
    else if (line.startsWith("core id")) cores.add(`${socket} ${value}`);
  }
  return cores.size === 0 ? allowed : Math.min(allowed, cores.size);
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

function readCpuInfo(): string {
  try {
    return readFileSync("/proc/cpuinfo", "utf8");
  } catch {
    return ""; // no Linux, or a sandbox without /proc: the number of allowed threads has to do
  }
}
