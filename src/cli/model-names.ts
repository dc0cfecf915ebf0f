/**
 * Which model a space is of, as people call it: `models.json` in the data directory, written when a guest opens a session.
 *
 * A space is a digest, and what lies on disk names nothing else. The names are for `reprise inspect` alone: they identify
 * nothing, and a guest may say what it likes, so what is printed of them is one line of plain characters.
 */
import { join } from "node:path";
import { describe } from "../errors.ts";
import type { SpaceId } from "../identity/space.ts";
import type { Log } from "../log.ts";
import { readPrivateFile, replacePrivateFile } from "../private-files.ts";

/** The newest that are kept; older ones are forgotten. */
const maxNames = 1000;
const maxNameCharacters = 100;
/** So many take less than half of it. */
const maxFileBytes = 1 << 20;

export class ModelNames {
  readonly #file: string;
  readonly #log: Log;
  readonly #names: Map<string, string>;
  #writing: Promise<void> = Promise.resolve();
  /** A writing is about to begin, and takes what is noted until then. */
  #isWaiting = false;

  private constructor(file: string, names: Map<string, string>, log: Log) {
    this.#file = file;
    this.#names = names;
    this.#log = log;
  }

  /** Never throws: whatever is wrong with the file, names are learned anew. */
  static open(dataDirectory: string, log: Log): ModelNames {
    return new ModelNames(fileIn(dataDirectory), readModelNames(dataDirectory, log), log);
  }

  /** A guest of this space calls its model so. Nothing is written when that is known. */
  note(space: SpaceId, given: string): void {
    const name = printable(given);
    if (name === "" || this.#names.get(space) === name) return;
    this.#names.delete(space); // the newest is the last
    this.#names.set(space, name);
    for (const oldest of this.#names.keys()) {
      if (this.#names.size <= maxNames) break;
      this.#names.delete(oldest);
    }
    if (this.#isWaiting) return;
    this.#isWaiting = true;
    this.#writing = this.#writing.then(() => this.#write());
  }

  /** Resolves when all that was noted is written. */
  written(): Promise<void> {
    return this.#writing;
  }

  async #write(): Promise<void> {
    this.#isWaiting = false;
    try {
      const bytes = Buffer.from(`${JSON.stringify(Object.fromEntries(this.#names), undefined, 2)}\n`);
      await replacePrivateFile(this.#file, bytes);
    } catch (error) {
      this.#log.warn(`the names of models cannot be kept in ${this.#file}: ${describe(error)}`);
    }
  }
}

/** By space. None where there is no such file, or it is not to be used: then `log` is told. */
export function readModelNames(dataDirectory: string, log: Log): Map<string, string> {
  const file = fileIn(dataDirectory);
  try {
    const bytes = readPrivateFile(file, maxFileBytes);
    if (bytes === "absent") return new Map();
    if (!(bytes instanceof Uint8Array)) throw new Error(`it ${bytes.foreign}`);
    const value: unknown = JSON.parse(bytes.toString("utf8"));
    if (typeof value !== "object" || value === null) throw new Error("it holds no names");
    return new Map(Object.entries(value).flatMap(([space, name]) => (isName(space, name) ? [[space, name]] : [])));
  } catch (error) {
    log.warn(`${file} is not used, so models have no names: ${describe(error)}`);
    return new Map();
  }
}

function isName(space: string, name: unknown): name is string {
  return /^[0-9a-f]{64}$/.test(space) && typeof name === "string" && name !== "" && printable(name) === name;
}

/** One line without control characters, nor those that turn or hide what is printed after them; cut to a length. */
function printable(given: string): string {
  const line = given.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, "");
  return Array.from(line).slice(0, maxNameCharacters).join("").trim();
}

function fileIn(dataDirectory: string): string {
  return join(dataDirectory, "models.json");
}
