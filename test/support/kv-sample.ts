/** The beginning of a chunk's real KV: of the shipped model, some notes, with the cache in each of llama.cpp's usual types. */
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { repositoryRoot } from "./repository.ts";

export const kvTypes = ["f16", "bf16", "q8_0"] as const;

export function kvSample(type: (typeof kvTypes)[number]): Buffer {
  return readFileSync(join(repositoryRoot, "test/fixtures/kv", `${type}.bin`));
}

/** Numbers of two bytes, of which one has some 3 bits of news: as KV is, without being the same twice. */
export function numbers(bytes: number): Buffer {
  const all = randomBytes(bytes);
  for (let i = 1; i < bytes; i += 2) all[i] = 0x38 + (all[i]! & 7);
  return all;
}
