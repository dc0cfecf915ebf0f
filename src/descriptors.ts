/**
 * Who may have how many of the process's open files. What strangers open (connections) stays so far below the system's limit
 * that our own work always finds some: a restart of the engine, the disk tier's files, pipes, a look at a file.
 */
import { readFileSync } from "node:fs";

/** What is assumed where the system does not say: the usual limit of a shell on macOS. */
const unknownLimit = 256;
/** Parts of the limit: half for HTTP, an eighth for guests of the cache's socket, as much for other hosts, and the rest is ours. */
const shares = { http: 1 / 2, guests: 1 / 8, peers: 1 / 8 } as const;

/** Connections that clients of this kind may have at a time, `most` where the limit allows them. */
export function connectionsFor(kind: keyof typeof shares, most: number, limit: number = descriptorLimit()): number {
  return Math.max(1, Math.min(most, Math.floor(limit * shares[kind])));
}

/** Files that this process may have open. Node has raised the limit to the highest that it may set itself. */
export function descriptorLimit(): number {
  try {
    const [, soft] = /^Max open files\s+(\d+|unlimited)/m.exec(readFileSync("/proc/self/limits", "latin1")) ?? [];
    return soft === "unlimited" ? Infinity : Number(soft ?? unknownLimit);
  } catch {
    return unknownLimit; // no /proc here
  }
}
