/**
 * Files that are ours alone, under names that others may know or even write.
 *
 * In a folder such as /dev/shm any user can put anything under a name that we are about to use: a file that everybody can
 * read, a link to one of our own files, a FIFO that blocks whoever opens it. So nothing is opened by its name alone:
 *
 *     lstat ── absent ─────────────────────────────► "absent"
 *       └─ a regular file, ours, closed to others ─► open (no link is followed, nothing blocks) ─► fstat says the same ─► ours
 *       └─ anything else ──────────────────────────► foreign: it is not there for us, and not touched
 *
 * Ownership and mode decide, never what the system lets us do: root may open everything. docs: SECURITY.md.
 */
import { randomBytes } from "node:crypto";
import {
  closeSync,
  constants,
  fchmodSync,
  fstatSync,
  lstatSync,
  openSync,
  readdirSync,
  readSync,
  renameSync,
  rmSync,
  writeSync,
  type Stats,
} from "node:fs";
import { open, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { codeOf, describe } from "./errors.ts";

/** Something that is there under a name of ours, and is not for us. */
export interface Foreign {
  /** What is wrong with it, to follow its path in a sentence: "is a link". */
  readonly foreign: string;
}

export interface PrivateFileRules {
  /** What is meant to be written must have no second name: it could be another file of ours. "any" unless given. */
  readonly names?: "one" | "any";
  /**
   * A file of ours that others may read, but not write, is closed to them instead of being foreign. For files in private
   * directories that came back from a backup without their modes.
   */
  readonly tighten?: true;
}

const privateMode = 0o600;
/** Opening a link fails, and opening a FIFO does not wait. */
const guarded = constants.O_NOFOLLOW | constants.O_NONBLOCK;
/** What {@link replacePrivateFile} writes before it has its name. */
const unfinished = /\.[0-9a-f]{16}\.new$/;
/** What a race between opening and making may take. */
const tries = 16;

/** Whose files are ours. */
export function ownUserId(): number {
  return process.geteuid?.() ?? 0;
}

/**
 * Opens the file at `path` if it is ours alone.
 *
 * @returns its descriptor, which the caller closes; "absent", or why it is not for us.
 * @throws Node's errors that say nothing of the file itself: a directory that cannot be entered, no descriptors …
 */
export function openPrivateFile(
  path: string,
  access: "read" | "write",
  rules: PrivateFileRules = {},
): number | "absent" | Foreign {
  const before = statsAt(path);
  if (before === "absent") return "absent";
  const foreign = whyForeign(before, rules);
  if (foreign !== undefined) return { foreign };
  let file: number;
  try {
    file = openSync(path, guarded | (access === "read" ? constants.O_RDONLY : constants.O_RDWR));
  } catch (error) {
    return whatOpeningSays(error);
  }
  const changed = checkOpened(file, rules);
  if (changed === undefined) return file;
  closeSync(file);
  return { foreign: changed };
}

/** Makes a file, 0600, where nothing is: not even a link. @throws EEXIST, and Node's other errors */
export function createPrivateFile(path: string): number {
  const file = openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL | guarded, privateMode);
  fchmodSync(file, privateMode); // whatever the mask took away
  return file;
}

/** Opens the file for writing if it is ours alone, or makes it. */
export function openOrCreatePrivateFile(path: string, rules: PrivateFileRules = {}): number | Foreign {
  for (let left = tries; left > 0; left -= 1) {
    const opened = openPrivateFile(path, "write", rules);
    if (opened !== "absent") return opened;
    try {
      return createPrivateFile(path);
    } catch (error) {
      if (codeOf(error) !== "EEXIST") throw error;
    }
  }
  return { foreign: "comes and goes" };
}

/** All of a small file that is ours alone. One of more than `mostBytes` is foreign. */
export function readPrivateFile(
  path: string,
  mostBytes: number,
  rules: PrivateFileRules = {},
): Buffer | "absent" | Foreign {
  const file = openPrivateFile(path, "read", rules);
  if (typeof file !== "number") return file;
  try {
    const { size } = fstatSync(file);
    if (size > mostBytes) return { foreign: `has ${size} bytes, more than the ${mostBytes} that it may have` };
    const bytes = Buffer.alloc(size);
    let done = 0;
    while (done < size) {
      const read = readSync(file, bytes, done, size - done, done);
      if (read === 0) break;
      done += read;
    }
    return bytes.subarray(0, done);
  } finally {
    closeSync(file);
  }
}

