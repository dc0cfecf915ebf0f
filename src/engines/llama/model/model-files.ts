/**
 * The files of a model, opened once for each launch of a process that loads it.
 *
 * A path may come to mean another file at any time: so the server opens the files, digests what it opened, and hands the open
 * descriptors to the process, which loads those. What is digested is what is mapped, whatever the path means by then.
 *
 *     server:   ModelFiles.open(path) ──► descriptors as stdio of fork() ──► weightsDigest(files)
 *     process:  new LoadableModel({ path, identity, descriptors }) ──► Model.load ──► look() now and then
 *
 * Whoever writes into an open file changes its time of change, which cannot be set back: `identity` tells. A change within the
 * same tick of the file system's clock as the one before it leaves no trace, so a file is not used before its tick is over.
 */
import { constants, existsSync, fstatSync, readSync, statSync } from "node:fs";
import type { BigIntStats } from "node:fs";
import { open } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { RepriseError, codeOf, describe } from "../../../errors.ts";
import { ggufFault, headerBytes } from "./gguf-header.ts";

/** What a process must be told of the files that it inherits. */
export interface InheritedFiles {
  /** The first part, for messages. */
  readonly path: string;
  readonly identity: string;
  /** One for each part, open for reading. */
  readonly descriptors: readonly number[];
}

/** A digest, and the identity of the files in the state that it is of. */
export interface WeightsDigest {
  /** Lower-case hexadecimal. */
  readonly digest: string;
  readonly identity: string;
}

/** More parts than anybody makes; each takes a descriptor in two processes. */
const maxParts = 512;
/** Kernel clocks tick every 10 ms at the slowest; file systems that keep whole seconds every second or two. */
const tickMs = 20;
const coarseTickMs = 2000;
/** No files' identity. */
const beingChanged = "";
const aSecond = 1_000_000_000n;

/** Where a process finds what it has open, under names that can be opened again. */
const ownDescriptors = "/proc/self/fd";

export class ModelFiles implements AsyncDisposable {
  /** The first part. */
  readonly path: string;
  readonly #files: readonly FileHandle[];
  #users = 1;

  private constructor(path: string, files: readonly FileHandle[]) {
    this.path = path;
    this.#files = files;
  }

  /**
   * Opens the model at `path` with all its parts, and looks whether it begins as a GGUF does.
   *
   * @throws RepriseError MODEL_NOT_FOUND or MODEL_INVALID, or the signal's reason.
   */
  static async open(path: string, signal: AbortSignal): Promise<ModelFiles> {
    const parts = modelParts(path);
    const files: FileHandle[] = [];
    try {
      for (const part of parts) {
        files.push(await openPart(part));
        signal.throwIfAborted();
      }
      const [first] = files;
      const header = Buffer.alloc(headerBytes);
      const { bytesRead } = await first!.read(header, 0, headerBytes, 0); // a model has a part at least
      const { size } = await first!.stat();
      const fault = ggufFault(header.subarray(0, bytesRead), size);
      if (fault !== undefined) throw notUsable(path, fault);
      const opened = new ModelFiles(path, files);
      await opened.untilUnchanging(signal);
      return opened;
    } catch (error) {
      await Promise.all(files.map((file) => file.close()));
      throw error;
    }
  }

  /** One more who needs the files, and disposes of them in turn: the last one closes them. */
  share(): this {
    this.#users += 1;
    return this;
  }

  /** One for each part, for as long as this is open. */
  get descriptors(): readonly number[] {
    return this.#files.map(({ fd }) => fd);
  }

  /** Of the open files as they are now; another one whenever one of them was written, moved or linked. */
  get identity(): string {
    return identityOf(this.descriptors);
  }

  /** The size of each part. */
  get partBytes(): readonly number[] {
    return statsOf(this.descriptors).map(({ size }) => Number(size));
  }

  /** Reads up to `into.length` bytes of a part. @returns how many there were. */
  async read(part: number, into: Uint8Array, position: number): Promise<number> {
    const file = this.#files[part]!; // callers count as descriptors do
    return (await file.read(into, 0, into.length, position)).bytesRead;
  }

  /** Waits for reads under way and closes the files, once nobody shares them. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#users -= 1;
    if (this.#users > 0) return;
    await Promise.all(this.#files.map((file) => file.close()));
  }

  /** Waits until a further change would show. A file that is being written goes on changing: that shows as well. */
  async untilUnchanging(signal: AbortSignal): Promise<void> {
    const waitMs = restOfTick(statsOf(this.descriptors));
    if (waitMs > 0) await pause(Math.ceil(waitMs) + 1, undefined, { signal }); // a timer may fire a millisecond early
  }
}

