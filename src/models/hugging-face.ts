/**
 * Hugging Face's cache: files of a repository by revision, as links to blobs.
 *
 *     hub/models--ORG--NAME/refs/main              the revision that `main` was last
 *                           snapshots/REVISION/…   its files
 *
 * Layout: huggingface_hub's documentation, "Understand caching". llama.cpp puts there what `-hf` downloads.
 */
import { join } from "node:path";
import { readSmallFile } from "../config/small-file.ts";
import type { FolderSearch } from "./folder-search.ts";
import type { Candidate } from "./found-model.ts";

/** Folders within a repository: some have one a quantisation. */
const depth = 3;

/** The GGUF files of every repository, of the newest revision that is known there. */
export async function huggingFaceModels(hub: string, search: FolderSearch): Promise<Candidate[]> {
  const found: Candidate[] = [];
  for (const folder of await search.folders(hub)) {
    if (!folder.startsWith("models--")) continue;
    const repository = folder.slice("models--".length).replace("--", "/");
    const snapshots = join(hub, folder, "snapshots");
    const revisions = await search.folders(snapshots);
    const main = mainRevision(join(hub, folder));
    for (const revision of main !== undefined && revisions.includes(main) ? [main] : revisions)
      for (const file of await search.ggufFiles(join(snapshots, revision), depth))
        found.push({ ...file, repository, source: "Hugging Face" });
  }
  return found;
}

function mainRevision(repository: string): string | undefined {
  try {
    return readSmallFile(join(repository, "refs", "main")).text.trim();
  } catch {
    return undefined; // there is none, or none that can be read
  }
}
