import { createHash } from "node:crypto";
import { appendFileSync, readFileSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { temporaryFolder } from "../../../test/support/cache.ts";
import { silentLog } from "../../log.ts";
import { modelParts, weightsDigest } from "./weights-digest.ts";

const digestOf = (...texts: string[]) => createHash("sha256").update(texts.join("")).digest("hex");

test("a digest is remembered until the file changes", async () => {
  using folder = temporaryFolder();
  const path = join(folder.path, "model.gguf");
  const options = { dataDirectory: join(folder.path, "data"), signal: new AbortController().signal, log: silentLog };
  writeFileSync(path, "weights");
  utimesSync(path, 1, 1);
  expect(await weightsDigest(path, options)).toBe(digestOf("weights"));

  // Another digest in the file shows that it is what is read.
  const memory = join(options.dataDirectory, "weights.json");
  writeFileSync(memory, readFileSync(memory, "utf8").replace(digestOf("weights"), digestOf("remembered")));
  expect(await weightsDigest(path, options)).toBe(digestOf("remembered"));

  appendFileSync(path, "!");
  expect(await weightsDigest(path, options)).toBe(digestOf("weights!"));
  writeFileSync(memory, "not JSON");
  expect(await weightsDigest(path, options)).toBe(digestOf("weights!"));
});

test("all parts of a split model are digested", async () => {
  using folder = temporaryFolder();
  const first = join(folder.path, "big-00001-of-00002.gguf");
  expect(modelParts(first)).toEqual([first, join(folder.path, "big-00002-of-00002.gguf")]);
  expect(modelParts("/models/plain.gguf")).toEqual(["/models/plain.gguf"]);
  const options = { dataDirectory: folder.path, signal: new AbortController().signal, log: silentLog };
  writeFileSync(first, "one");
  writeFileSync(join(folder.path, "big-00002-of-00002.gguf"), "two");
  expect(await weightsDigest(first, options)).toBe(digestOf("one", "two"));
});
