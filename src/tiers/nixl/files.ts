/**
 * Values as files, moved by NIXL's POSIX plugin. What NIXL does not do is done here: names, lengths, ages, rooms.
 *
 *     FOLDER/3/f0/3f0c…            a head: 64 digits                       mode 0600, folders 0700
 *     FOLDER/9/a2/9a21…-0-0        a piece of a record
 *     …/NAME.<16 digits>.new       being written; it gets its name when all of it is there
 *
 * A file that is there is whole: a writer that is killed leaves a `.new`, which the collector takes (collector.ts). After a power cut it
 * may be short or zeros: then its length is another, or its checksum above us.
 */
import { closeSync, fstatSync, lstatSync, mkdirSync, opendirSync, readSync, renameSync, unlinkSync } from "node:fs";
import { randomBytes } from "node:crypto";
import { dirname, join } from "node:path";
import { codeOf } from "../../errors.ts";
import { allocate, memoryAt, type Pointer } from "../../ffi/posix.ts";
import { createPrivateFile, openPrivateFile, ownUserId } from "../../private-files.ts";
import type { NixlAgent } from "./agent.ts";
import { checkedName, type Medium, Stopped, type Wait, type Wanted } from "./medium.ts";

export interface FilesOptions {
  /** Private, and there. */
  readonly folder: string;
  readonly ttlSeconds: number;
  readonly memory: { readonly address: Pointer; readonly bytes: number };
  readonly openAgent: () => NixlAgent;
  readonly wait: Wait;
}

/** Errors that say nothing of the file: there is no more to be had of the system. */
const ofThisProcess: ReadonlySet<string> = new Set(["EMFILE", "ENFILE", "ENOMEM", "EBADF"]);

export class Files implements Medium {
  readonly valueOffset = 0;
  readonly #options: FilesOptions;
  readonly #view: Uint8Array;
  /** Folders that were looked at. */
  readonly #folders = new Set<string>();
  /** Undefined: the last one has failed. */
  #agent: NixlAgent | undefined;

  constructor(options: FilesOptions) {
    this.#options = options;
    this.#agent = options.openAgent();
    this.#view = new Uint8Array(memoryAt(options.memory.address, options.memory.bytes));
  }

