/**
 * The data directory as a server takes it: made if it is missing, ours alone, locked, with the secret in it.
 *
 *     not a directory, another user's, others could write it, no permission ► one line, exit code 2
 *     another server has it ────────────────────────────────────────────────► one line, exit code 3
 *     its drive is full, read-only or broken ───────────────────────────────► the server starts without what it cannot keep
 *
 * Without a lock nothing is written there: no disk tier in it, no pool to adopt, the socket elsewhere.
 */
import { randomBytes } from "node:crypto";
import { existsSync, renameSync, statSync } from "node:fs";
import { join, resolve } from "node:path";
import { codeOf, describe, RepriseError } from "../errors.ts";
import { silentLog, type Log } from "../log.ts";
import { checkPrivateDirectory, makePrivateDirectory } from "../private-directory.ts";
import { readPrivateFile, removeUnfinished, replaceSmallPrivateFile } from "../private-files.ts";
import { DirectoryLock } from "../tiers/disk/directory-lock.ts";

const secretBytes = 32;
/** What a drive says that is full, read-only or broken: no mistake of whoever typed the path. */
const driveFaults = new Set(["ENOSPC", "EDQUOT", "EROFS", "EIO"]);

export function isDriveFault(error: unknown): boolean {
  const cause = error instanceof RepriseError ? error.cause : error;
  return driveFaults.has(codeOf(cause) ?? "");
}

export class DataDirectory implements Disposable {
  readonly path: string;
  /** What tenants' salts are derived with; the same as long as the data directory lives and can keep it. */
  readonly secret: Buffer;
  readonly #lock: DirectoryLock | undefined;

  private constructor(path: string, secret: Buffer, lock: DirectoryLock | undefined) {
    this.path = path;
    this.secret = secret;
    this.#lock = lock;
  }

  /** @throws RepriseError DATA_DIRECTORY_IN_USE, BAD_CONFIG */
  static async take(given: string, log: Log): Promise<DataDirectory> {
    const path = resolve(given);
    const lock = await lockOf(path, log);
    try {
      const secret = readOrMakeSecret(join(path, "secret"), { mayWrite: lock !== undefined, log });
      if (lock !== undefined) removeUnfinished(path);
      return new DataDirectory(path, secret, lock);
    } catch (error) {
      lock?.[Symbol.dispose]();
      throw error;
    }
  }

  /** Nothing can be written there. */
  get isReadOnly(): boolean {
    return this.#lock === undefined;
  }

  [Symbol.dispose](): void {
    this.#lock?.[Symbol.dispose]();
  }
}

/** What a server leaves in its data directory; older ones may lack the later ones. */
const marks = ["lock", "secret", "disk"];

/** For commands about what is stored: who mistypes the path must not believe that it is gone. @throws RepriseError BAD_CONFIG */
export function mustBeThere(dataDir: string): void {
  const stats = statSync(dataDir, { throwIfNoEntry: false });
  if (stats === undefined) throw new RepriseError("BAD_CONFIG", `there is no data directory ${dataDir}`);
  if (!stats.isDirectory()) throw new RepriseError("BAD_CONFIG", `${dataDir} is a file, not a data directory`);
  if (!marks.some((name) => existsSync(join(dataDir, name))))
    throw new RepriseError("BAD_CONFIG", `${dataDir} is not a data directory of Reprise: no server has ever used it`);
}

/** For commands that work where no server runs. @returns undefined when there is no such directory */
export async function lockIfThere(given: string): Promise<DirectoryLock | undefined> {
  const path = resolve(given);
  return existsSync(path) ? lockChecked(path, silentLog) : undefined;
}

async function lockOf(path: string, log: Log): Promise<DirectoryLock | undefined> {
  try {
    await makePrivateDirectory(path, "the data directory");
    return await lockChecked(path, log);
  } catch (error) {
    if (!isDriveFault(error)) throw error;
    log.warn(`nothing can be kept in the data directory ${path}: ${describe(error)}; going on in memory alone`);
    return undefined;
  }
}

/** @throws RepriseError DATA_DIRECTORY_IN_USE, BAD_CONFIG */
async function lockChecked(path: string, log: Log): Promise<DirectoryLock> {
  try {
    const { warnings } = await checkPrivateDirectory(path, "the data directory");
    for (const warning of warnings) log.warn(warning);
    return DirectoryLock.take(path);
  } catch (error) {
    if (error instanceof RepriseError) throw error;
    throw new RepriseError("BAD_CONFIG", `the data directory ${path} cannot be written`, { cause: error });
  }
}

/** One that is damaged, or that others could read, is put aside: what tenants stored under it is not found any more. */
function readOrMakeSecret(path: string, { mayWrite, log }: { mayWrite: boolean; log: Log }): Buffer {
  const secret = randomBytes(secretBytes);
  try {
    const found = readPrivateFile(path, secretBytes);
    if (found instanceof Uint8Array && found.length === secretBytes) return found;
    if (!mayWrite) return secret;
    if (found !== "absent") {
      const aside = `${path}.odd-${randomBytes(4).toString("hex")}`;
      const fault = found instanceof Uint8Array ? `has ${found.length} bytes instead of ${secretBytes}` : found.foreign;
      renameSync(path, aside);
      log.warn(`${path} ${fault}: it lies in ${aside} now, and what tenants had stored is not found any more`);
    }
    replaceSmallPrivateFile(path, secret);
  } catch (error) {
    log.warn(
      `${path} cannot be kept: ${describe(error)}; after a restart what tenants had stored is not found any more`,
    );
  }
  return secret;
}
