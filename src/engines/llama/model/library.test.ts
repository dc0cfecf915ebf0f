import { mkdirSync, mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import {
  gpuName,
  hasGpuPackages,
  installed,
  plainName,
  writeGpuPackage,
} from "../../../../test/support/gpu-package.ts";
import { silentLog } from "../../../log.ts";
import { packageNames, supported } from "./library-places.ts";
import { checkLibrary, checkPackage, openLibrary } from "./library.ts";

test("the installed libraries are the supported ones", () => {
  const library = openLibrary({ gpu: "off", log: silentLog });
  expect(library.functions.version()).toContain(supported.version);
});

test("a package of another version, or with another llama.cpp in it, is refused with what to install", () => {
  const root = fakePackage({ version: "3.21.0", release: supported.release });
  expect(() => checkPackage(root, root, "linux-x64")).toThrowError(
    expect.objectContaining({ code: "LIBRARY_UNSUPPORTED", message: expect.stringContaining("3.21.0") }),
  );
  const other = fakePackage({ version: supported.package, release: "v0.6.0" });
  expect(() => checkPackage(other, other, "linux-x64")).toThrowError(/v0\.6\.0.*npm|v0\.6\.0.*install/);
});

test("a library whose parameter structs have other defaults is refused", () => {
  const { functions } = openLibrary({ gpu: "off", log: silentLog });
  const grown = {
    ...functions,
    defaultContextParams: () => ({ ...functions.defaultContextParams(), type_k: 0 }),
  };
  const plain = { title: "@node-llama-cpp/linux-x64", root: "/anywhere" };
  expect(() => checkLibrary(grown, plain)).toThrowError(/llama_context_params\.type_k = 0/);
  expect(() => checkLibrary({ ...functions, version: () => "0.6.1" }, plain)).toThrowError(/version 0\.6\.1/);
  // A build of one's own may call itself a release; a package of this release does not.
  const own = { title: "--llama-lib /build", root: undefined };
  expect(() => checkLibrary({ ...functions, version: () => "0.5.0" }, own)).not.toThrow();
  expect(() => checkLibrary({ ...functions, version: () => "0.5.0" }, plain)).toThrowError(/version 0\.5\.0/);
  expect(() => checkLibrary({ ...functions, version: () => "0.6.1" }, own)).toThrowError(
    /build\D*version 0\.6\.1.*build v0\.5\.0/,
  );
});

test("the packages of a platform are known by name", () => {
  expect(packageNames("linux", "x64")).toEqual(["linux-x64-cuda", "linux-x64-vulkan", "linux-x64"]);
  expect(packageNames("linux", "arm64")).toEqual(["linux-arm64"]); // none for GPUs are published
  expect(packageNames("darwin", "arm64")).toEqual(["mac-arm64-metal"]);
  expect(packageNames("win32", "x64")).toEqual([]);
});

test.runIf(hasGpuPackages)(
  "a build for a GPU is opened under the names that it has, and refused where it finds no GPU",
  () => {
    const gpu = gpuPackage((file) => file.replace(/^lib(ggml|llama)\.v/, "lib$1.cuda.v"));
    const builds: string[] = [];
    const open = () => openLibrary({ gpu: "auto", log: silentLog, resolve: gpu, onGpu: (build) => builds.push(build) });
    expect(open).toThrowError(
      expect.objectContaining({ code: "LIBRARY_UNSUPPORTED", message: expect.stringContaining("find no GPU") }),
    );
    expect(builds).toEqual([gpuName]);
    // Vocabularies need none: the plain build reads them, and the plain part of one for a GPU where there is no other.
    const named = (resolve: (name: string) => string | undefined) =>
      openLibrary({ gpu: "auto", log: silentLog, backends: false, resolve }).build;
    expect(named((name) => (name === gpuName ? gpu(name) : installed))).toBe(plainName);
    expect(named(gpu)).toBe(plainName);
  },
);

test.runIf(hasGpuPackages)(
  "a build for a GPU whose files are missing or cannot be loaded is refused after it was told of",
  () => {
    for (const files of [() => undefined, (file: string) => (file.startsWith("libllama.v") ? "damaged" : file)]) {
      const builds: string[] = [];
      const options = { gpu: "auto", log: silentLog, onGpu: (build: string) => builds.push(build) } as const;
      expect(() => openLibrary({ ...options, resolve: gpuPackage(files) })).toThrowError(
        expect.objectContaining({ code: "LIBRARY_UNSUPPORTED", message: expect.stringContaining("cannot be loaded") }),
      );
      expect(builds).toEqual([gpuName]);
    }
  },
);

function fakePackage(facts: { version: string; release: string }): string {
  const root = mkdtempSync(join(tmpdir(), "reprise-library-"));
  mkdirSync(root, { recursive: true });
  writeFileSync(join(root, "package.json"), JSON.stringify({ version: facts.version }));
  writeFileSync(
    join(root, "_nlcBuildMetadata.json"),
    JSON.stringify({ buildOptions: { llamaCpp: { release: facts.release } } }),
  );
  return root;
}

/** Finds nothing but a build for a GPU. */
function gpuPackage(named: (file: string) => string | undefined): (name: string) => string | undefined {
  const root = writeGpuPackage(mkdtempSync(join(tmpdir(), "reprise-library-")), named);
  return (name) => (name === gpuName ? root : undefined);
}