/** A model whose files this process has open, as llama.cpp and the scheduler need it. */
export class LoadableModel {
  readonly path: string;
  /** All parts together. */
  readonly bytes: number;
  /** Unix time in seconds of the first part's last change. */
  readonly changed: number;
  /** What to open: the descriptors' own names, or where the system has none the paths. */
  readonly openable: readonly string[];
  readonly #descriptors: readonly number[];
  readonly #isByPath: boolean;
  #identity: string;

  /** `by`: what is opened, the descriptors unless the system has no names for them. @throws RepriseError MODEL_INVALID. */
  constructor(files: InheritedFiles, by: "descriptor" | "path" = existsSync(ownDescriptors) ? "descriptor" : "path") {
    this.path = files.path;
    this.#descriptors = files.descriptors;
    this.#identity = files.identity;
    this.#isByPath = by === "path";
    const stats = statsOf(files.descriptors);
    this.bytes = stats.reduce((sum, { size }) => sum + Number(size), 0);
    this.changed = Number(stats[0]!.mtimeNs / aSecond); // a model has a part at least
    this.openable =
      by === "path" ? modelParts(files.path) : files.descriptors.map((file) => join(ownDescriptors, String(file)));
    const header = Buffer.alloc(headerBytes);
    const read = readSync(files.descriptors[0]!, header, 0, headerBytes, 0);
    const fault = ggufFault(header.subarray(0, read), Number(stats[0]!.size));
    if (fault !== undefined) throw notUsable(files.path, fault);
  }

  get identity(): string {
    return this.#identity;
  }

  /**
   * Looks whether the files were written since the last look (or moved, which looks the same). As long as a further change would
   * not show they count as changed at every look.
   */
  look(): "unchanged" | "changed" {
    const stats = statsOf(this.#descriptors);
    const identity = identityOfStats(stats);
    if (identity === this.#identity) return "unchanged";
    this.#identity = restOfTick(stats) > 0 ? beingChanged : identity;
    return "changed";
  }

  /** After {@link openable} was loaded: were it these files? @throws RepriseError MODEL_INVALID when a path means another by now. */
  confirm(): void {
    if (!this.#isByPath) return;
    const named = this.openable.map((path) => statSync(path, { bigint: true, throwIfNoEntry: false }));
    const isSame =
      named.every((stat) => stat !== undefined) && identityOfStats(named) === identityOf(this.#descriptors);
    if (isSame) return;
    throw new RepriseError("MODEL_INVALID", `${this.path} was replaced while it was loaded; it must be loaded again`);
  }
}

/** All files of a model that is split as `name-00001-of-00003.gguf`. */
export function modelParts(path: string): string[] {
  const match = /^(.*)-00001-of-(\d{5})\.gguf$/.exec(basename(path));
  if (match === null) return [path];
  const [, stem, count] = match;
  if (Number(count) > maxParts) {
    throw new RepriseError("MODEL_INVALID", `${path} is one of ${Number(count)} parts; ${maxParts} can be opened`);
  }
  return Array.from({ length: Math.max(1, Number(count)) }, (_, index) =>
    join(dirname(path), `${stem}-${String(index + 1).padStart(5, "0")}-of-${count}.gguf`),
  );
}

/** Milliseconds in which a further change may leave no trace; at most a tick, where clocks differ as well. */
function restOfTick(stats: readonly BigIntStats[]): number {
  const rests = stats.map(({ ctimeNs }) => {
    const tick = ctimeNs % aSecond === 0n ? coarseTickMs : tickMs;
    const ageMs = Date.now() - Number(ctimeNs / 1_000_000n);
    return Math.min(tick, tick - ageMs);
  });
  return Math.max(0, ...rests);
}

/** Tells open files from others, and from themselves as they were. */
export function identityOf(descriptors: readonly number[]): string {
  return identityOfStats(statsOf(descriptors));
}

function identityOfStats(stats: readonly BigIntStats[]): string {
  return stats.map(({ dev, ino, size, mtimeNs, ctimeNs }) => [dev, ino, size, mtimeNs, ctimeNs].join(":")).join("+");
}

function statsOf(descriptors: readonly number[]): BigIntStats[] {
  return descriptors.map((file) => fstatSync(file, { bigint: true }));
}

async function openPart(path: string): Promise<FileHandle> {
  let file: FileHandle;
  try {
    // Without O_NONBLOCK a pipe in its place would keep a thread waiting for a writer.
    file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    const why = codeOf(error) === "ENOENT" ? "there is no such file" : describe(error);
    throw new RepriseError("MODEL_NOT_FOUND", `Cannot read the model ${path}: ${why}`, { cause: error });
  }
  if ((await file.stat()).isFile()) return file;
  await file.close();
  throw new RepriseError("MODEL_NOT_FOUND", `${path} is not a file; give the path of a .gguf file`);
}

function notUsable(path: string, fault: string): RepriseError {
  return new RepriseError("MODEL_INVALID", `${path} is not a usable GGUF file: it ${fault}`);
}
