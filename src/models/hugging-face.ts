/**
 * Hugging Face's cache: files of a repository by revision, as links to blobs.
 *
 *     hub/models--ORG--NAME/refs/main              the revision that `main` was last
 *                           snapshots/REVISION/…   its files
 *
 * Layout: huggingface_hub's documentation, "Understand caching". llama.cpp puts there what `-hf` downloads.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Candidate } from "./found-model.ts";
import { ggufFiles, namesIn } from "./gguf-files.ts";

/** Folders within a repository: some have one a quantisation. */
const depth = 3;

/** The GGUF files of every repository, of the newest revision that is known there. */
export async function huggingFaceModels(hub: string): Promise<Candidate[]> {
  const found: Candidate[] = [];
  for (const folder of await namesIn(hub)) {
    if (!folder.startsWith("models--")) continue;
    const repository = folder.slice("models--".length).replace("--", "/");
    const snapshots = join(hub, folder, "snapshots");
    const revisions = await namesIn(snapshots);
    const main = await mainRevision(join(hub, folder));
    for (const revision of main !== undefined && revisions.includes(main) ? [main] : revisions)
      for (const path of await ggufFiles(join(snapshots, revision), depth))
        found.push({ path, repository, source: "Hugging Face" });
  }
  return found;
}

async function mainRevision(repository: string): Promise<string | undefined> {
  return readFile(join(repository, "refs", "main"), "utf8").then(
    (text) => text.trim(),
    () => undefined,
  );
}
