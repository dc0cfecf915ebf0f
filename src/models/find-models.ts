/**
 * Which models lie on this machine already: the one that ships, those in folders that were named, and those that other programs
 * have brought. They are used where they lie; nothing is downloaded, copied or run.
 */
import { constants } from "node:fs";
import { open, stat } from "node:fs/promises";
import { basename, isAbsolute, join, relative } from "node:path";
import { FolderSearch } from "./folder-search.ts";
import type { Candidate, FoundModel } from "./found-model.ts";
import { ggufKind } from "./gguf-kind.ts";
import { huggingFaceModels } from "./hugging-face.ts";
import { ollamaModels } from "./ollama.ts";
import { pythonModels } from "./python-packages.ts";

export interface WhereToLook {
  readonly home: string;
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Of `--models-dir`. */
  readonly folders: readonly string[];
  /** The model that ships. */
  readonly shippedPath: string;
}

/** Files that are looked into: more are nobody's models. */
const mostCandidates = 2000;
/** Folders below one that was named, and below LM Studio's (publisher, then model). */
const folderDepth = 4;
const partName = /-00001-of-(\d{5})\.gguf$/i;

/** In the order of {@link WhereToLook}, then by source. A file that is found twice counts once, under all of its names. Never throws. */
export async function findModels(where: WhereToLook): Promise<FoundModel[]> {
  const byIdentity = new Map<string, FoundModel & { readonly otherNames: string[] }>();
  for (const candidate of (await candidates(where)).slice(0, mostCandidates)) {
    const model = await look(candidate).catch(() => undefined); // it is gone, or not ours to read
    if (model === undefined) continue;
    const { identity, found } = model;
    const known = byIdentity.get(identity);
    if (known === undefined) byIdentity.set(identity, found);
    else
      for (const name of [found.name, ...found.otherNames])
        if (name !== known.name && !known.otherNames.includes(name)) known.otherNames.push(name);
  }
  return [...byIdentity.values()];
}

async function candidates({ home, environment, folders, shippedPath }: WhereToLook): Promise<Candidate[]> {
  // What is relative would be of the folder that one happens to be in.
  const variable = (name: string) => [environment[name]].find((value) => value !== undefined && isAbsolute(value));
  const cache = variable("XDG_CACHE_HOME") ?? join(home, ".cache");
  const hub = variable("HF_HUB_CACHE") ?? join(variable("HF_HOME") ?? join(cache, "huggingface"), "hub");
  const ollama = [variable("OLLAMA_MODELS"), join(home, ".ollama", "models"), "/usr/share/ollama/.ollama/models"];
  const inFolder = async (source: Candidate["source"], root: string) =>
    (await new FolderSearch().ggufFiles(root, folderDepth)).map((file): Candidate => ({ ...file, source }));
  const lmStudio = async (root: string) =>
    (await inFolder("LM Studio", root)).map((each) => ({
      ...each,
      repository: repositoryOf(relative(root, each.path)),
    }));
  const lists = [
    Promise.resolve([{ path: shippedPath, source: "Reprise" } as const]),
    ...folders.map((folder) => inFolder("--models-dir", folder)),
    ...ollama.flatMap((root) => (root === undefined ? [] : [ollamaModels(root, new FolderSearch())])),
    ...[join(home, ".lmstudio", "models"), join(cache, "lm-studio", "models")].map((root) => lmStudio(root)),
    huggingFaceModels(hub, new FolderSearch()),
    inFolder("llama.cpp", variable("LLAMA_CACHE") ?? join(cache, "llama.cpp")),
    pythonModels({ home, environment }, new FolderSearch()),
  ];
  return (await Promise.all(lists)).flat();
}

/** Undefined: not a model that writes text. @throws Node's error when it cannot be read */
async function look({
  path,
  source,
  name,
  repository,
  laterParts = [],
}: Candidate): Promise<{ found: FoundModel & { otherNames: string[] }; identity: string } | undefined> {
  // Without waiting: of a pipe that nobody writes to, `open` would not return.
  await using file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  const stats = await file.stat();
  if (!stats.isFile()) return undefined;
  const kind = await ggufKind(file);
  // `clip` reads images for another model; adapters and the like say so.
  if (kind === undefined || kind.type !== "model" || kind.architecture === "clip") return undefined;
  const sizes = await Promise.all(laterParts.map((part) => stat(part).then(({ size }) => size, () => 0))); // prettier-ignore
  const bytes = sizes.reduce((sum, size) => sum + size, stats.size);
  const otherNames = repository === undefined ? [] : [repository];
  const found = { name: name ?? nameOf(path), otherNames, path, bytes, architecture: kind.architecture, source };
  return { found, identity: `${stats.dev}:${stats.ino}` };
}

/** `publisher/model` of `publisher/model/file.gguf`. */
function repositoryOf(path: string): string {
  return path.split("/").slice(0, 2).join("/");
}

function nameOf(path: string): string {
  return basename(path)
    .replace(partName, "")
    .replace(/\.gguf$/i, "");
}
