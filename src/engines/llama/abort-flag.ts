/**
 * One byte that stops a decode: a decode blocks its process, so no message can.
 *
 * The server writes the byte through the file, the engine process has the file mapped and shows llama.cpp the address. The
 * file lies in memory where there is such a place, and is deleted as soon as it is mapped.
 */
import { closeSync, existsSync, mkdtempSync, openSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { mapFile, memoryAt } from "../../ffi/posix.ts";
import type { Pointer } from "../../ffi/posix.ts";

const flagBytes = 4096;

/** The server's end. */
export class AbortFlag {
  readonly path: string;
  readonly #directory: string;
  #file: number | undefined;

  private constructor(directory: string) {
    this.#directory = directory;
    this.path = join(directory, "abort-flag");
    this.#file = openSync(this.path, "wx+", 0o600);
    writeSync(this.#file, Buffer.alloc(flagBytes));
  }

  static create(): AbortFlag {
    const place = existsSync("/dev/shm") ? "/dev/shm" : tmpdir();
    return new AbortFlag(mkdtempSync(join(place, "reprise-engine-")));
  }

  /** Stops the decode that runs now, or the next one. The process takes the flag down when it knows why. */
  raise(): void {
    if (this.#file !== undefined) writeSync(this.#file, Buffer.of(1), 0, 1, 0);
  }

  /** Deletes the file's name: both ends have it open. */
  unlink(): void {
    rmSync(this.#directory, { recursive: true, force: true });
  }

  close(): void {
    this.unlink();
    if (this.#file !== undefined) closeSync(this.#file);
    this.#file = undefined;
  }
}

/** The engine process's end, for as long as it lives. */
export function mapAbortFlag(path: string): { address: Pointer; bytes: Uint8Array } {
  const file = openSync(path, "r+");
  try {
    const address = mapFile(file, flagBytes);
    return { address, bytes: new Uint8Array(memoryAt(address, flagBytes)) };
  } finally {
    closeSync(file);
  }
}
