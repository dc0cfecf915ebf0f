/** When the drives were last read whole in search of rot: `DIR/scrubbed`, a file with the date in it. */
import { closeSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe } from "../../errors.ts";
import type { Log } from "../../log.ts";
import { openPrivateFile, replacePrivateFile } from "../../private-files.ts";

const name = "scrubbed";
/** A longer text is no date. */
const longestDate = 64;

/** What is remembered on the first drive that can say it. Never throws: without a date a round comes too soon. */
export class LastScrub {
  readonly #directories: () => readonly string[];
  readonly #log: Log;

  constructor(directories: () => readonly string[], log: Log) {
    this.#directories = directories;
    this.#log = log;
  }

  /** When a round last began that came to its end, in ms since 1970; undefined when nobody knows. */
  read(): number | undefined {
    for (const directory of this.#directories()) {
      try {
        const at = dateIn(join(directory, name));
        if (at !== undefined) return at;
      } catch (error) {
        this.#log.warn(`cannot read when ${directory} was last searched for rot: ${describe(error)}`);
      }
    }
    return undefined;
  }

  async write(at: number): Promise<void> {
    for (const directory of this.#directories()) {
      try {
        await replacePrivateFile(join(directory, name), Buffer.from(`${new Date(at).toISOString()}\n`));
        return;
      } catch (error) {
        this.#log.warn(`cannot note that ${directory} was searched for rot: ${describe(error)}`);
      }
    }
  }
}

/** @throws when the file is not ours alone, or cannot be read */
function dateIn(path: string): number | undefined {
  const file = openPrivateFile(path, "read", { tighten: true });
  if (file === "absent") return undefined;
  if (typeof file !== "number") throw new Error(`${path} ${file.foreign}`);
  try {
    const at = Date.parse(readFileSync(file, "latin1").slice(0, longestDate).trim());
    return Number.isNaN(at) ? undefined : at;
  } finally {
    closeSync(file);
  }
}
