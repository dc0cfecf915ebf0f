/**
 * A model of random weights, as large as people run, for benchmarks: what it says means nothing, and it costs what a real one of its
 * shape costs. Written once, in seconds, into the folder of the peers.
 */
import { existsSync, mkdirSync, renameSync, rmSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { type TinyModel, writeTinyGguf } from "../../test/support/tiny-gguf.ts";

/** By what people call the size: parameters, embeddings included. */
const shapes: Readonly<Record<string, TinyModel>> = {
  // 24 × 15.7 M in the layers, 32.8 M in the embeddings; 48 KiB of KV a token in f16.
  "0.4b": {
    family: "llama",
    layers: 24,
    embedding: 1024,
    heads: 16,
    keyValueHeads: 8,
    feedForward: 4096,
    vocabulary: 32_000,
    context: 32_768,
    matrices: "q8_0",
  },
};

/** @returns the path of its file. @throws Error when there is no such size */
export function randomModel(size: string): string {
  const shape = shapes[size];
  if (shape === undefined) throw new Error(`--random is one of ${Object.keys(shapes).join(", ")}; not ${size}`);
  const folder = process.env["REPRISE_PEERS"] ?? join(homedir(), ".cache", "reprise-peers");
  const path = join(folder, `random-${size}-${shape.matrices}.gguf`);
  if (existsSync(path)) return path;
  mkdirSync(folder, { recursive: true });
  const partial = `${path}.${process.pid}`;
  try {
    writeTinyGguf(partial, shape);
    renameSync(partial, path);
  } finally {
    rmSync(partial, { force: true });
  }
  return path;
}
