/** Looks through folders for a bounded time: so many entries in all, whatever lies there. Links to folders are not followed. */
import type { Dirent } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";

/** A home directory that was named by mistake is not read whole. */
const mostEntries = 50_000;
/** Parts after the first of a split model. */
const laterPart = /^(.*)-(?!00001)\d{5}-of-(\d{5}\.gguf)$/i;

export interface GgufFile {
  readonly path: string;
  /** Of a split model, those after the first that are there. */
  readonly laterParts: readonly string[];
}

export class FolderSearch {
  #left = mostEntries;

  /** @param depth folders below `root` that are looked into */
  async ggufFiles(root: string, depth: number): Promise<GgufFile[]> {
    const found: GgufFile[] = [];
    const entries = await this.#entriesOf(root);
    const parts = new Map<string, string[]>();
    for (const { name } of entries) {
      const [, stem, ending] = laterPart.exec(name) ?? [];
      if (stem === undefined) continue;
      const first = `${stem}-00001-of-${ending}`.toLowerCase();
      parts.set(first, [...(parts.get(first) ?? []), join(root, name)].slice(0, 512));
    }
    for (const entry of entries) {
      const path = join(root, entry.name);
      if (entry.isDirectory()) {
        if (depth > 0) found.push(...(await this.ggufFiles(path, depth - 1)));
      } else if (/\.gguf$/i.test(entry.name) && !laterPart.test(entry.name))
        found.push({ path, laterParts: parts.get(entry.name.toLowerCase()) ?? [] });
    }
    return found;
  }

  /** Names of the folders in a folder. */
  async folders(folder: string): Promise<string[]> {
    return (await this.#entriesOf(folder)).filter((entry) => entry.isDirectory()).map(({ name }) => name);
  }

  /** Names of the files in a folder, and of links to some. */
  async files(folder: string): Promise<string[]> {
    const isFile = (entry: Dirent) => entry.isFile() || entry.isSymbolicLink();
    return (await this.#entriesOf(folder)).filter(isFile).map(({ name }) => name);
  }

  /** By name. A folder that is not there, or that we may not read, holds nothing. */
  async #entriesOf(folder: string): Promise<Dirent[]> {
    if (this.#left <= 0) return [];
    const entries = await readdir(folder, { withFileTypes: true }).catch(() => []);
    const seen = entries.toSorted((a, b) => (a.name < b.name ? -1 : 1)).slice(0, this.#left);
    this.#left -= seen.length;
    return seen;
  }
}
