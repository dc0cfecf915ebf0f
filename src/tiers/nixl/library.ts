/**
 * Where NIXL's C library lies on this machine, and whether it is the one that we know.
 *
 *     library=PATH        that file, or a folder with it
 *     NIXL_LIBRARY        the same, from the environment
 *     otherwise           site-packages of the environment in which we run (VIRTUAL_ENV, CONDA_PREFIX), of the user and of the
 *                         system; then where NIXL's own build installs it
 *
 * A library is code: one that others could write is not loaded. What is loaded must be a release that is known, have every call,
 * name its kinds of memory as we do, and be able to load the plugin. Anything else is refused, for a guess would write into memory.
 */
import { readdirSync, readFileSync, realpathSync, statSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import { describe, RepriseError } from "../../errors.ts";
import { Nixl, type MemoryKind } from "../../ffi/nixl.ts";
import { whyUntrusted } from "../../trusted-code.ts";

type Environment = Readonly<Record<string, string | undefined>>;

export type Plugin = "POSIX" | "OBJ";

const fileName = "libnixl_capi.so";
/** In site-packages. The one for CUDA 12 comes first: it is the one whose OBJ loads without more of CUDA. */
const wheelFolders = [".nixl_cu12.mesonpy.libs", ".nixl_cu13.mesonpy.libs"];
const advice = "install it with: pip install --no-deps nixl-cu12";
const kindOf: Readonly<Record<Plugin, MemoryKind>> = { POSIX: "file", OBJ: "object" };

/** @returns its path. @throws RepriseError BAD_CONFIG, one line */
export function findNixl(given: string | undefined, plugin: Plugin, environment: Environment = process.env): string {
  const path = pathOf(given, environment);
  mustBeOurs(path, environment);
  mustBeKnown(path);
  mustLoad(path, plugin);
  return path;
}

function pathOf(given: string | undefined, environment: Environment): string {
  const named = given ?? environment["NIXL_LIBRARY"];
  if (named !== undefined && named !== "") {
    const found = libraryIn(named);
    if (found === undefined)
      throw fault(`there is no ${fileName} at ${named}; it is in the wheel nixl-cu12 (${advice} --target FOLDER)`);
    return found;
  }
  for (const folder of usualPlaces(environment)) {
    const found = libraryIn(folder);
    if (found !== undefined) return found;
  }
  throw fault(`NIXL is not installed; ${advice}, or say where it is with library=FOLDER`);
}

/** The library that a path means: the file itself, in the folder, or in a wheel that was installed into it. */
function libraryIn(path: string): string | undefined {
  const places = [path, join(path, fileName), ...wheelFolders.map((folder) => join(path, folder, fileName))];
  for (const place of places) {
    try {
      if (statSync(place).isFile()) return realpathSync(place);
    } catch {
      continue; // it is not there
    }
  }
  return undefined;
}

function usualPlaces(environment: Environment): string[] {
  const roots = [
    environment["VIRTUAL_ENV"],
    environment["CONDA_PREFIX"],
    join(homedir(), ".local"),
    "/usr/local",
    "/usr",
  ].filter((root) => root !== undefined && root !== "") as string[]; // those that are left
  return [
    ...roots.flatMap((root) =>
      entriesOf(join(root, "lib"))
        .filter((entry) => /^python3(?:\.\d+)?$/.test(entry))
        .flatMap((entry) => ["site-packages", "dist-packages"].map((folder) => join(root, "lib", entry, folder))),
    ),
    "/opt/nvidia/nvda_nixl/lib/x86_64-linux-gnu",
    "/opt/nvidia/nvda_nixl/lib/aarch64-linux-gnu",
  ];
}

function entriesOf(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return []; // it is not there
  }
}

/** The file and the folder of its plugins. */
function mustBeOurs(path: string, environment: Environment): void {
  for (const each of [path, environment["NIXL_PLUGIN_DIR"] ?? join(dirname(path), "plugins")]) {
    const why = whyUntrusted(each);
    if (why !== undefined) throw fault(why);
  }
}

/** By what pip noted beside the wheel; a library of another origin has no such note. */
function mustBeKnown(path: string): void {
  const site = dirname(dirname(path));
  const wheel = /^\.(\w+)\.mesonpy\.libs$/.exec(dirname(path).slice(site.length + 1))?.[1];
  if (wheel === undefined) return;
  const note = entriesOf(site).find((entry) => entry.startsWith(`${wheel}-`) && entry.endsWith(".dist-info"));
  if (note === undefined) return;
  const release = /^Version: (\S+)/m.exec(readFileSync(join(site, note, "METADATA"), "utf8"))?.[1] ?? "";
  const [, major, minor] = /^(\d+)\.(\d+)/.exec(release) ?? [];
  // Before 1.5 one transfer's failure was told to another.
  if (Number(major) !== 1 || Number(minor) < 5)
    throw fault(
      `${site} has NIXL ${release}, and 1.5 or a later 1.x is known: pip install --no-deps 'nixl-cu12>=1.5,<2'`,
    );
}

function mustLoad(path: string, plugin: Plugin): void {
  // Both are read once, when the library and its S3 client start. An object that is absent is no news; and what fails is tried three
  // times in a second or so, not ten times in 25 s, in which a thread would do nothing else.
  process.env["NIXL_LOG_LEVEL"] ??= "FATAL";
  if (plugin === "OBJ") process.env["AWS_RETRY_MODE"] ??= "standard";
  let kinds: readonly MemoryKind[];
  try {
    const nixl = new Nixl(path);
    const agent = nixl.createAgent("reprise probe");
    try {
      kinds = nixl.kindsOf(agent, plugin);
    } finally {
      nixl.destroyAgent(agent);
    }
  } catch (error) {
    const isPlugin = error instanceof Error && error.message.includes("get_plugin_params");
    const why = isPlugin
      ? `its plugin ${plugin} does not load; the wheel nixl-cu12 has one that does`
      : describe(error);
    throw fault(`${path} cannot be used: ${why}`, error);
  }
  if (!kinds.includes("dram") || !kinds.includes(kindOf[plugin]))
    throw fault(`${path} cannot be used: its plugin ${plugin} moves ${kinds.join(", ")}, not ${kindOf[plugin]}`);
}

function fault(why: string, cause?: unknown): RepriseError {
  return new RepriseError("BAD_CONFIG", `--tier nixl://…: ${why}`, cause === undefined ? {} : { cause });
}