  getAll(names: readonly string[], { maxBytes, isWanted }: Wanted): (Uint8Array | undefined)[] {
    return names.map((name) => (isWanted() ? this.#get(name, maxBytes) : undefined));
  }

  read(name: string, bytes: number): "read" | "gone" {
    const outcome = this.#withFile(name, (file) =>
      fstatSync(file).size === bytes ? this.#readOpen(name, file, bytes) : "gone",
    );
    return outcome ?? "gone";
  }

  write(name: string, bytes: number): "written" | "full" | "blocked" {
    const path = this.#pathOf(name);
    const temporary = `${path}.${randomBytes(8).toString("hex")}.new`;
    try {
      if (this.#prepare(dirname(path)) === "blocked") return "blocked";
      if (this.#writeNew(temporary, bytes) === "full") return "full";
      renameSync(temporary, path);
      return "written";
    } catch (error) {
      if (!(error instanceof Stopped)) removeIfThere(temporary);
      if (isFull(error)) return "full";
      this.#folders.delete(dirname(path)); // looked at again, and made anew, for the next
      if (this.#isOfOnePlace(error)) return "blocked";
      throw error;
    }
  }

  close(): void {
    this.#agent?.close();
  }

  /** All of a file that is not there yet; nothing of it stays when it is full. */
  #writeNew(path: string, bytes: number): "written" | "full" {
    const file = createPrivateFile(path);
    let isFullNow = false;
    try {
      if (this.#move("write", file, bytes) === "failed" || fstatSync(file).size !== bytes) {
        isFullNow = hasNoRoom(file, bytes);
        if (!isFullNow) throw new Error(`${path} could not be written`);
      }
    } finally {
      closeSync(file); // before it has its name: a network's file system sends now what it kept, and says if there is no room
    }
    if (!isFullNow) return "written";
    removeIfThere(path);
    return "full";
  }

  #get(name: string, maxBytes: number): Uint8Array | undefined {
    return this.#withFile(name, (file) => {
      const { size, mtimeMs } = fstatSync(file);
      const isOld = Date.now() - mtimeMs > this.#options.ttlSeconds * 1000;
      const isOne = !isOld && size > 0 && size <= Math.min(maxBytes, this.#view.length);
      if (!isOne || this.#readOpen(name, file, size) === "gone") return undefined;
      return Uint8Array.from(this.#view.subarray(0, size));
    });
  }

  #withFile<T>(name: string, work: (file: number) => T): T | undefined {
    try {
      const file = openPrivateFile(this.#pathOf(name), "read");
      if (typeof file !== "number") return undefined; // absent, or not ours: a link, or a file that others may write
      try {
        return work(file);
      } finally {
        closeSync(file);
      }
    } catch (error) {
      if (this.#isOfOnePlace(error)) return undefined;
      throw error;
    }
  }

  #readOpen(name: string, file: number, bytes: number): "read" | "gone" {
    if (this.#move("read", file, bytes) === "done") return "read";
    if (isCut(file, bytes)) return "gone";
    throw new Error(`${name} could not be read`);
  }

  /** The system failed on the way to one file, and the store's folder is there: others may be well. */
  #isOfOnePlace(error: unknown): boolean {
    const isOfSystem = error instanceof Error && "syscall" in error;
    if (!isOfSystem || ofThisProcess.has(codeOf(error) ?? "")) return false;
    try {
      const folder = opendirSync(this.#options.folder);
      folder.readSync();
      folder.closeSync();
      return true;
    } catch {
      return false; // the first error is told
    }
  }

  /** One transfer, waited for. After a failure the agent is made anew for the next, as its queue may remember it. */
  #move(operation: "read" | "write", file: number, bytes: number): "done" | "failed" {
    this.#agent ??= this.#options.openAgent();
    const transfer = this.#agent.begin(operation, { file }, { offset: 0, bytes });
    const outcome = this.#options.wait(() => transfer.poll());
    transfer.free();
    if (outcome === "failed") {
      const failed = this.#agent;
      this.#agent = undefined; // before all else: what is closed must never be used again
      failed.close();
    }
    return outcome;
  }

  #pathOf(name: string): string {
    return pathIn(this.#options.folder, checkedName(name).replaceAll(":", "-"));
  }

  /** A folder of ours alone, made if it is missing. */
  #prepare(folder: string): "ready" | "blocked" {
    if (this.#folders.has(folder)) return "ready";
    for (const each of [dirname(folder), folder]) {
      try {
        mkdirSync(each, 0o700);
      } catch (error) {
        if (codeOf(error) !== "EEXIST") throw error;
      }
      const stats = lstatSync(each);
      const isOurs = stats.uid === 0 || stats.uid === ownUserId();
      if (!stats.isDirectory() || !isOurs || (stats.mode & 0o022) !== 0) return "blocked"; // others could write there
    }
    this.#folders.add(folder);
    return "ready";
  }
}

/** Where a file lies: 4,096 folders in two steps. */
export function pathIn(folder: string, fileName: string): string {
  return join(folder, fileName.slice(0, 1), fileName.slice(1, 3), fileName);
}

/** Whether it has fewer bytes by now. @throws what the system says of a file that it cannot read, where NIXL says only that it failed */
function isCut(file: number, bytes: number): boolean {
  const piece = new Uint8Array(Math.min(bytes, 64 * 1024));
  for (let at = 0; at < bytes;) {
    const read = readSync(file, piece, 0, Math.min(piece.length, bytes - at), at);
    if (read === 0) return true;
    at += read;
  }
  return false;
}

/** Why a write failed that NIXL only calls failed. */
function hasNoRoom(file: number, bytes: number): boolean {
  try {
    return allocate(file, 0, bytes) === "full";
  } catch (error) {
    return isFull(error);
  }
}

/** Also where what is not ours lies on the way. */
function removeIfThere(path: string): void {
  try {
    unlinkSync(path);
  } catch {
    // The collector takes what is there.
  }
}

/** No room, or nothing may be written. */
function isFull(error: unknown): boolean {
  return ["ENOSPC", "EDQUOT", "EFBIG", "EROFS"].includes(codeOf(error) ?? "");
}
