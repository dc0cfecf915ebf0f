// What the walk needs of this machine: namespaces, the folders in which Node and Python lie, an environment, and what is kept.
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, join } from "node:path";

/** Beside what .ci/run keeps there: npm's and pip's caches, and what Python programs take as given. */
export const kept = join(process.env.XDG_CACHE_HOME ?? join(homedir(), ".cache"), "reprise-ci");

/** Ends with whoever starts it, and all that is started within ends with it. */
export const enterNamespaces = "setpriv --pdeathsig KILL unshare --mount --pid --fork --kill-child".split(" ");
if (process.getuid() !== 0) enterNamespaces.push("--user", "--map-root-user");

/** Why nothing can be walked on this machine; undefined when it can. */
export function whyNoNamespaces() {
  const [program, ...args] = enterNamespaces;
  const tried = spawnSync(program, [...args, "--mount-proc", "true"], { encoding: "utf8" });
  if (tried.status === 0) return undefined;
  return `${enterNamespaces.join(" ")}: ${(tried.error?.message ?? tried.stderr).trim()}`;
}

const [pythonFolder, pythonVersion] = said("python3", [
  "-c",
  "import sys; print(sys.base_prefix); print('%d.%d' % sys.version_info[:2])",
]).split("\n");

/** Where Node and Python are installed. */
export function toolFolders() {
  return [dirname(dirname(process.execPath)), pythonFolder];
}

/** The machine's own, for its certificates and registries, without what belongs to the user or to npm, which may have started us. */
export function environment(home) {
  const own =
    /^(npm_|reprise_|walk_|xdg_|python|virtual_env|node_options|node_env|init_cwd|pwd|oldpwd|bash_env|tmpdir)/i;
  const { devDependencies } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8"));
  const tools = toolFolders().map((folder) => join(folder, "bin"));
  const compiler = ["typescript", "@types/node"].map((name) => `${name}@${devDependencies[name]}`);
  return {
    ...Object.fromEntries(Object.entries(process.env).filter(([name]) => !own.test(name))),
    HOME: home,
    PATH: [`${home}/.npm-global/bin`, ...tools, "/usr/bin:/bin:/usr/sbin:/sbin"].join(":"),
    WALK_COMPILER: compiler.join(" "),
  };
}

/** A folder with what docs/python.md takes as given, fetched once. */
export function pythonGiven() {
  const folder = join(kept, `torch-2.13.0-${pythonVersion}`);
  if (existsSync(folder)) return folder;
  const part = `${folder}.part`;
  rmSync(part, { recursive: true, force: true });
  mkdirSync(kept, { recursive: true });
  said("python3", ["-m", "pip", "install", "--quiet", "--target", part, "torch==2.13.0"]);
  renameSync(part, folder);
  return folder;
}

/** @throws Error with all that it said when it fails */
export function said(program, args, options = {}) {
  const done = spawnSync(program, args, { encoding: "utf8", ...options });
  if (done.status !== 0)
    throw new Error(`${program} ${args.join(" ")}: ${done.error?.message ?? `${done.stdout}${done.stderr}`}`);
  return done.stdout.trim();
}
