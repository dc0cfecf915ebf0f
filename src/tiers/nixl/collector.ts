/**
 * Takes out of a shared folder what has ended its time, and the oldest where there is more than there may be. For a thread of its own.
 *
 *     age     0 ─────────── ttl ── + ten minutes
 *             heads are used  │ heads go   │ pieces go: whoever found a head just now still finds them
 *
 * Every host may do it at the same time, beside writers: a file that has gone is gone, and one that was written anew while we looked
 * is looked at again right before it goes. What bears no name of ours is left alone.
 */
import { lstatSync, readdirSync, unlinkSync, type Stats } from "node:fs";
import { join } from "node:path";
import { codeOf } from "../../errors.ts";
import { pathIn } from "./files.ts";
import { isPiece } from "./medium.ts";

export interface CollectOptions {
  readonly folder: string;
  readonly ttlSeconds: number;
  readonly maxBytes: number | undefined;
  /** Milliseconds, as files' times are. */
  readonly now: () => number;
  /** Called between folders; may throw to end it. */
  readonly pause: () => void;
}

export interface Collected {
  readonly removedFiles: number;
  readonly removedBytes: number;
  readonly leftBytes: number;
}

const pieceGraceMs = 600_000;
/** What a writer may take; what is older was left by one that was killed. */
const unfinishedMs = 3_600_000;
/** Of `maxBytes` is left, so that not every write makes room anew. */
const leftShare = 0.9;
/** Heads are written right behind their pieces: they go a little earlier, so that few point to what is gone. */
const headsFirstMs = 5000;
const secondMs = 1000;
const hex = Array.from("0123456789abcdef");

/** @throws Node's errors, when the folder fails */
export function collect(options: CollectOptions): Collected {
  const { ttlSeconds, maxBytes, now } = options;
  const sum = { removedFiles: 0, removedBytes: 0, leftBytes: 0 };
  /** Bytes by seconds of age: a folder of many million files is not kept in memory. */
  const bySecond = new Map<number, number>();
  const isOver = (name: string, age: number) =>
    age > (name.endsWith(".new") ? unfinishedMs : ttlSeconds * 1000 + (isPiece(name) ? pieceGraceMs : 0));
  for (const each of filesIn(options)) {
    if (removed(each, (name, age) => isOver(name, age), now)) {
      sum.removedFiles += 1;
      sum.removedBytes += each.bytes;
      continue;
    }
    sum.leftBytes += each.bytes;
    const second = Math.ceil(ageOf(each.stats, now) / secondMs);
    bySecond.set(second, (bySecond.get(second) ?? 0) + each.bytes);
  }
  if (maxBytes === undefined || sum.leftBytes <= maxBytes) return sum;
  const limitMs = ageThatLeaves(maxBytes * leftShare, bySecond);
  const began = now();
  for (const each of filesIn(options)) {
    // As old as it was when the limit was found.
    const isOld = (name: string, age: number) =>
      !name.endsWith(".new") && age - (now() - began) > limitMs - (isPiece(name) ? 0 : headsFirstMs);
    if (!removed(each, isOld, now)) continue;
    sum.removedFiles += 1;
    sum.removedBytes += each.bytes;
    sum.leftBytes -= each.bytes;
  }
  return sum;
}

interface Found {
  readonly name: string;
  readonly path: string;
  readonly stats: Stats;
  readonly bytes: number;
}

function* filesIn({ folder, pause }: CollectOptions): Generator<Found> {
  for (const a of hex)
    for (const b of hex)
      for (const c of hex) {
        pause();
        const place = join(folder, a, b + c);
        for (const name of namesIn(place)) {
          if (!/^[0-9a-f]{32,64}(?:-\d+-\d+)?(?:\.[0-9a-f]{16}\.new)?$/.test(name) || !name.startsWith(a + b + c))
            continue;
          const path = pathIn(folder, name);
          const stats = statsAt(path);
          if (stats?.isFile() === true) yield { name, path, stats, bytes: stats.size };
        }
      }
}

/** Takes it if it is old, now as when it was found. */
function removed(
  { name, path, stats }: Found,
  isOld: (name: string, ageMs: number) => boolean,
  now: () => number,
): boolean {
  if (!isOld(name, ageOf(stats, now))) return false;
  const current = statsAt(path);
  if (current === undefined) return true; // another host was first
  if (current.ino !== stats.ino || !isOld(name, ageOf(current, now))) return false;
  try {
    unlinkSync(path);
  } catch (error) {
    if (isForbidden(error)) return false;
    if (codeOf(error) !== "ENOENT") throw error;
  }
  return true;
}

function ageThatLeaves(bytes: number, bySecond: ReadonlyMap<number, number>): number {
  let left = 0;
  for (const [second, each] of [...bySecond].sort(([a], [b]) => a - b)) {
    left += each;
    if (left > bytes) return Math.max(0, (second - 1) * secondMs);
  }
  return Number.POSITIVE_INFINITY;
}

function ageOf({ mtimeMs }: Stats, now: () => number): number {
  return Math.max(0, now() - mtimeMs);
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch (error) {
    if (["ENOENT", "ENOTDIR", "ELOOP"].includes(codeOf(error) ?? "") || isForbidden(error)) return [];
    throw error;
  }
}

/** Somebody has closed it, or made it unchangeable: it stays, and the others go on. */
function isForbidden(error: unknown): boolean {
  return ["EACCES", "EPERM"].includes(codeOf(error) ?? "");
}

function statsAt(path: string): Stats | undefined {
  try {
    return lstatSync(path);
  } catch (error) {
    if (codeOf(error) === "ENOENT" || isForbidden(error)) return undefined;
    throw error;
  }
}
