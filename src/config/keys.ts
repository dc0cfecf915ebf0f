/**
 * Keys: what may be one, and files of them. A key that could never be sent, or be guessed in an afternoon, is refused when
 * the server starts and not found out about later.
 */
import { readFileSync, realpathSync, type Stats } from "node:fs";
import { describe } from "../errors.ts";
import { readSmallFile } from "./small-file.ts";

const shortest = 8;
const longest = 256;

/** @throws Error that says what a key must be, and not what this one is */
export function checkKey(key: string): void {
  if (key.length < shortest || key.length > longest)
    throw new Error(`a key must have ${shortest} to ${longest} characters; this one has ${key.length}`);
  // As a header carries it, and as a list in the environment can: that is cut at commas.
  if (!/^[\x21-\x2b\x2d-\x7e]+$/.test(key))
    throw new Error("a key must be of letters, digits and signs of ASCII, without spaces and commas");
}

/**
 * The keys of a file, one a line; empty lines and those that begin with `#` are none.
 *
 * @throws Error listing every fault, one a line: the file is missing, has no key, or could be read or changed by others
 */
export function readKeyFile(path: string): readonly string[] {
  const { text, stats } = readSmallFile(path);
  const faults = strangersIn(stats).filter(() => !isMountedSecret(realpathSync(path), mounts()));
  const keys: string[] = [];
  for (const [index, line] of text.split(/\r?\n/).entries()) {
    const key = line.trim();
    if (key === "" || key.startsWith("#")) continue;
    try {
      checkKey(key);
      keys.push(key);
    } catch (error) {
      faults.push(`line ${index + 1}: ${describe(error)}`);
    }
  }
  if (keys.length === 0 && faults.length === 0) faults.push("there is no key in it");
  if (faults.length > 0) throw new Error(faults.join("\n"));
  return keys;
}

/** Who else could read or change a file: its group may read it, nobody else may anything. */
function strangersIn({ mode, uid }: Stats): string[] {
  const faults: string[] = [];
  const own = process.getuid?.();
  if (own !== undefined && uid !== own && uid !== 0) faults.push(`it belongs to another user (${uid}): chown it`);
  if ((mode & 0o027) !== 0)
    faults.push(`others can read or change it (mode ${(mode & 0o777).toString(8).padStart(4, "0")}): chmod 600 it`);
  return faults;
}

/**
 * Whether a file lies where containers find their secrets: Kubernetes mounts those as a tmpfs, Docker and Podman as a tmpfs or
 * each file by itself, read-only and with modes such as 0644 and 0444, which nobody outside of the container can use.
 *
 * @param realPath without links: Kubernetes' are links to links
 * @param mountTable as in /proc/self/mountinfo
 */
export function isMountedSecret(realPath: string, mountTable: string): boolean {
  let holder: { point: string; options: string; type: string } | undefined;
  for (const line of mountTable.split("\n")) {
    const [, , , , point = "", options = "", ...rest] = line.split(" ");
    const type = rest[rest.indexOf("-") + 1] ?? "";
    const unescaped = point.replaceAll(/\\([0-7]{3})/g, (_, octal: string) =>
      String.fromCharCode(Number.parseInt(octal, 8)),
    );
    const inside = realPath === unescaped || realPath.startsWith(unescaped.endsWith("/") ? unescaped : `${unescaped}/`);
    // Of mounts at one point the last is what is seen.
    if (point !== "" && inside && unescaped.length >= (holder?.point.length ?? 0))
      holder = { point: unescaped, options, type };
  }
  if (holder === undefined || !holder.options.split(",").includes("ro")) return false;
  return holder.type === "tmpfs" || holder.point === realPath;
}

/** "" where there is no such table. */
function mounts(): string {
  try {
    return readFileSync("/proc/self/mountinfo", "utf8");
  } catch {
    return "";
  }
}