/**
 * Gives the name `path` to a new file, 0600, with these bytes, or leaves all as it was. What had the name before, a link
 * included, is not written to.
 *
 * @throws Node's errors
 */
export async function replacePrivateFile(path: string, bytes: Uint8Array): Promise<void> {
  const temporary = unfinishedName(path);
  try {
    const file = await open(
      temporary,
      constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | guarded,
      privateMode,
    );
    try {
      await file.chmod(privateMode);
      await file.writeFile(bytes);
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}

/** As {@link replacePrivateFile}, at once, for some bytes. */
export function replaceSmallPrivateFile(path: string, bytes: Uint8Array): void {
  const temporary = unfinishedName(path);
  const file = createPrivateFile(temporary);
  try {
    for (let done = 0; done < bytes.length;) done += writeSync(file, bytes, done);
    renameSync(temporary, path);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  } finally {
    closeSync(file);
  }
}

/** Removes what calls of {@link replacePrivateFile} left that were killed. For a directory that the caller owns and has locked. */
export function removeUnfinished(directory: string): void {
  for (const name of readdirSync(directory))
    if (unfinished.test(name) && isOursAt(join(directory, name))) rmSync(join(directory, name), { force: true });
}

/** Whether a regular file of ours lies there, whatever its mode. */
export function isOursAt(path: string): boolean {
  const stats = statsAt(path);
  return stats !== "absent" && stats.isFile() && stats.uid === ownUserId();
}

/** Whether what is open is still what lies there, and no other one under its name. */
export function isAt(path: string, file: number): boolean {
  const [there, open] = [statsAt(path), fstatSync(file)];
  return there !== "absent" && there.ino === open.ino && there.dev === open.dev;
}

/** Why a file is not ours alone; undefined when it is. */
export function whyForeign(stats: Stats, { names = "any", tighten }: PrivateFileRules = {}): string | undefined {
  if (!stats.isFile()) return `is ${kindOf(stats)}`;
  if (stats.uid !== ownUserId()) return `belongs to user ${stats.uid}`;
  if ((stats.mode & 0o022) !== 0) return "can be written by others";
  if ((stats.mode & 0o077) !== 0 && tighten === undefined) return "can be read by others";
  if (stats.nlink > 1 && names === "one") return `has ${stats.nlink} names`;
  return undefined;
}

/** What is at a path, in words: "a link". */
export function kindOf(stats: Stats): string {
  if (stats.isSymbolicLink()) return "a link";
  if (stats.isDirectory()) return "a directory";
  if (stats.isFIFO()) return "a FIFO";
  if (stats.isSocket()) return "a socket";
  return stats.isFile() ? "a file" : "a device";
}

/** What opening did not know yet. With `tighten`, takes from others what they may do with the file. */
function checkOpened(file: number, rules: PrivateFileRules): string | undefined {
  const stats = fstatSync(file);
  const foreign = whyForeign(stats, rules);
  if (foreign === undefined && (stats.mode & 0o077) !== 0) fchmodSync(file, privateMode);
  return foreign;
}

function statsAt(path: string): Stats | "absent" {
  try {
    return lstatSync(path);
  } catch (error) {
    if (codeOf(error) === "ENOENT") return "absent";
    throw error;
  }
}

/** Something else came under the name since it was looked at, or its mode does not even let us in. */
function whatOpeningSays(error: unknown): "absent" | Foreign {
  switch (codeOf(error)) {
    case "ENOENT":
      return "absent";
    case "ELOOP":
    case "ENXIO":
    case "EISDIR":
    case "EACCES":
    case "EPERM":
    case "EAGAIN":
      return { foreign: `cannot be opened (${describe(error)})` };
    default:
      throw error;
  }
}

function unfinishedName(path: string): string {
  return `${path}.${randomBytes(8).toString("hex")}.new`;
}
