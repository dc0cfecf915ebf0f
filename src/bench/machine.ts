/** What a figure must be read with: the machine it was measured on, and the source it was measured of. */
import { execFileSync } from "node:child_process";
import { cpus, release, totalmem, type } from "node:os";
import { fileURLToPath } from "node:url";
import { formatBytes } from "../bytes.ts";

/** One line: processor, cores, memory, system, Node. */
export function describeMachine(): string {
  const cores = cpus();
  const memory = formatBytes(totalmem());
  return `${cores[0]?.model.trim() ?? "unknown processor"}, ${cores.length} cores, ${memory}, ${type()} ${release()}, Node ${process.version}`;
}

/** The commit of a source checkout, with "+" where it has changes; "" where this is an installed package. */
export function sourceCommit(root = fileURLToPath(new URL("../..", import.meta.url))): string {
  const git = (...args: string[]) =>
    execFileSync("git", args, {
      cwd: root,
      encoding: "utf8",
      stdio: ["ignore", "pipe", "ignore"],
    }).trim();
  try {
    // An installed package may lie in somebody else's repository, which does not track it.
    if (git("ls-files", "package.json") === "") return "";
    return git("rev-parse", "HEAD") + (git("status", "--porcelain", "--untracked-files=no") === "" ? "" : "+");
  } catch {
    return ""; // no git, or no checkout
  }
}
