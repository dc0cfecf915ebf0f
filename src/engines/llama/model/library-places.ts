/**
 * Where llama.cpp's libraries may lie: packages of node-llama-cpp, or a folder with a build of somebody's own.
 *
 * Nothing native is touched here, so that the server can look, too. A place is used for the GPU that its libraries know, or
 * for their CPU part alone: which of both is said by `gpu`, and nothing of a GPU's is loaded in the other case.
 */
import { createRequire } from "node:module";
import { readdirSync, realpathSync, statSync } from "node:fs";
import { dirname, join, resolve as absolute } from "node:path";
import { RepriseError, codeOf, describe } from "../../../errors.ts";
import { whyUntrusted } from "../../../trusted-code.ts";

/** The one release of the packages, and the llama.cpp in it. Own builds call themselves by either version. */
export const supported = { package: "3.22.1", release: "v0.5.0", version: "0.5.0-dev", ownVersion: "0.5.0" };

/** `auto`: if one can be used; `on`: or nothing is served. */
export type GpuUse = "auto" | "on" | "off";

export interface LibraryPlace {
  /** What it is called where it must be short, such as "linux-x64-cuda"; see {@link isGpuBuild}. */
  readonly build: string;
  /** What people call it. */
  readonly title: string;
  /** Where the libraries lie. */
  readonly directory: string;
  /** On what the libraries shall compute besides the CPU: "cuda", "vulkan", "metal" …; undefined = on nothing. */
  readonly gpu: string | undefined;
  /** The root of the package that it is; undefined: somebody's own build. */
  readonly root: string | undefined;
}

export interface WantedLibraries {
  readonly gpu: GpuUse;
  /** A build of one's own in place of the packages. */
  readonly folder?: string | undefined;
  /** Where a package lies; the installed one unless given. */
  readonly resolve?: ((name: string) => string | undefined) | undefined;
}

/** GPUs that ggml has a library for. */
const gpuKinds = ["cuda", "vulkan", "metal", "hip", "sycl", "musa", "cann", "opencl"];
/** Whatever else lies there may be loaded with them: what they are linked to, and what ggml takes for its own by its name. */
const anyLibrary = /\.(?:so|dylib)(?:\.|$)/;
const ownLibrary = /^lib(?:ggml|llama)[\w-]*(?:\.so(?:\.[\d.]+)?|(?:\.[\d.]+)?\.dylib)$/;

/** True when libraries of this name put layers on a GPU. */
export function isGpuBuild(build: string): boolean {
  return gpuKinds.includes(build.split("-").at(-1) ?? "");
}

/** True of a file by whose name ggml finds what computes on a GPU. */
export function isGpuLibrary(file: string): boolean {
  return gpuKinds.some((kind) => file.startsWith(`libggml-${kind}.`));
}

/**
 * Every place that is there and wanted, the best first; those for the CPU come last.
 *
 * @throws RepriseError BAD_CONFIG when the folder cannot be used, LIBRARY_UNSUPPORTED when there is no place at all, with what
 *   to install.
 */
export function libraryPlaces({ gpu, folder, resolve = resolvePackage }: WantedLibraries): LibraryPlace[] {
  const all = folder === undefined ? packagesHere(resolve) : placesIn(folder);
  const places = all.filter((place) => gpu === "auto" || (place.gpu !== undefined) === (gpu === "on"));
  if (places.length === 0) throw new RepriseError("LIBRARY_UNSUPPORTED", nothingFound(gpu, folder));
  return places;
}

/** The names this platform's packages may have, best first; the last one is the one that always works. */
export function packageNames(platform: string = process.platform, arch: string = process.arch): string[] {
  if (platform === "darwin" && arch === "arm64") return ["mac-arm64-metal"];
  if (platform !== "linux") return [];
  const plain = `linux-${arch}`;
  return arch === "x64" ? [`${plain}-cuda`, `${plain}-vulkan`, plain] : [plain];
}

function packagesHere(resolve: (name: string) => string | undefined): LibraryPlace[] {
  const found = packageNames().flatMap((name) => {
    const root = resolve(name);
    if (root === undefined) return [];
    const directory = join(root, "bins", name);
    const gpu = isGpuBuild(name) ? name.split("-").at(-1) : undefined;
    return [{ build: name, title: `@node-llama-cpp/${name}`, directory, gpu, root }];
  });
  return withCpuPart(found, `${process.platform === "darwin" ? "mac" : process.platform}-${process.arch}`);
}

