/**
 * One byte that stops a decode: a decode blocks its process, so no message can.
 *
 * The server writes the byte through the file, the engine process inherits the file, maps it and shows llama.cpp the address.
 * The file lies in memory where there is such a place, and has lost its name before anybody uses it: nothing is left of it when
 * both processes are gone, in whatever way.
 */
import { randomBytes } from "node:crypto";
import { closeSync, constants, existsSync, openSync, unlinkSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { mapFile, memoryAt } from "../../ffi/posix.ts";
import type { Pointer } from "../../ffi/posix.ts";

const flagBytes = 4096;

/** The server's end. */
export class AbortFlag {
  #file: number | undefined;

  private constructor(file: number) {
    this.#file = file;
  }

  /** @throws Node's error when no file can be made. */
  static create(): AbortFlag {
    const place = existsSync("/dev/shm") ? "/dev/shm" : tmpdir();
    const path = join(place, `reprise-flag-${randomBytes(16).toString("hex")}`);
    const { O_RDWR, O_CREAT, O_EXCL, O_NOFOLLOW } = constants;
    const file = openSync(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600);
    try {
      unlinkSync(path);
      writeSync(file, Buffer.alloc(flagBytes));
      return new AbortFlag(file);
    } catch (error) {
      closeSync(file);
      throw error;
    }
  }

  /** What the process is to inherit; undefined once closed. */
  get descriptor(): number | undefined {
    return this.#file;
  }

  /** Stops the decode that runs now, or the next one. The process takes the flag down when it knows why. */
  raise(): void {
    if (this.#file !== undefined) writeSync(this.#file, Buffer.of(1), 0, 1, 0);
  }

  close(): void {
    if (this.#file !== undefined) closeSync(this.#file);
    this.#file = undefined;
  }
}

/** The engine process's end, for as long as it lives; takes the descriptor. */
export function mapAbortFlag(file: number): { address: Pointer; bytes: Uint8Array } {
  try {
    const address = mapFile(file, flagBytes);
    return { address, bytes: new Uint8Array(memoryAt(address, flagBytes)) };
  } finally {
    closeSync(file);
  }
}
