/**
 * What killed processes left in shared memory, and making room there.
 *
 *     reprise-USER-*.pool     of ours, without an owner, that no data directory remembers: removed
 *     reprise-engine-*        folders of ours, in which earlier releases kept a byte for a starting engine: removed when they are
 *                             an hour old and no process has the file open
 *
 * The folder may hold any number of names of others. It is read piece by piece beside all else; a start waits for it only when
 * it has no room otherwise, and then for two seconds at most. What is another user's, or in use, is not touched.
 */
import { lstat, opendir, readdir, readlink, rmdir, unlink } from "node:fs/promises";
import { join } from "node:path";
import { codeOf, describe } from "../../errors.ts";
import type { Log } from "../../log.ts";
import { isOursAt, ownUserId } from "../../private-files.ts";
import {
  isPoolName,
  isRemembered,
  measureRoom,
  rememberedPool,
  removeDead,
  sharedMemoryDirectory,
  type PoolRoom,
} from "./pool-file.ts";

const mostMs = 2000;
/** Loading a model takes less. */
const oldMs = 3_600_000;
const engineFolder = /^reprise-engine-\w{6}$/;

/** Removes what nobody claims, until `signal` fires. Never throws. */
export async function sweepLeftovers(
  directory: string,
  { signal, log }: { signal: AbortSignal; log: Log },
): Promise<void> {
  const failed = (what: string, error: unknown) =>
    log.warn(`cannot remove what dead processes left in ${what}: ${describe(error)}`);
  for (const each of new Set([directory, sharedMemoryDirectory()])) {
    try {
      for await (const name of namesIn(each, signal))
        await removeUnclaimed(join(each, name), name).catch((error: unknown) => failed(join(each, name), error));
    } catch (error) {
      failed(each, error);
    }
  }
}

/**
 * The room in `directory` for the pool of a data directory. Where it does not suffice, memory of the dead goes before it is
 * refused to the living: what nobody claims, then what other data directories may have claimed.
 */
export async function findRoom(options: {
  directory: string;
  dataDirectory: string;
  wantedBytes: number;
}): Promise<PoolRoom> {
  const { directory, dataDirectory, wantedBytes } = options;
  const own = rememberedPool(dataDirectory);
  let room = measureRoom(directory, dataDirectory);
  const fits = () => room.freeBytes + room.heldBytes >= wantedBytes;
  const signal = AbortSignal.timeout(mostMs);
  for (const mayGo of [(path: string) => !isRemembered(path), () => true]) {
    if (fits()) break;
    for await (const name of namesIn(directory, signal)) {
      const path = join(directory, name);
      if (!isPoolName(name) || path === own || !mayGo(path) || !removeDead(path)) continue;
      room = measureRoom(directory, dataDirectory);
      if (fits()) break;
    }
  }
  return room;
}

/** The names in a folder of any size, piece by piece, until `signal` fires. */
export async function* namesIn(directory: string, signal: AbortSignal): AsyncGenerator<string, void, void> {
  for await (const { name } of await opendir(directory, { bufferSize: 256 })) {
    if (signal.aborted) return;
    yield name;
  }
}

async function removeUnclaimed(path: string, name: string): Promise<void> {
  if (isPoolName(name)) {
    if (!isRemembered(path)) removeDead(path);
  } else if (engineFolder.test(name)) await removeEngineFolder(path);
}

/** Only what such a folder has in it goes: one with anything else stays. */
async function removeEngineFolder(path: string): Promise<void> {
  const flag = join(path, "abort-flag");
  try {
    const stats = await lstat(path);
    const isOurs = stats.isDirectory() && stats.uid === ownUserId() && (stats.mode & 0o022) === 0;
    if (!isOurs || Date.now() - stats.mtimeMs < oldMs || (await isOpen(flag))) return;
    if (isOursAt(flag)) await unlink(flag);
    await rmdir(path);
  } catch (error) {
    // Gone in the meantime, or it holds something else.
    if (!["ENOENT", "ENOTEMPTY", "ENOTDIR"].includes(codeOf(error) ?? "")) throw error;
  }
}

/** Whether a process of ours that can be seen has the file open or mapped. */
async function isOpen(path: string): Promise<boolean> {
  for (const pid of await readdir("/proc").catch(() => [])) {
    if (!/^\d+$/.test(pid)) continue;
    for (const kind of ["fd", "map_files"])
      for (const each of await readdir(`/proc/${pid}/${kind}`).catch(() => []))
        if ((await readlink(`/proc/${pid}/${kind}/${each}`).catch(() => "")) === path) return true;
  }
  return false;
}
