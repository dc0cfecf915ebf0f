import { execFileSync } from "node:child_process";
import { linkSync, mkdirSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { open } from "node:fs/promises";
import { dirname, join } from "node:path";
import { expect, test } from "vitest";
import { temporaryDirectory } from "../../test/support/data-directory.ts";
import { shippedModelPath } from "../../test/support/repository.ts";
import { writeSplitGguf, writeTinyGguf } from "../../test/support/tiny-gguf.ts";
import { findModels } from "./find-models.ts";
import { ggufKind } from "./gguf-kind.ts";
import { modelNamed } from "./model-named.ts";

let seed = 0;

/** A model of its own at `path`, whose folders are made. */
function place(path: string): string {
  mkdirSync(dirname(path), { recursive: true });
  writeTinyGguf(path, { family: "llama", seed: (seed += 1) });
  return path;
}

function placeText(path: string, text: string): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, text);
}

/** A GGUF file of these entries and no tensors. */
function gguf(entries: readonly (readonly [string, string | number])[], version = 3): Buffer {
  const text = (value: string) => {
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(Buffer.byteLength(value)));
    return Buffer.concat([length, Buffer.from(value)]);
  };
  const u32 = (value: number) => {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32LE(value);
    return bytes;
  };
  const counts = Buffer.alloc(16);
  counts.writeBigUInt64LE(BigInt(entries.length), 8);
  const body = entries.map(([key, value]) =>
    typeof value === "string"
      ? Buffer.concat([text(key), u32(8), text(value)])
      : Buffer.concat([text(key), u32(4), u32(value)]),
  );
  return Buffer.concat([Buffer.from("GGUF"), u32(version), counts, ...body]);
}

async function namesFound(home: string, more: { environment?: Record<string, string>; folders?: string[] } = {}) {
  const found = await findModels({ home, shippedPath: shippedModelPath, folders: [], environment: {}, ...more });
  return found.map(({ name, source }) => `${source}: ${name}`);
}

test("the one that ships, and those of each program, by the names that it gives them", async () => {
  const home = temporaryDirectory();
  const hex = "ab".repeat(32);
  place(join(home, ".ollama/models/blobs", `sha256-${hex}`));
  const manifest = JSON.stringify({
    layers: [
      { mediaType: "application/vnd.ollama.image.model", digest: `sha256:${hex}` },
      { mediaType: "application/vnd.ollama.image.license", digest: `sha256:${"cd".repeat(32)}` },
    ],
  });
  placeText(join(home, ".ollama/models/manifests/registry.ollama.ai/library/llama3.2/1b"), manifest);
  place(join(home, ".lmstudio/models/somebody/Tiny-GGUF/Tiny-Q4_K_M.gguf"));
  const repository = join(home, ".cache/huggingface/hub/models--org--Small-GGUF");
  placeText(join(repository, "refs/main"), "2222\n");
  place(join(repository, "snapshots/1111/small-old.gguf"));
  const blob = place(join(repository, "blobs/4711"));
  mkdirSync(join(repository, "snapshots/2222"), { recursive: true });
  symlinkSync(blob, join(repository, "snapshots/2222/small-q8_0.gguf"));
  place(join(home, ".cache/llama.cpp/fetched.gguf"));
  const venv = join(home, "venv");
  place(join(venv, "lib/python3.11/site-packages/a_package/in-package.gguf"));
  place(join(home, ".local/lib/python3.11/site-packages/another/of-user.gguf"));

  expect(await namesFound(home, { environment: { VIRTUAL_ENV: venv } })).toEqual([
    "Reprise: reprise-22m-q8_0",
    "Ollama: llama3.2:1b",
    "LM Studio: Tiny-Q4_K_M",
    "Hugging Face: small-q8_0",
    "llama.cpp: fetched",
    "Python: in-package",
    "Python: of-user",
  ]);
});

test("variables that move those programs' folders are followed", async () => {
  const home = temporaryDirectory();
  const elsewhere = temporaryDirectory();
  const hex = "12".repeat(32);
  place(join(elsewhere, "ollama/blobs", `sha256-${hex}`));
  const layers = [{ mediaType: "application/vnd.ollama.image.model", digest: `sha256:${hex}` }];
  placeText(join(elsewhere, "ollama/manifests/hf.co/somebody/a-model/Q4_K_M"), JSON.stringify({ layers }));
  place(join(elsewhere, "hub/models--a--b/snapshots/1/from-hub.gguf"));
  place(join(elsewhere, "llama/from-llama.gguf"));
  const environment = {
    OLLAMA_MODELS: join(elsewhere, "ollama"),
    HF_HUB_CACHE: join(elsewhere, "hub"),
    LLAMA_CACHE: join(elsewhere, "llama"),
  };
  expect(await namesFound(home, { environment })).toEqual([
    "Reprise: reprise-22m-q8_0",
    "Ollama: hf.co/somebody/a-model:Q4_K_M",
    "Hugging Face: from-hub",
    "llama.cpp: from-llama",
  ]);
});

