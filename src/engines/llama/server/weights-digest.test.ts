import { createHash } from "node:crypto";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { temporaryFolder } from "../../../../test/support/cache.ts";
import { createLog, silentLog } from "../../../log.ts";
import { sampleBytes, weightsDigest } from "./weights-digest.ts";

const digestOf = (...parts: (string | Uint8Array)[]) => {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(part);
  return hash.digest("hex");
};
const signal = new AbortController().signal;

/** Files of a model in memory, whose identity is what the test says, and what was read of them. */
class HeldFiles {
  readonly path = "held.gguf";
  readonly parts: Uint8Array[];
  identity = "1:2:3:4:5";
  readBytes = 0;
  onRead: () => void = () => {};

  constructor(...parts: (string | Uint8Array)[]) {
    this.parts = parts.map((part) => new Uint8Array(Buffer.from(part)));
  }

  get partBytes(): number[] {
    return this.parts.map((part) => part.length);
  }

  read(part: number, into: Uint8Array, position: number): Promise<number> {
    const bytes = this.parts[part]!.subarray(position, position + into.length);
    into.set(bytes);
    this.readBytes += bytes.length;
    this.onRead();
    return Promise.resolve(bytes.length);
  }
}

function setUp() {
  const folder = temporaryFolder();
  const dataDirectory = join(folder.path, "data");
  const lines: string[] = [];
  const log = createLog({ level: "info", write: (line) => lines.push(line) });
  const memory = join(dataDirectory, "weights.json");
  return {
    lines,
    memory,
    dataDirectory,
    digest: async (files: HeldFiles) => (await weightsDigest(files, { dataDirectory, signal, log })).digest,
    [Symbol.dispose]: () => folder[Symbol.dispose](),
  };
}

test("a digest is remembered by the files' identity, and its file can be read by nobody else", async () => {
  using rig = setUp();
  const files = new HeldFiles("weights");
  expect(await rig.digest(files)).toBe(digestOf("weights"));
  expect(statSync(rig.memory).mode & 0o777).toBe(0o600);

  // Another digest in the file shows that it is what is read.
  const remembered = digestOf("remembered");
  writeFileSync(rig.memory, readFileSync(rig.memory, "utf8").replace(digestOf("weights"), remembered));
  expect(await rig.digest(files)).toBe(remembered);
  files.identity = "1:2:3:4:6";
  expect(await rig.digest(files)).toBe(digestOf("weights"));
  expect(readdirSync(rig.dataDirectory)).toEqual(["weights.json"]);
  expect(rig.lines).toEqual([]);
});

test("all parts of a split model are digested in order", async () => {
  using rig = setUp();
  expect(await rig.digest(new HeldFiles("one", "two"))).toBe(digestOf("onetwo"));
});

test("files of a known identity with other content are other weights, wherever they differ", async () => {
  const page = 4096;
  const plain = () => Uint8Array.from({ length: 300 * page }, (_, index) => (index * 7919) >>> 8);
  for (const [part, from] of [
    [0, 100],
    [1, 3],
    [1, 150 * page],
    [1, 300 * page - 1],
  ] as const) {
    using rig = setUp();
    const parts = [plain(), plain()];
    await rig.digest(new HeldFiles(...parts));
    parts[part]!.fill(1, from, from + 2 * page);
    expect(await rig.digest(new HeldFiles(...parts)), `part ${part}, from ${from}`).toBe(digestOf(...parts));
  }
});

test("what is read of known weights is bounded, however large they are", async () => {
  using rig = setUp();
  const files = new HeldFiles(new Uint8Array(40 << 20).fill(3));
  await rig.digest(files);
  expect(files.readBytes).toBeGreaterThanOrEqual(40 << 20);
  files.readBytes = 0;
  await rig.digest(files);
  expect(files.readBytes).toBeLessThanOrEqual(sampleBytes);
  expect(files.readBytes).toBeGreaterThan(sampleBytes / 2);
});

test("files that change while they are read have no digest, and none is remembered", async () => {
  using rig = setUp();
  const files = new HeldFiles("weights");
  files.onRead = () => (files.identity = "1:2:3:4:7");
  await expect(rig.digest(files)).rejects.toMatchObject({ code: "MODEL_INVALID" });
  expect(existsSync(rig.memory)).toBe(false);
});

test("digests that are damaged, planted or not in a file are not believed", async () => {
  using rig = setUp();
  const files = new HeldFiles("weights");
  await rig.digest(files);
  const lie = readFileSync(rig.memory, "utf8").replace(digestOf("weights"), digestOf("lie"));
  const elsewhere = join(rig.dataDirectory, "elsewhere");
  const forms: Record<string, () => void> = {
    "not JSON": () => writeFileSync(rig.memory, "not JSON"),
    "a list": () => writeFileSync(rig.memory, "[]"),
    "no digests": () => writeFileSync(rig.memory, JSON.stringify({ [files.identity]: { digest: "x", sample: 5 } })),
    "the form of older releases": () =>
      writeFileSync(rig.memory, JSON.stringify({ [files.identity]: digestOf("lie") })),
    "a link": () => {
      writeFileSync(elsewhere, lie, { mode: 0o600 });
      symlinkSync(elsewhere, rig.memory);
    },
    "writable by others": () => {
      writeFileSync(rig.memory, lie);
      chmodSync(rig.memory, 0o666);
    },
    "a folder": () => mkdirSync(rig.memory),
  };
  for (const [name, form] of Object.entries(forms)) {
    rmSync(rig.memory, { recursive: true, force: true });
    form();
    expect(await rig.digest(files), name).toBe(digestOf("weights"));
  }
  if (existsSync(elsewhere)) expect(readFileSync(elsewhere, "utf8"), "nothing is written through a link").toBe(lie);
});

test("a digest that cannot be remembered is told of once and works", async () => {
  using folder = temporaryFolder();
  const lines: string[] = [];
  const log = createLog({ level: "info", write: (line) => lines.push(line) });
  const dataDirectory = join(folder.path, "file");
  writeFileSync(dataDirectory, "");
  const { digest } = await weightsDigest(new HeldFiles("weights"), { dataDirectory, signal, log });
  expect(digest).toBe(digestOf("weights"));
  expect(lines.filter((line) => line.includes("cannot be remembered"))).toHaveLength(1);
});

test("digesting ends when the server does", async () => {
  using folder = temporaryFolder();
  const stop = new AbortController();
  const files = new HeldFiles("weights");
  files.onRead = () => stop.abort();
  const options = { dataDirectory: folder.path, signal: stop.signal, log: silentLog };
  await expect(weightsDigest(files, options)).rejects.toMatchObject({ name: "AbortError" });
});
