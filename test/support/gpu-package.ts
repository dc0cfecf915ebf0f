/** A package for a GPU without one: the installed plain libraries under the names that a test gives them, and stand-ins for a GPU's. */
import { execFileSync, spawnSync } from "node:child_process";
import { copyFileSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from "node:fs";
import Module, { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { onTestFinished } from "vitest";

export const plainName = `linux-${process.arch}`;
export const gpuName = `${plainName}-cuda`;
/** Where the plain package lies. */
export const installed = dirname(dirname(createRequire(import.meta.url).resolve(`@node-llama-cpp/${plainName}`)));

/** There are packages for a GPU of this platform that could be stood in for. */
export const hasGpuPackages = process.platform === "linux" && process.arch === "x64";
/** Some stand-ins are compiled: tests of them are skipped where nothing can. */
export const hasCompiler = hasGpuPackages && spawnSync("cc", ["--version"]).status === 0;

/**
 * Makes `folder/@node-llama-cpp/linux-…-cuda`. `named`: what each library is called there; undefined = left out, "damaged" = it
 * holds nonsense under its own name.
 *
 * @returns where the package lies
 */
export function writeGpuPackage(
  folder: string,
  named: (file: string) => string | undefined = realName("cuda"),
  kind: "cuda" | "vulkan" = "cuda",
): string {
  const name = `${plainName}-${kind}`;
  const root = join(folder, "@node-llama-cpp", name);
  const bins = binsOf(folder, kind);
  mkdirSync(join(root, "dist"), { recursive: true });
  mkdirSync(bins, { recursive: true });
  writeFileSync(join(root, "dist", "index.js"), "");
  copyFileSync(join(installed, "package.json"), join(root, "package.json"));
  const from = join(installed, "bins", plainName);
  for (const file of readdirSync(from)) {
    const name = file.endsWith(".so") ? named(file) : file;
    if (name === "damaged") writeFileSync(join(bins, file), "no library");
    else if (name !== undefined) symlinkSync(join(from, file), join(bins, name));
  }
  return root;
}

/** Where the package's libraries lie. */
export function binsOf(folder: string, kind: "cuda" | "vulkan"): string {
  const name = `${plainName}-${kind}`;
  return join(folder, "@node-llama-cpp", name, "bins", name);
}

/** What the real packages call their libraries. */
export function realName(kind: "cuda" | "vulkan"): (file: string) => string {
  return (file) => file.replace(/^lib(ggml|llama)\.v/, `lib$1.${kind}.v`);
}

/** The same libraries as cmake names them, with links in between: a build of one's own. */
export function writeOwnBuild(folder: string): string {
  const from = join(installed, "bins", plainName);
  mkdirSync(folder, { recursive: true, mode: 0o755 });
  for (const file of readdirSync(from).filter((each) => each.endsWith(".so"))) {
    const plain = file.replace(/\.v[\d.]+\.so$/, ".so");
    copyFileSync(join(from, file), join(folder, `${plain}.0.5.0`));
    if (plain.startsWith("libggml-cpu")) symlinkSync(`${plain}.0.5.0`, join(folder, plain));
    else symlinkSync(`${plain}.0.5.0`, join(folder, `${plain}.0`));
  }
  return folder;
}

/** Compiles a library. */
export function compileLibrary(path: string, source: string, ...more: readonly string[]): void {
  execFileSync("cc", ["-shared", "-fPIC", "-x", "c", "-o", path, "-", ...more], { input: source });
}

/** A library that runs `body` when it is opened. */
export function onOpening(body: string): string {
  return `#include <stdio.h>\n#include <stdlib.h>\n#include <unistd.h>\n__attribute__((constructor)) static void opened(void) { ${body} }`;
}

/** NVIDIA's driver, as far as it is asked: for CUDA 13.0, with one device. */
export const driverOfH200 = `#include <string.h>
  int cuInit(unsigned flags) { return 0; }
  int cuDriverGetVersion(int *version) { *version = 13000; return 0; }
  int cuDeviceGetCount(int *count) { *count = 1; return 0; }
  int cuDeviceGet(int *device, int index) { *device = index; return 0; }
  int cuDeviceGetName(char *name, int bytes, int device) { strncpy(name, "NVIDIA H200", bytes); return 0; }
  int cuDeviceGetAttribute(int *value, int attribute, int device) { *value = attribute == 75 ? 9 : 0; return 0; }`;

/** Sets a variable for this test, and the processes that it starts. */
export function setVariable(name: string, value: string): void {
  const before = process.env[name];
  process.env[name] = value;
  onTestFinished(() => {
    if (before === undefined) delete process.env[name];
    else process.env[name] = before;
  });
}

/** Packages are searched in `folder` as well, by this process and those that it starts. */
export function searchPackagesIn(folder: string): void {
  const { _initPaths: readNodePath } = Module as unknown as { _initPaths: () => void }; // undocumented: NODE_PATH is read once
  onTestFinished(() => readNodePath());
  setVariable("NODE_PATH", folder);
  readNodePath();
}
