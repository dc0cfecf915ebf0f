/** Who owns a data directory: the process that holds the lock of DIR/lock, for as long as it lives. */
import { closeSync, ftruncateSync, readSync, writeSync } from "node:fs";
import { join } from "node:path";
import { codeOf, RepriseError } from "../../errors.ts";
import { tryLock } from "../../ffi/posix.ts";
import { openOrCreatePrivateFile } from "../../private-files.ts";

/** A process id, and its line end. */
const ownerBytes = 32;
/** Together 300 ms: a process that was started a moment ago, on a busy machine, has noted itself by then. */
const ownerLooks = 16;
const msBetweenLooks = 20;

export class DirectoryLock implements Disposable {
  #file: number | undefined;

  private constructor(file: number) {
    this.#file = file;
  }

  /**
   * @throws RepriseError DATA_DIRECTORY_IN_USE when another process (or another part of this one) owns the directory,
   * BAD_CONFIG when what is called `lock` is not a file of ours alone; Node's errors when none can be made.
   */
  static take(directory: string): DirectoryLock {
    const path = join(directory, "lock");
    // Its content is replaced: were it a second name of another file of ours, that one would lose its content.
    const file = openOrCreatePrivateFile(path, { names: "one", tighten: true });
    if (typeof file !== "number")
      throw new RepriseError("BAD_CONFIG", `${path} ${file.foreign}, and no lock of ours: remove it`);
    try {
      if (tryLock(file) === "busy") {
        const owner = ownerOnceNoted(file);
        throw new RepriseError(
          "DATA_DIRECTORY_IN_USE",
          `the data directory ${directory} belongs to process ${owner ?? "(unknown)"}: stop it, or choose another --data-dir`,
        );
      }
    } catch (error) {
      closeSync(file);
      throw error;
    }
    noteOwner(file);
    return new DirectoryLock(file);
  }

  /** The file stays: removing it would let two processes lock two files of one name. */
  [Symbol.dispose](): void {
    if (this.#file === undefined) return;
    closeSync(this.#file);
    this.#file = undefined;
  }
}

/**
 * The process that has the lock. It took it a moment before it could say so: until then the file is empty, or names the
 * owner before it, which is waited for. Undefined when none that lives was named.
 */
function ownerOnceNoted(file: number): number | undefined {
  const asleep = new Int32Array(new SharedArrayBuffer(4));
  for (let look = 0; look < ownerLooks; look += 1) {
    if (look > 0) Atomics.wait(asleep, 0, 0, msBetweenLooks);
    const owner = ownerIn(file);
    if (owner !== undefined && isAlive(owner)) return owner;
  }
  return undefined;
}

function ownerIn(file: number): number | undefined {
  const bytes = Buffer.alloc(ownerBytes);
  const [, owner] =
    /^([1-9][0-9]{0,9})\n/.exec(bytes.toString("latin1", 0, readSync(file, bytes, 0, ownerBytes, 0))) ?? [];
  return owner === undefined ? undefined : Number(owner);
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return codeOf(error) === "EPERM";
  }
}

/** For whoever comes second. The lock holds without it, so a full disk is no reason to go without a lock. */
function noteOwner(file: number): void {
  try {
    ftruncateSync(file);
    writeSync(file, `${process.pid}\n`, 0);
  } catch (error) {
    if (codeOf(error) !== "ENOSPC" && codeOf(error) !== "EDQUOT") throw error;
  }
}
