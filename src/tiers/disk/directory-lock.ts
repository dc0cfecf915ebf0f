/** Who owns a data directory: the process that holds the lock of DIR/lock, for as long as it lives. */
import { closeSync, ftruncateSync, openSync, readFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { RepriseError } from "../../errors.ts";
import { tryLock } from "../../ffi/posix.ts";

export class DirectoryLock implements Disposable {
  #file: number | undefined;

  private constructor(file: number) {
    this.#file = file;
  }

  /** @throws RepriseError DATA_DIRECTORY_IN_USE when another process (or another part of this one) owns the directory. */
  static take(directory: string): DirectoryLock {
    const path = join(directory, "lock");
    const file = openSync(path, "a+", 0o600);
    if (tryLock(file) === "busy") {
      closeSync(file);
      const owner = readFileSync(path, "utf8").trim();
      throw new RepriseError(
        "DATA_DIRECTORY_IN_USE",
        `the data directory ${directory} belongs to process ${owner === "" ? "(unknown)" : owner}: stop it, or choose another --data-dir`,
      );
    }
    ftruncateSync(file);
    writeSync(file, `${process.pid}\n`);
    return new DirectoryLock(file);
  }

  /** The file stays: removing it would let two processes lock two files of one name. */
  [Symbol.dispose](): void {
    if (this.#file === undefined) return;
    closeSync(this.#file);
    this.#file = undefined;
  }
}