test("the Python on the PATH, and the one that its virtual environment was made with", async () => {
  const home = temporaryDirectory();
  const [system, venv] = [join(home, "system"), join(home, "venv")];
  place(join(system, "lib/python3.11/site-packages/a/of-system.gguf"));
  place(join(system, "lib/python3/dist-packages/b/of-debian.gguf"));
  place(join(venv, "lib/python3.11/site-packages/c/d/of-venv.gguf"));
  placeText(join(system, "bin/python3"), "");
  mkdirSync(join(venv, "bin"));
  symlinkSync(join(system, "bin/python3"), join(venv, "bin/python3"));
  expect((await namesFound(home, { environment: { PATH: `bin:${join(venv, "bin")}` } })).slice(1)).toEqual([
    "Python: of-venv",
    "Python: of-debian",
    "Python: of-system",
  ]);
});

test("a folder that was named is searched below as well; what is no model of text is left out; a file counts once", async () => {
  const home = temporaryDirectory();
  const folder = temporaryDirectory();
  const chat = place(join(folder, "a/b/chat.gguf"));
  linkSync(chat, join(folder, "a/b/chat-again.gguf"));
  mkdirSync(join(folder, "split"));
  writeSplitGguf(join(folder, "split"), { family: "llama" });
  const write = (name: string, bytes: Buffer) => writeFileSync(join(folder, name), bytes);
  write("adapter.gguf", gguf([["general.architecture", "llama"], ["general.type", "adapter"]])); // prettier-ignore
  write("mmproj.gguf", gguf([["general.architecture", "clip"]]));
  write("imatrix.gguf", gguf([["general.type", "imatrix"]]));
  write("empty.gguf", Buffer.alloc(0));
  write("not-one.gguf", Buffer.from("something else that is long enough"));
  write("no-end.gguf", gguf([["general.architecture", "llama"]]).subarray(0, 40));
  mkdirSync(join(folder, "folder.gguf"));
  symlinkSync(folder, join(folder, "loop"));
  symlinkSync(join(folder, "nowhere.gguf"), join(folder, "dangling.gguf"));
  expect(await namesFound(home, { folders: [folder, join(folder, "not-there")] })).toEqual([
    "Reprise: reprise-22m-q8_0",
    "--models-dir: chat-again",
    "--models-dir: tiny",
  ]);
});

test("a blob with two tags is one model, found by both names", async () => {
  const home = temporaryDirectory();
  const hex = "34".repeat(32);
  place(join(home, ".ollama/models/blobs", `sha256-${hex}`));
  const layers = [{ mediaType: "application/vnd.ollama.image.model", digest: `sha256:${hex}` }];
  for (const tag of ["0.6b", "latest"])
    placeText(join(home, ".ollama/models/manifests/registry.ollama.ai/library/qwen3", tag), JSON.stringify({ layers }));
  const found = await findModels({ home, shippedPath: shippedModelPath, folders: [], environment: {} });
  expect(found.map(({ name, otherNames }) => [name, ...otherNames])).toEqual([
    ["reprise-22m-q8_0"],
    ["qwen3:0.6b", "qwen3:latest"],
  ]);
  expect(modelNamed("qwen3", found).name).toBe("qwen3:0.6b");
});

test("pipes, relative places and crowds keep nobody waiting", async () => {
  const home = temporaryDirectory();
  const ollama = join(home, "ollama");
  mkdirSync(join(ollama, "manifests/h/n/m"), { recursive: true });
  mkdirSync(join(home, "hub/models--a--b/refs"), { recursive: true });
  place(join(home, "hub/models--a--b/snapshots/1/in-hub.gguf"));
  symlinkSync("/", join(ollama, "manifests/h/everything"));
  const pipes = [join(ollama, "manifests/h/n/m/t"), join(home, "hub/models--a--b/refs/main"), join(home, "pipe.gguf")];
  for (const pipe of pipes) execFileSync("mkfifo", [pipe]);
  const folder = join(home, "crowd");
  mkdirSync(folder);
  for (let i = 0; i < 500; i += 1) writeFileSync(join(folder, `m${i}-00001-of-00512.gguf`), "");
  const environment = {
    OLLAMA_MODELS: ollama,
    HF_HUB_CACHE: join(home, "hub"),
    VIRTUAL_ENV: ".",
    CONDA_PREFIX: "",
    HF_HOME: "x",
  };
  const began = performance.now();
  expect(await namesFound(home, { environment, folders: [home] })).toEqual([
    "Reprise: reprise-22m-q8_0",
    "--models-dir: in-hub",
  ]);
  expect(performance.now() - began).toBeLessThan(5000);
});

