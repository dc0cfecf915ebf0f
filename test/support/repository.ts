/** Paths of this repository, wherever the calling program was compiled to. */
import { existsSync, readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

export const repositoryRoot = findRoot(dirname(fileURLToPath(import.meta.url)));

/** The command line as it is built. */
export const commandPath = join(repositoryRoot, "dist", "cli", "main.js");

/** The model that ships. */
export const shippedModelPath = join(repositoryRoot, "models", shippedModelFile());

function findRoot(directory: string): string {
  if (existsSync(join(directory, "package-lock.json"))) return directory;
  const parent = dirname(directory);
  if (parent === directory) throw new Error("not inside the repository");
  return findRoot(parent);
}

function shippedModelFile(): string {
  const file = readdirSync(join(repositoryRoot, "models")).find((name) => name.endsWith(".gguf"));
  if (file === undefined) throw new Error("models/ holds no .gguf file");
  return file;
}
