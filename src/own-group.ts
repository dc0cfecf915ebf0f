/**
 * Whether a group is ours alone, so that what it may write nobody else may: many systems give each user a group of their own
 * and let it write (umask 002), and Kubernetes hands volumes to a pod by a group that has no name (fsGroup).
 */
import { readFileSync } from "node:fs";
import { userInfo } from "node:os";

/** Sources of names that are these files, or know no people. */
const localSources = new Set(["files", "compat", "systemd"]);

/**
 * True when nobody but we and root can be in the group, or it is root's (arbitrary users of OpenShift are in it). In doubt
 * false: names that come from elsewhere cannot be listed.
 */
export function isOwnGroup(groupId: number): boolean {
  if (groupId === 0) return true;
  if (!isOneOfOurs(groupId) || !namesAreLocal()) return false;
  const we = new Set(["root", ownName()]);
  const byPassword = linesOf("/etc/passwd").filter(([, , , group]) => group === String(groupId));
  const byGroup = linesOf("/etc/group").filter(([, , group]) => group === String(groupId));
  const members = byGroup.flatMap(([, , , names = ""]) => names.split(",").filter((name) => name !== ""));
  return [...byPassword.map(([name]) => name), ...members].every((name) => we.has(name));
}

function isOneOfOurs(groupId: number): boolean {
  return process.getegid?.() === groupId || process.getgroups?.().includes(groupId) === true;
}

/** Without the file, names come from the two files alone. */
function namesAreLocal(): boolean {
  return linesOf("/etc/nsswitch.conf")
    .filter(([database]) => database === "group" || database === "passwd")
    .every(([, sources = ""]) => sources.split(/\s+/).every((source) => source === "" || localSources.has(source)));
}

/** A user without a name, as containers have them, is none of those in the file. */
function ownName(): string | undefined {
  try {
    return userInfo().username;
  } catch {
    return undefined;
  }
}

function linesOf(path: string): string[][] {
  try {
    return readFileSync(path, "utf8")
      .split("\n")
      .map((line) => line.split(":"));
  } catch {
    return []; // not there: it names nobody
  }
}
