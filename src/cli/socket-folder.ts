/**
 * The folder of the socket of a cache whose data directory takes none: in the folder for temporary files.
 *
 *     TMP/reprise-socket-RANDOM/             0700, and locked for as long as the cache lives
 *                               cache.sock
 *
 * One that nobody has locked was left by a process that was killed; the next start of any cache of this user removes it. Others
 * may put anything under such names: what is not ours alone, or has anything else in it, is not touched.
 */
import { closeSync, constants, mkdtempSync, openSync, rmSync } from "node:fs";
import { lstat, open, rmdir, unlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { codeOf, describe } from "../errors.ts";
import { tryLock } from "../ffi/posix.ts";
import type { Log } from "../log.ts";
import { isAt, ownUserId } from "../private-files.ts";
import { namesIn } from "../tiers/pool/leftovers.ts";

const prefix = "reprise-socket-";
const folderName = /^reprise-socket-\w{6}$/;
const socketName = "cache.sock";
/** No link is followed, and nothing is waited for. */
const directoryAlone = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
/** Other starts may take a folder that is not locked yet for a dead one's. */
const tries = 16;

export class SocketFolder implements Disposable {
  readonly path: string;
  readonly #lock: number;
  #isGone = false;

  private constructor(path: string, lock: number) {
    this.path = path;
    this.#lock = lock;
  }

  /** @throws Node's errors: there is no folder for temporary files, or nothing can be made there */
  static make(): SocketFolder {
    for (let left = tries; ; left -= 1) {
      const path = mkdtempSync(join(tmpdir(), prefix));
      try {
        const folder = new SocketFolder(path, openSync(path, directoryAlone));
        if (tryLock(folder.#lock) === "locked" && isAt(path, folder.#lock)) return folder;
        closeSync(folder.#lock);
      } catch (error) {
        if (codeOf(error) !== "ENOENT" || left === 0) throw error;
      }
    }
  }

  get socketPath(): string {
    return join(this.path, socketName);
  }

  [Symbol.dispose](): void {
    if (this.#isGone) return;
    this.#isGone = true;
    rmSync(this.path, { recursive: true, force: true });
    closeSync(this.#lock);
  }
}

/** Removes the folders that killed processes left, until `signal` fires. Never throws. */
export async function sweepSocketFolders({ signal, log }: { signal: AbortSignal; log: Log }): Promise<void> {
  const folder = tmpdir();
  try {
    for await (const name of namesIn(folder, signal)) if (folderName.test(name)) await removeDead(join(folder, name));
  } catch (error) {
    // Where nothing can be listed nothing can be removed, and nothing be done about it.
    const isClosed = ["ENOENT", "ENOTDIR", "EACCES"].includes(codeOf(error) ?? "");
    log[isClosed ? "debug" : "warn"](`cannot remove what dead processes left in ${folder}: ${describe(error)}`);
  }
}

async function removeDead(path: string): Promise<void> {
  try {
    const stats = await lstat(path);
    if (!stats.isDirectory() || stats.uid !== ownUserId() || (stats.mode & 0o077) !== 0) return;
    const folder = await open(path, directoryAlone);
    try {
      if (tryLock(folder.fd) === "busy" || !isAt(path, folder.fd)) return;
      const socket = join(path, socketName);
      if ((await lstat(socket).catch(() => undefined))?.isSocket() === true) await unlink(socket);
      await rmdir(path);
    } finally {
      await folder.close();
    }
  } catch (error) {
    // Gone in the meantime, or it holds something else.
    if (!["ENOENT", "ENOTEMPTY", "ENOTDIR", "ELOOP"].includes(codeOf(error) ?? "")) throw error;
  }
}
