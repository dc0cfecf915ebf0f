/**
 * One byte that stops a decode: a decode blocks its process, so no message can.
 *
 *     │ stop: u8 │ … │ at 8: id of the request that the last decode begun is for, f64; 0: for several │ …
 *
 * The server writes the byte through the file, the engine process inherits the file, maps it and shows llama.cpp the address.
 * The id keeps those who leave from stopping what is computed for others, who would begin that step again each time. The file lies in memory where there is such a place, and has lost its name before anybody uses it: nothing is left of it when
 * both processes are gone, in whatever way.
 */
import { randomBytes } from "node:crypto";
import { closeSync, constants, existsSync, openSync, readSync, unlinkSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { mapFile, memoryAt } from "../../ffi/posix.ts";
import type { Pointer } from "../../ffi/posix.ts";

const flagBytes = 4096;
const idAt = 8;

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

  /**
   * Stops the decode that runs, if it is for this request alone, or the next one, if the last was: that has just begun then.
   * The process takes the flag down when it knows why.
   */
  raise(request: number): void {
    if (this.#file === undefined) return;
    const id = new Float64Array(1);
    readSync(this.#file, id, 0, id.byteLength, idAt);
    if (id[0] === request) writeSync(this.#file, Buffer.of(1), 0, 1, 0);
  }

  close(): void {
    if (this.#file !== undefined) closeSync(this.#file);
    this.#file = undefined;
  }
}

/** The engine process's end. */
export interface MappedFlag {
  /** Of the byte that stops a decode. */
  readonly address: Pointer;
  /** That byte, first of all. */
  readonly bytes: Uint8Array;
  /** The request that the last decode begun is for; 0: for several. */
  readonly request: Float64Array;
}

/** Maps it for as long as the process lives; takes the descriptor. */
export function mapAbortFlag(file: number): MappedFlag {
  try {
    const address = mapFile(file, flagBytes);
    const memory = memoryAt(address, flagBytes);
    return { address, bytes: new Uint8Array(memory), request: new Float64Array(memory, idAt, 1) };
  } finally {
    closeSync(file);
  }
}