test("the size of a split model is that of its parts", async () => {
  const folder = temporaryDirectory();
  const parts = writeSplitGguf(folder, { family: "llama" });
  const found = await findModels({
    home: temporaryDirectory(),
    shippedPath: shippedModelPath,
    folders: [folder],
    environment: {},
  });
  expect(found[1]).toMatchObject({ path: parts[0], bytes: statSync(parts[0]).size + statSync(parts[1]).size });
});

test("manifests of other kinds, damaged ones, and digests that are paths name no model", async () => {
  const home = temporaryDirectory();
  const manifests = join(home, ".ollama/models/manifests/registry.ollama.ai/library");
  const layers = (...digests: string[]) =>
    JSON.stringify({
      layers: digests.map((digest) => ({ mediaType: "application/vnd.ollama.image.model", digest })),
    });
  placeText(join(manifests, "m/damaged"), "{");
  placeText(join(manifests, "m/none"), layers());
  placeText(join(manifests, "m/two"), layers(`sha256:${"a".repeat(64)}`, `sha256:${"b".repeat(64)}`));
  placeText(join(manifests, "m/path"), layers("sha256:../../../../etc/passwd"));
  placeText(join(manifests, "m/odd"), JSON.stringify({ layers: [null, 7] }));
  placeText(join(manifests, "m/gone"), layers(`sha256:${"c".repeat(64)}`));
  expect(await namesFound(home)).toEqual(["Reprise: reprise-22m-q8_0"]);
});

test("what a file says of itself is read up to its first list, whatever comes before", async () => {
  const path = join(temporaryDirectory(), "x.gguf");
  writeFileSync(
    path,
    gguf([["general.quantization_version", 2], ["general.name", "X"], ["general.architecture", "qwen3"]]), // prettier-ignore
  );
  const kindOf = async (name: string) => {
    await using file = await open(name);
    return ggufKind(file);
  };
  expect(await kindOf(path)).toEqual({ architecture: "qwen3", type: "model" });
  expect(await kindOf(shippedModelPath)).toEqual({ architecture: "llama", type: "model" });
  writeFileSync(path, gguf([["general.architecture", "two\nlines"]]));
  expect(await kindOf(path)).toBeUndefined();
});

const listed = ["reprise-22m-q8_0", "llama3.2:1b", "llama3.2:latest", "Qwen3-8B-Q4_K_M", "twice", "twice"].map(
  (name, i) => ({
    name,
    otherNames: i === 3 ? ["somebody/Qwen3-8B-GGUF"] : [],
    path: `/models/${i}`,
    bytes: 1,
    architecture: "llama",
    source: "Python" as const,
  }),
);

test.each([
  ["llama3.2:1b", "/models/1"],
  ["LLAMA3.2:1B", "/models/1"],
  ["llama3.2", "/models/2"],
  ["qwen3", "/models/3"],
  ["reprise", "/models/0"],
  ["Somebody/qwen3-8b-gguf", "/models/3"],
  ["8b-q4", "/models/3"],
])("%s is the model in %s", (typed, path) => {
  expect(modelNamed(typed, listed).path).toBe(path);
});

test.each([
  ["llama3", /"llama3" may be one of 2 models; give the name of one:\n {2}llama3\.2:1b\n {2}llama3\.2:latest/],
  ["twice", /give the path of one:\n {2}\/models\/4\n {2}\/models\/5/],
  ["qwen3-8b-q4-k-m", /did you mean "Qwen3-8B-Q4_K_M"\?/],
  ["gpt-5", /no file "gpt-5", and no model of that name .* `reprise models` lists/],
])("%s names no single model", (typed, message) => {
  expect(() => modelNamed(typed, listed)).toThrow(message);
  expect(() => modelNamed(typed, listed)).toThrow(expect.objectContaining({ code: "MODEL_NOT_FOUND" }) as Error);
});
