/**
 * Where a unix socket may lie, and whose it may be.
 *
 * A socket's folder must be private (private-directory.ts), so that nobody else can put a socket of theirs in its place; a guest
 * speaks only to a socket of its own user or root. What is no socket is never removed.
 */
import { existsSync, lstatSync, rmSync, type Stats } from "node:fs";
import { connect } from "node:net";
import { dirname } from "node:path";
import { codeOf, RepriseError } from "../errors.ts";
import { checkPrivateDirectory, makePrivateDirectory } from "../private-directory.ts";
import { kindOf, ownUserId } from "../private-files.ts";

const folderName = "the folder of the socket,";

/**
 * Makes the place where a server is to listen ready: its folder made, the socket of a dead server removed.
 *
 * @returns warnings for the log
 * @throws RepriseError ADDRESS_IN_USE when a living server listens there, BAD_CONFIG when no socket can be made there.
 */
export async function prepareSocketPlace(path: string): Promise<readonly string[]> {
  mustFitSocketAddress(path);
  const { warnings } = await makePrivateDirectory(dirname(path), folderName);
  const found = statsAt(path);
  if (found === undefined) return warnings;
  if (!found.isSocket())
    throw new RepriseError(
      "BAD_CONFIG",
      `${path} is ${kindOf(found)}, not a socket: remove it, or give another --socket`,
    );
  if (await answers(path))
    throw new RepriseError("ADDRESS_IN_USE", `another server listens on ${path}: stop it, or choose another --socket`);
  rmSync(path, { force: true });
  return warnings;
}

/**
 * For guests, before they connect: a socket that is not there may be connected to in vain.
 *
 * @throws RepriseError CACHE_UNAVAILABLE when it is another user's, or could be put there by one.
 */
export async function checkSocket(path: string): Promise<void> {
  if (!existsSync(dirname(path))) return;
  try {
    await checkPrivateDirectory(dirname(path), folderName);
  } catch (error) {
    throw new RepriseError("CACHE_UNAVAILABLE", `the cache at ${path} is not used`, { cause: error });
  }
  const found = statsAt(path);
  if (found !== undefined && found.uid !== 0 && found.uid !== ownUserId())
    throw new RepriseError("CACHE_UNAVAILABLE", `the cache at ${path} is not used: it belongs to user ${found.uid}`);
}

/** @throws RepriseError BAD_CONFIG */
export function mustFitSocketAddress(path: string): void {
  const limit = process.platform === "darwin" ? 103 : 107;
  const bytes = Buffer.byteLength(path);
  if (bytes > limit)
    throw new RepriseError(
      "BAD_CONFIG",
      `the socket's path ${path} has ${bytes} bytes, and an address holds ${limit}: give a shorter one with --socket`,
    );
}

function statsAt(path: string): Stats | undefined {
  try {
    return lstatSync(path);
  } catch (error) {
    if (codeOf(error) === "ENOENT" || codeOf(error) === "ENOTDIR") return undefined;
    throw error;
  }
}

/** Does a living server listen there? */
function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", (error) => resolve(codeOf(error) === "EAGAIN"));
  });
}
