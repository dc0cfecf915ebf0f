/**
 * Where the disk tier has kept records, besides the data directory: `drives` in it, a path a line. Commands that look at or clear what is
 * stored find them there, whatever `--disk` says then: who clears a cache must not believe that it is gone while a drive still has it.
 */
import { isAbsolute, join } from "node:path";
import { describe } from "../errors.ts";
import type { Log } from "../log.ts";
import { readPrivateFile, replacePrivateFile } from "../private-files.ts";

const maxFileBytes = 64 * 1024;

/** Those of a data directory; none where it has no such file, or one that is not ours alone. */
export function rememberedDrives(dataDirectory: string): readonly string[] {
  try {
    const bytes = readPrivateFile(join(dataDirectory, "drives"), maxFileBytes, { tighten: true });
    return bytes instanceof Uint8Array ? bytes.toString("utf8").split("\n").filter(isAbsolute) : [];
  } catch {
    return []; // a directory that cannot be entered; whoever needs it is told by what comes next
  }
}

/** Adds those that are not known yet. Never throws: without the list, `--disk` must be given again. */
export async function rememberDrives(dataDirectory: string, directories: readonly string[], log: Log): Promise<void> {
  const known = rememberedDrives(dataDirectory);
  const all = [...new Set([...known, ...directories])].filter((path) => !path.includes("\n"));
  if (all.length === known.length) return;
  try {
    await replacePrivateFile(join(dataDirectory, "drives"), Buffer.from(`${all.join("\n")}\n`));
  } catch (error) {
    log.warn(`which drives are used cannot be noted in ${dataDirectory}: ${describe(error)}`);
  }
}
