import { chmodSync, chownSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { temporaryDirectory } from "../../../../test/support/data-directory.ts";
import { hasGpuPackages, writeOwnBuild } from "../../../../test/support/gpu-package.ts";
import { folderOfOther, needsAnotherUser, otherUser } from "../../../../test/support/other-user.ts";
import { silentLog } from "../../../log.ts";
import { openLibrary } from "./library.ts";
import { type GpuUse, isGpuBuild, libraryPlaces, packageNames } from "./library-places.ts";

/** Builds of the places in a folder with these empty files. */
function buildsIn(files: readonly string[], gpu: GpuUse = "auto"): string[] {
  const folder = temporaryDirectory();
  for (const file of files) writeFileSync(join(folder, file), "");
  return libraryPlaces({ gpu, folder }).map(({ build }) => build);
}

/** Builds of the packages that are there, of `names`. */
function buildsOf(names: readonly string[], gpu: GpuUse): string[] {
  const resolve = (name: string) => (names.includes(name) ? `/packages/${name}` : undefined);
  return libraryPlaces({ gpu, resolve }).map(({ build }) => build);
}

const base = ["libllama.so", "libggml.so", "libggml-base.so"];

test.runIf(hasGpuPackages)(
  "of the packages that are there the GPUs' come first, and what computes on the processor last",
  () => {
    const [cuda = "", vulkan = "", plain = ""] = packageNames();
    expect(buildsOf([plain, vulkan, cuda], "auto")).toEqual([cuda, vulkan, plain]);
    expect(buildsOf([plain, vulkan, cuda], "on")).toEqual([cuda, vulkan]);
    expect(buildsOf([plain, vulkan, cuda], "off")).toEqual([plain]);
    // A package for a GPU has a part for the processor, which is taken where there is nothing else.
    expect(buildsOf([cuda], "auto")).toEqual([cuda, plain]);
    expect(libraryPlaces({ gpu: "off", resolve: (name) => (name === cuda ? "/cuda" : undefined) })).toEqual([
      expect.objectContaining({ build: plain, directory: `/cuda/bins/${cuda}`, gpu: undefined }),
    ]);
    expect(() => buildsOf([], "off")).toThrowError(new RegExp(`not installed.*npm install @node-llama-cpp/${plain}@`));
    expect(() => buildsOf([plain], "on")).toThrowError(new RegExp(`--gpu on.*${cuda}@.*${vulkan}@`));
  },
);

test("a folder's libraries have cmake's names, versions behind them or not", () => {
  expect(buildsIn([...base, "libggml-cpu.so"])).toEqual(["own-cpu"]);
  expect(buildsIn(["libllama.so.0", "libggml.so.0", "libggml-base.so.0.25.1", "libggml-cpu.so"])).toEqual(["own-cpu"]);
  expect(
    buildsIn(["libllama.dylib", "libggml.0.dylib", "libggml-base.dylib", "libggml-cpu.so", "libggml-metal.so"]),
  ).toEqual(["own-metal", "own-cpu"]);
  const both = [...base, "libggml-cpu-haswell.so", "libggml-cuda.so"];
  expect(buildsIn(both)).toEqual(["own-cuda", "own-cpu"]);
  expect(buildsIn(both, "on")).toEqual(["own-cuda"]);
  expect(buildsIn(both, "off")).toEqual(["own-cpu"]);
  expect(["own-cuda", "linux-x64-vulkan", "mac-arm64-metal", "own-hip"].map(isGpuBuild)).toEqual([
    true,
    true,
    true,
    true,
  ]);
  expect(["own-cpu", "linux-x64", "mac-arm64"].map(isGpuBuild)).toEqual([false, false, false]);
});

test("a folder that is missing, no folder, or lacks a library is refused with what is wrong", () => {
  const folder = temporaryDirectory();
  writeFileSync(join(folder, "file"), "");
  const refusal = (message: RegExp) =>
    expect.objectContaining({ code: "BAD_CONFIG", message: expect.stringMatching(message) });
  const open = (path: string) => () => libraryPlaces({ gpu: "off", folder: path });
  expect(open(join(folder, "gone"))).toThrowError(refusal(/gone: there is no such folder/));
  expect(open(join(folder, "file"))).toThrowError(refusal(/file is not a folder/));
  expect(open(folder)).toThrowError(refusal(/there is no libllama\.so; build llama\.cpp v0\.5\.0/));
  expect(() => buildsIn(base.slice(0, 2))).toThrowError(refusal(/there is no libggml-base\.so/));
  expect(() => buildsIn(base)).toThrowError(/has no libggml-cpu\.so/);
  expect(() => buildsIn([...base, "libggml-cpu.so"], "on")).toThrowError(/--gpu on: .*nothing for a GPU/);
});

test("a folder that others can write to, or put another in the place of, is refused", () => {
  const above = temporaryDirectory();
  const folder = join(above, "build");
  mkdirSync(folder);
  for (const file of [...base, "libggml-cpu.so"]) writeFileSync(join(folder, file), "", { mode: 0o644 });
  const open = () => libraryPlaces({ gpu: "off", folder });
  expect(open()).toHaveLength(1);
  for (const path of [folder, above, join(folder, "libllama.so")]) {
    chmodSync(path, 0o757);
    expect(open).toThrowError(
      expect.objectContaining({ code: "BAD_CONFIG", message: expect.stringContaining(`run chmod go-w ${path}`) }),
    );
    chmodSync(path, 0o755);
  }
  chmodSync(above, 0o1777); // as /tmp is: nobody can move what is another's
  expect(open()).toHaveLength(1);
  chmodSync(folder, 0o1777); // but anybody can add a library
  expect(open).toThrowError(`run chmod go-w ${folder}`);
  chmodSync(folder, 0o755);
  // A link is what it leads to.
  const open2 = join(temporaryDirectory(), "libllama.so.0");
  writeFileSync(open2, "");
  chmodSync(open2, 0o666);
  rmSync(join(folder, "libllama.so"));
  symlinkSync(open2, join(folder, "libllama.so"));
  expect(open).toThrowError(`chmod go-w ${open2}`);
});

test.each(["libcublas.so.12", "libgomp.so", "libggml-cpu-a.b.so", "libggml-cpu-é.so", "libomp.dylib"])(
  "%s is loaded with the libraries beside it: it must not be others' to write either",
  (file) => {
    const folder = temporaryDirectory();
    for (const each of [...base, "libggml-cpu.so", file]) writeFileSync(join(folder, each), "", { mode: 0o644 });
    for (const text of ["README.md", "so"]) writeFileSync(join(folder, text), "");
    chmodSync(join(folder, "README.md"), 0o666);
    const open = () => libraryPlaces({ gpu: "off", folder });
    expect(open()).toHaveLength(1);
    chmodSync(join(folder, file), 0o646);
    expect(open).toThrowError(`run chmod go-w ${join(folder, file)}`);
  },
);

test("another user's folder, and another user's library in a folder of one's own, are refused", (context) => {
  needsAnotherUser(context);
  const theirs = folderOfOther();
  expect(() => libraryPlaces({ gpu: "off", folder: theirs })).toThrowError(/theirs belongs to user 65534/);
  const folder = writeOwnBuild(join(temporaryDirectory(), "own"));
  chownSync(join(folder, "libggml-base.so.0.5.0"), otherUser.uid, otherUser.gid);
  expect(() => libraryPlaces({ gpu: "off", folder })).toThrowError(/libggml-base\.so\.0\.5\.0 belongs to user 65534/);
});

test.runIf(process.platform === "linux")("a build of one's own is opened and checked as packages are", () => {
  const folder = writeOwnBuild(join(temporaryDirectory(), "own"));
  const open = (gpu: GpuUse) => openLibrary({ gpu, folder, log: silentLog });
  expect(open("auto").build).toBe("own-cpu");
  writeFileSync(join(folder, "libllama.so"), "no library");
  expect(() => open("off")).toThrowError(
    expect.objectContaining({ code: "LIBRARY_UNSUPPORTED", message: expect.stringMatching(/own cannot be loaded/) }),
  );
});