/** Packages for a GPU have what computes on the CPU as well: where there is nothing better, that is used. */
function withCpuPart(places: readonly LibraryPlace[], build: string): LibraryPlace[] {
  const [first] = places;
  if (first === undefined || places.some(({ gpu }) => gpu === undefined)) return [...places];
  return [...places, { ...first, build, gpu: undefined }];
}

function placesIn(folder: string): LibraryPlace[] {
  const directory = trustedFolder(folder);
  const all = readdirSync(directory);
  const files = all.filter((file) => ownLibrary.test(file));
  const title = `--llama-lib ${directory}`;
  for (const name of ["libllama", "libggml", "libggml-base"]) {
    if (files.some((file) => file.startsWith(`${name}.`))) continue;
    throw new RepriseError(
      "BAD_CONFIG",
      `${title}: there is no ${name}.so; build llama.cpp ${supported.release} with -DBUILD_SHARED_LIBS=ON -DGGML_BACKEND_DL=ON (docs/gpu.md)`,
    );
  }
  for (const file of all.filter((file) => anyLibrary.test(file))) mustBeTrusted(join(directory, file), title);
  const gpu = gpuKinds.find((kind) => files.some((file) => file.startsWith(`libggml-${kind}.`)));
  const own = { title, directory, root: undefined };
  const hasCpu = files.some((file) => file.startsWith("libggml-cpu"));
  return [
    ...(gpu === undefined ? [] : [{ ...own, build: `own-${gpu}`, gpu }]),
    ...(hasCpu ? [{ ...own, build: "own-cpu", gpu: undefined }] : []),
  ];
}

/**
 * Libraries run with all that the server may do: so nobody but the user and root may have put them there, or can.
 *
 * @returns the folder without links in its path.
 */
function trustedFolder(folder: string): string {
  const title = `--llama-lib ${folder}`;
  let directory: string;
  try {
    directory = realpathSync(absolute(folder));
    if (!statSync(directory).isDirectory()) throw new RepriseError("BAD_CONFIG", `${title} is not a folder`);
  } catch (error) {
    if (error instanceof RepriseError) throw error;
    const is = codeOf(error) === "ENOENT" ? "there is no such folder" : describe(error);
    throw new RepriseError("BAD_CONFIG", `${title}: ${is}`);
  }
  mustBeTrusted(directory, title);
  return directory;
}

/** @throws RepriseError BAD_CONFIG when somebody else may change what lies at `path`. */
function mustBeTrusted(path: string, title: string): void {
  const why = whyUntrusted(path);
  if (why === undefined) return;
  throw new RepriseError("BAD_CONFIG", `${title}: the libraries there would run with all that you may do, and ${why}`);
}

function nothingFound(gpu: GpuUse, folder: string | undefined): string {
  if (folder !== undefined) {
    return gpu === "on"
      ? `--gpu on: --llama-lib ${folder} has nothing for a GPU, such as libggml-cuda.so`
      : `--llama-lib ${folder} has no libggml-cpu.so`;
  }
  const names = packageNames();
  const install = (name: string | undefined) => `npm install @node-llama-cpp/${name}@${supported.package}`;
  if (names.length === 0)
    return `There is no llama.cpp build for ${process.platform} ${process.arch}; Reprise runs on Linux x64, Linux arm64 and macOS arm64.`;
  if (gpu !== "on") return `The llama.cpp libraries are not installed. Install them: ${install(names.at(-1))}`;
  const forGpus = names.filter(isGpuBuild).map(install);
  return forGpus.length === 0
    ? `--gpu on: there are no packages for GPUs of ${process.platform} ${process.arch}; build llama.cpp and give --llama-lib (docs/gpu.md)`
    : `--gpu on: no libraries for a GPU are installed. Install them: ${forGpus.join(", or ")} (docs/gpu.md)`;
}

function resolvePackage(name: string): string | undefined {
  try {
    // The packages export nothing but dist/index.js, so their root is found from there.
    return dirname(dirname(createRequire(import.meta.url).resolve(`@node-llama-cpp/${name}`)));
  } catch (error) {
    if (codeOf(error) === "MODULE_NOT_FOUND") return undefined;
    throw new RepriseError("LIBRARY_UNSUPPORTED", `@node-llama-cpp/${name} is damaged: ${describe(error)}`, {
      cause: error,
    });
  }
}
