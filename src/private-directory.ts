/**
 * Directories that nobody but we and root can write, on a path that nobody else can turn elsewhere.
 *
 *     /home/ada/.reprise       the directory itself: ours or root's, and nobody else may write it
 *     ──┬── ─┬─
 *       └────┴── each parent: ours or root's; if others may write it, it is sticky, so that they cannot move what is ours.
 *                The same holds for a link on the way, and for where it leads.
 *
 * One exception, with a warning: a mounted volume that everybody may write, which is how Kubernetes makes them. Whoever sees
 * the volume can move our directory away, so that we start without what it had; they cannot read or change it.
 *
 * Directories are made one by one: Node 20's recursive mkdir does not return where making one fails as if its parent were
 * missing (/proc).
 */
import type { Stats } from "node:fs";
import { lstat, mkdir, readlink } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { codeOf, RepriseError } from "./errors.ts";
import { isOwnGroup } from "./own-group.ts";
import { kindOf, ownUserId } from "./private-files.ts";

/** As many as Linux follows. */
const mostLinks = 40;

export interface PrivateDirectory {
  /** Its path without links. */
  readonly path: string;
  /** What others could still do, for the log. */
  readonly warnings: readonly string[];
}

/**
 * The directory, made if it is missing, 0700.
 *
 * @param what names it in messages: "the data directory".
 * @throws RepriseError BAD_CONFIG, one line: without a cause when others could write it or put another in its place, with one
 * when it cannot be made.
 */
export function makePrivateDirectory(path: string, what: string): Promise<PrivateDirectory> {
  return new Walk(path, what, true).follow();
}

/** As {@link makePrivateDirectory}, of one that must be there. */
export function checkPrivateDirectory(path: string, what: string): Promise<PrivateDirectory> {
  return new Walk(path, what, false).follow();
}

class Walk {
  readonly #asked: string;
  readonly #what: string;
  readonly #make: boolean;
  readonly #warnings: string[] = [];
  #links = 0;

  constructor(path: string, what: string, make: boolean) {
    this.#asked = resolve(path);
    this.#what = what;
    this.#make = make;
  }

  async follow(): Promise<PrivateDirectory> {
    let at = "/";
    let stats = await this.#stats(at);
    const ahead = this.#asked.split("/").filter((name) => name !== "");
    for (let name = ahead.shift(); name !== undefined; name = ahead.shift()) {
      if (name === "" || name === ".") continue;
      if (name === "..") {
        at = dirname(at);
        stats = await this.#stats(at);
        continue;
      }
      await this.#mustHold(at, stats);
      const next = join(at, name);
      const found = await this.#statsOrMade(next);
      if (found.isSymbolicLink()) {
        const target = await this.#target(next, found);
        ahead.unshift(...target.split("/"));
        if (!target.startsWith("/")) continue;
        at = "/";
        stats = await this.#stats(at);
      } else {
        if (!found.isDirectory()) throw this.#failure(notDirectory(next, found));
        at = next;
        stats = found;
      }
    }
    const reason = whyOpenToOthers(stats);
    if (reason !== undefined) throw this.#refusal(`it ${reason}${adviceOn(at, stats)}`);
    return { path: at, warnings: this.#warnings };
  }

  /** Nobody may move or replace what is in a directory on the way. */
  async #mustHold(directory: string, stats: Stats): Promise<void> {
    const reason = whyOpenToOthers(stats);
    if (reason === undefined) return;
    const isTrusted = stats.uid === 0 || stats.uid === ownUserId();
    if (isTrusted && (stats.mode & 0o1000) !== 0) return;
    if (isTrusted && directory !== "/" && (await this.#stats(dirname(directory))).dev !== stats.dev) {
      this.#warnings.push(
        `${this.#what} ${this.#asked} lies in a volume that everybody may write (${directory}): whoever sees it can move it away`,
      );
      return;
    }
    throw this.#refusal(`${directory}, where it lies, ${reason}, so that they could put another in its place`);
  }

  async #target(link: string, { uid }: Stats): Promise<string> {
    if (uid !== 0 && uid !== ownUserId()) throw this.#refusal(`${link} is a link of user ${uid}`);
    this.#links += 1;
    if (this.#links > mostLinks) throw this.#refusal(`its path has more than ${mostLinks} links`);
    try {
      return await readlink(link);
    } catch (error) {
      throw this.#failure(error);
    }
  }

  async #statsOrMade(directory: string): Promise<Stats> {
    if (this.#make) {
      try {
        return await lstat(directory);
      } catch (error) {
        if (codeOf(error) !== "ENOENT") throw this.#failure(error);
      }
      try {
        await mkdir(directory, 0o700);
      } catch (error) {
        if (codeOf(error) !== "EEXIST") throw this.#failure(error);
      }
    }
    return this.#stats(directory);
  }

  async #stats(path: string): Promise<Stats> {
    try {
      return await lstat(path);
    } catch (error) {
      throw this.#failure(error);
    }
  }

  /** Not the fault of who may write it: a drive is full, gone, or read-only; or the path leads nowhere. */
  #failure(cause: unknown): RepriseError {
    return new RepriseError("BAD_CONFIG", `${this.#what} ${this.#asked} cannot be made or opened`, { cause });
  }

  #refusal(reason: string): RepriseError {
    return new RepriseError("BAD_CONFIG", `${this.#what} ${this.#asked} cannot be used: ${reason}`);
  }
}

function notDirectory(path: string, stats: Stats): Error {
  return Object.assign(new Error(`${path} is ${kindOf(stats)}, not a directory`), { code: "ENOTDIR" });
}

/** Why others could write a directory; undefined when only we and root can. */
function whyOpenToOthers({ uid, gid, mode }: Stats): string | undefined {
  if (uid !== 0 && uid !== ownUserId()) return `belongs to user ${uid}`;
  if ((mode & 0o002) !== 0) return "can be written by others";
  if ((mode & 0o020) !== 0 && !isOwnGroup(gid)) return `can be written by others of group ${gid}`;
  return undefined;
}

function adviceOn(directory: string, { uid, mode }: Stats): string {
  if (uid !== 0 && uid !== ownUserId()) return "; give one of your own";
  if (uid === ownUserId() && (mode & 0o1000) === 0) return `; run chmod go-w ${directory}, or give another`;
  return "; give a folder in it instead";
}
