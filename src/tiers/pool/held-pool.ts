/**
 * The pool's file from the moment a process has it to the moment it gives it back: adopted or made, remembered by its data
 * directory, and removed. Meanwhile what dead processes left in the same folder is swept.
 */
import { closeSync, rmSync } from "node:fs";
import { describe, RepriseError } from "../../errors.ts";
import { extentBytes } from "../../ffi/pool-mapping.ts";
import { allocate } from "../../ffi/posix.ts";
import type { Log } from "../../log.ts";
import { sweepLeftovers } from "./leftovers.ts";
import { adoptFile, directoryIdentity, forgetPool, makeFile, rememberPool, type OwnedFile } from "./pool-file.ts";
import { fileBytes, maxExtents, tableBytes, usedTableRanges } from "./pool-table.ts";

export interface HeldPoolOptions {
  /** "" when nobody is to adopt it. */
  readonly dataDirectory: string;
  /** Where it lies. */
  readonly directory: string;
  /** Whole extents: what the pool must hold, and what a new one may grow to. */
  readonly leastBytes: number;
  readonly mostBytes: number;
  readonly log: Log;
}

export class HeldPool {
  readonly path: string;
  readonly file: number;
  /** Of the extents. */
  readonly bytes: number;
  /** Resolves when what dead processes left is gone. */
  readonly swept: Promise<void>;
  readonly #dataDirectory: string;
  readonly #ending = new AbortController();

  private constructor(owned: OwnedFile, bytes: number, { dataDirectory, directory, log }: HeldPoolOptions) {
    this.path = owned.path;
    this.file = owned.file;
    this.bytes = bytes;
    this.#dataDirectory = dataDirectory;
    this.swept = sweepLeftovers(directory, { signal: this.#ending.signal, log });
  }

  /** @throws Node's errors; RepriseError NOT_ENOUGH_MEMORY when not even the table fits, or nothing that large can be had. */
  static take(options: HeldPoolOptions): HeldPool {
    const { dataDirectory, directory, leastBytes, mostBytes, log } = options;
    if (leastBytes > maxExtents * extentBytes)
      throw new RepriseError("NOT_ENOUGH_MEMORY", `a memory pool has at most ${maxExtents * extentBytes} bytes`);
    const refuse = (path: string, reason: string) => log.warn(`the memory pool ${path} is not adopted: ${reason}`);
    const adopted = dataDirectory === "" ? undefined : adoptFile({ directory, dataDirectory, leastBytes, refuse });
    const id = dataDirectory === "" ? "own" : directoryIdentity(dataDirectory);
    const owned = adopted ?? makeFile(directory, id, mostBytes);
    const bytes = adopted?.header.bytes ?? mostBytes;
    try {
      // The table is written through the mapping: it must have its pages before.
      for (const [from, length] of usedTableRanges(bytes))
        if (allocate(owned.file, fileBytes(bytes) - tableBytes + from, length) === "full")
          throw new RepriseError("NOT_ENOUGH_MEMORY", `${directory} is full: make room there, or make it larger`);
    } catch (error) {
      rmSync(owned.path, { force: true });
      closeSync(owned.file);
      throw error;
    }
    if (dataDirectory !== "" && adopted === undefined) tryToRemember(dataDirectory, owned.path, log);
    return new HeldPool(owned, bytes, options);
  }

  /** Ends the sweep; comes before {@link remove} where there is time. */
  async endSweep(): Promise<void> {
    this.#ending.abort();
    await this.swept;
  }

  /** Unlinked, never truncated: a guest that still maps it reads old bytes, not a SIGBUS. */
  remove(): void {
    this.#ending.abort();
    rmSync(this.path, { force: true });
    closeSync(this.file);
    if (this.#dataDirectory === "") return;
    try {
      forgetPool(this.#dataDirectory, this.path);
    } catch {
      // The data directory is gone, or read-only: a name that leads nowhere harms nobody.
    }
  }
}

/** Without it the pool is as good, but the next process does not find it. */
function tryToRemember(dataDirectory: string, path: string, log: Log): void {
  try {
    rememberPool(dataDirectory, path);
  } catch (error) {
    log.warn(`the memory tier will not outlive this process: ${describe(error)}`);
  }
}
