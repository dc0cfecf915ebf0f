/**
 * What Ollama has pulled. A manifest names the layers of a model, and each layer is a blob called after its digest:
 *
 *     models/manifests/registry.ollama.ai/library/llama3.2/1b   {"layers": [{"mediaType": "application/vnd.ollama.image.model",
 *     models/blobs/sha256-74701a8c35f6…                             "digest": "sha256:74701a8c35f6…"}, …]}
 *
 * Layout: ollama/ollama, server/manifest.go and types/model/name.go (2026-11). Names are those that `ollama list` prints.
 */
import { join } from "node:path";
import { readSmallFile } from "../config/small-file.ts";
import type { FolderSearch } from "./folder-search.ts";
import type { Candidate } from "./found-model.ts";

const modelLayer = "application/vnd.ollama.image.model";
const defaultHost = "registry.ollama.ai";
const defaultNamespace = "library";

/** @param root the folder that holds `manifests` and `blobs`. */
export async function ollamaModels(root: string, search: FolderSearch): Promise<Candidate[]> {
  const found: Candidate[] = [];
  const manifests = join(root, "manifests");
  for (const host of await search.folders(manifests))
    for (const namespace of await search.folders(join(manifests, host)))
      for (const model of await search.folders(join(manifests, host, namespace)))
        for (const tag of await search.files(join(manifests, host, namespace, model))) {
          const digest = modelDigest(join(manifests, host, namespace, model, tag));
          if (digest === undefined) continue;
          const name = shownName({ host, namespace, model, tag });
          found.push({ name, path: join(root, "blobs", `sha256-${digest}`), source: "Ollama" });
        }
  return found;
}

function shownName(parts: { host: string; namespace: string; model: string; tag: string }): string {
  const { host, namespace, model, tag } = parts;
  const before = host !== defaultHost ? `${host}/${namespace}/` : namespace !== defaultNamespace ? `${namespace}/` : "";
  return `${before}${model}:${tag}`;
}

/** Hexadecimal. Undefined: not a manifest of one GGUF file. */
function modelDigest(path: string): string | undefined {
  try {
    const { layers } = JSON.parse(readSmallFile(path).text) as { layers?: unknown };
    const models = (Array.isArray(layers) ? (layers as unknown[]) : []).flatMap((layer) => {
      const { mediaType, digest } = (layer ?? {}) as Record<string, unknown>;
      return mediaType === modelLayer && typeof digest === "string" ? [digest] : [];
    });
    const [, hex] = models.length === 1 ? (/^sha256:([0-9a-f]{64})$/.exec(models[0]!) ?? []) : [];
    return hex;
  } catch {
    return undefined; // damaged, or not ours to read: not a model that can be used
  }
}
