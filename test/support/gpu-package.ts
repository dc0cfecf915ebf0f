/** A package for a GPU without one: the installed plain libraries under the names that a test gives them. */
import { copyFileSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";

export const plainName = `linux-${process.arch}`;
export const gpuName = `${plainName}-cuda`;
/** Where the plain package lies. */
export const installed = dirname(dirname(createRequire(import.meta.url).resolve(`@node-llama-cpp/${plainName}`)));

/**
 * Makes `folder/@node-llama-cpp/linux-…-cuda`. `named`: what each library is called there; undefined = left out, "damaged" = it
 * holds nonsense under its own name.
 *
 * @returns where the package lies
 */
export function writeGpuPackage(folder: string, named: (file: string) => string | undefined): string {
  const root = join(folder, "@node-llama-cpp", gpuName);
  const bins = join(root, "bins", gpuName);
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
