/**
 * Code that runs in our processes: nobody but we and root may have put it where it is, or can put other code in its place.
 *
 *     /usr/lib/a.so   the file, and the folder that it is in: ours or root's, and nobody else may write it
 *     ──┬─            each folder above: the same; if others may write it, it is sticky, so that they cannot move what is ours
 */
import { realpathSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { describe } from "./errors.ts";
import { isOwnGroup } from "./own-group.ts";
import { ownUserId } from "./private-files.ts";

/** @returns what is wrong with a file or folder of code, in words that begin with a path; undefined: nothing is. */
export function whyUntrusted(path: string): string | undefined {
  let at: string;
  let isFolder: boolean;
  try {
    at = realpathSync(path);
    isFolder = statSync(at).isDirectory();
  } catch (error) {
    return `${path} cannot be looked at: ${describe(error)}`;
  }
  const folder = isFolder ? at : dirname(at);
  let why = whyOpen(at, "whole") ?? whyOpen(folder, "whole");
  for (let above = folder; why === undefined && above !== "/";) {
    above = dirname(above);
    why = whyOpen(above, "way");
  }
  return why;
}

/** @param part "way": others may add to a sticky folder, since they cannot move what is in it */
function whyOpen(path: string, part: "whole" | "way"): string | undefined {
  const { uid, gid, mode } = statSync(path);
  if (uid !== 0 && uid !== ownUserId()) return `${path} belongs to user ${uid}, who could put other code there`;
  const isOpen = (mode & 0o002) !== 0 || ((mode & 0o020) !== 0 && !isOwnGroup(gid));
  if (!isOpen || (part === "way" && (mode & 0o1000) !== 0)) return undefined;
  return `${path} can be written by others: run chmod go-w ${path}`;
}
