/** GGUF files below a folder. A folder that is not there, or that we may not read, holds none. */
import type { Dirent } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";

/** Entries that one search looks at: a home directory that was named by mistake is not read whole. */
const mostEntries = 100_000;
/** Parts after the first of a split model. */
const laterPart = /-(?!00001)\d{5}-of-\d{5}\.gguf$/i;

/** @param depth folders below `root` that are looked into. Links to folders are not followed; those to files are. */
export async function ggufFiles(root: string, depth: number): Promise<string[]> {
  const found: string[] = [];
  let left = mostEntries;
  const search = async (folder: string, below: number): Promise<void> => {
    for (const entry of await entriesOf(folder)) {
      if ((left -= 1) < 0) return;
      const path = join(folder, entry.name);
      if (entry.isDirectory()) {
        if (below > 0) await search(path, below - 1);
      } else if (/\.gguf$/i.test(entry.name) && !laterPart.test(entry.name)) found.push(path);
    }
  };
  await search(root, depth);
  return found.sort();
}

/** Names of what lies in a folder. */
export async function namesIn(folder: string): Promise<string[]> {
  return (await entriesOf(folder)).map(({ name }) => name).sort();
}

async function entriesOf(folder: string): Promise<Dirent[]> {
  try {
    return await readdir(folder, { withFileTypes: true });
  } catch {
    return []; // whatever the reason, nothing can be taken from there
  }
}
