import { execFileSync } from "node:child_process";
import {
  appendFileSync,
  copyFileSync,
  linkSync,
  readdirSync,
  renameSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { temporaryFolder } from "../../../../test/support/cache.ts";
import { writeTinyGguf } from "../../../../test/support/tiny-gguf.ts";
import { LoadableModel, ModelFiles, modelParts } from "./model-files.ts";

const { signal } = new AbortController();

function setUp() {
  const folder = temporaryFolder();
  const path = join(folder.path, "model.gguf");
  const other = join(folder.path, "other.gguf");
  writeTinyGguf(path, { family: "llama", seed: 1 });
  writeTinyGguf(other, { family: "llama", seed: 2 });
  return { folder: folder.path, path, other, [Symbol.dispose]: () => folder[Symbol.dispose]() };
}

test("what was opened stays open, whatever the path comes to mean", async () => {
  using rig = setUp();
  await using files = await ModelFiles.open(rig.path, signal);
  const before = Buffer.alloc(500_000);
  await files.read(0, before, 0);
  renameSync(rig.other, rig.path);
  const after = Buffer.alloc(500_000);
  await files.read(0, after, 0);
  expect(after.equals(before)).toBe(true);

  await using opened = await ModelFiles.open(rig.path, signal);
  expect(opened.identity).not.toBe(files.identity);
});

test("an open file that is written, even with its times put back, or moved is changed until the next look", async () => {
  using rig = setUp();
  await using files = await ModelFiles.open(rig.path, signal);
  const { identity, descriptors } = files;
  const model = new LoadableModel({ path: rig.path, identity, descriptors });
  expect(model.look()).toBe("unchanged");
  const ways: Record<string, () => void> = {
    "copied over with times kept": () => execFileSync("cp", ["-p", rig.other, rig.path]),
    "written and touched": () => {
      const { atime, mtime, size } = statSync(rig.path);
      appendFileSync(rig.path, "x");
      truncateSync(rig.path, size);
      utimesSync(rig.path, atime, mtime);
    },
    linked: () => linkSync(rig.path, join(rig.folder, "link")),
    moved: () => renameSync(rig.path, join(rig.folder, "moved")),
  };
  for (const [name, way] of Object.entries(ways)) {
    way();
    expect(model.look(), name).toBe("changed");
    await files.untilUnchanging(signal);
    model.look();
    expect(model.look(), name).toBe("unchanged");
  }
});

test("a file is not used before a further change to it would show", async () => {
  using rig = setUp();
  for (let round = 0; round < 20; round += 1) {
    copyFileSync(rig.other, rig.path);
    await using files = await ModelFiles.open(rig.path, signal);
    const { identity } = files;
    appendFileSync(rig.path, "");
    truncateSync(rig.path, statSync(rig.path).size);
    expect(files.identity).not.toBe(identity);
  }
});

test("where descriptors have no names, a path that means another file by now is refused", async () => {
  using rig = setUp();
  await using files = await ModelFiles.open(rig.path, signal);
  const { identity, descriptors } = files;
  const byDescriptor = new LoadableModel({ path: rig.path, identity, descriptors }, "descriptor");
  const byPath = new LoadableModel({ path: rig.path, identity, descriptors }, "path");
  expect(byPath.openable).toEqual([rig.path]);
  byPath.confirm();
  renameSync(rig.other, rig.path);
  expect(() => byPath.confirm()).toThrowError(expect.objectContaining({ code: "MODEL_INVALID" }));
  byDescriptor.confirm();
});

test("all parts of a split model are opened, or it is said which one is missing", async () => {
  using rig = setUp();
  const first = join(rig.folder, "big-00001-of-00002.gguf");
  const second = join(rig.folder, "big-00002-of-00002.gguf");
  expect(modelParts(first)).toEqual([first, second]);
  expect(modelParts("/models/plain.gguf")).toEqual(["/models/plain.gguf"]);
  expect(() => modelParts("/models/big-00001-of-99999.gguf")).toThrowError(/99999 parts/);
  copyFileSync(rig.path, first);
  const open = () => readdirSync("/proc/self/fd").length;
  const before = process.platform === "linux" ? open() : 0;
  await expect(ModelFiles.open(first, signal)).rejects.toMatchObject({
    code: "MODEL_NOT_FOUND",
    message: expect.stringContaining("big-00002-of-00002"),
  });
  if (process.platform === "linux") expect(open(), "what was opened is closed").toBe(before);
  copyFileSync(rig.other, second);
  await using files = await ModelFiles.open(first, signal);
  expect(files.partBytes).toEqual([statSync(first).size, statSync(second).size]);
  const { identity } = files;
  writeFileSync(second, "x");
  expect(files.identity).not.toBe(identity);
});

test("a pipe in a model's place is refused at once", async () => {
  using rig = setUp();
  const pipe = join(rig.folder, "pipe.gguf");
  execFileSync("mkfifo", [pipe]);
  await expect(ModelFiles.open(pipe, signal)).rejects.toMatchObject({ code: "MODEL_NOT_FOUND" });
});
