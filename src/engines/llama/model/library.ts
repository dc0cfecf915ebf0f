/**
 * Which llama.cpp libraries are loaded, and the proof that they are the ones this release was written for.
 *
 * They come in the platform packages of node-llama-cpp. Three things must agree before a struct is passed to them: the
 * package's release, what the library says of itself, and the default values of both parameter structs, whose shape
 * changes without notice. Anything else is refused.
 */
import { createRequire } from "node:module";
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { RepriseError, describe } from "../../../errors.ts";
import type { Log } from "../../../log.ts";
import { fieldOffsets, libcFunction, openLlama, withLogCallback } from "../../../ffi/llama.ts";
import type { LlamaFunctions, Pointer } from "../../../ffi/llama.ts";

/** The one release of the packages, and the llama.cpp in it. */
export const supported = { package: "3.22.1", release: "v0.5.0", version: "0.5.0-dev" };

export type GpuUse = "auto" | "off";

export interface Library {
  readonly functions: LlamaFunctions;
  /** The package the libraries came from, for example "linux-x64". */
  readonly build: string;
  /** Starts ggml's threads for steps of all contexts; undefined = every step starts its own. */
  createThreadPool: (threads: number) => Pointer | undefined;
  /** Runs `body` while llama.cpp's error lines are collected: what it says of why a model cannot be loaded. */
  listening: <T>(body: () => T) => { result: T; errors: readonly string[] };
}

export interface LibraryOptions {
  readonly gpu: GpuUse;
  readonly log: Log;
  /** False: what computes is not loaded; for who wants a vocabulary only. */
  readonly backends?: boolean;
  /** Libraries for a GPU are about to be opened, where others would do. They may end the process. */
  readonly onGpu?: (build: string) => void;
  /** Where a package lies; the installed one unless given. */
  readonly resolve?: (name: string) => string | undefined;
}

/**
 * Finds, opens and checks the libraries.
 *
 * @throws RepriseError LIBRARY_UNSUPPORTED, saying what was found, what is needed and what to install.
 */
export function openLibrary(options: LibraryOptions): Library {
  const { backends = true, resolve = resolvePackage } = options;
  const [plain, wanted] = [packageNames("off"), packageNames(options.gpu)];
  const found = findPackage(backends ? wanted : [...plain, ...wanted], resolve);
  const isForGpu = backends && !plain.includes(found.name);
  if (isForGpu) options.onGpu?.(found.name);
  checkPackage(found.root, found.directory, found.name);
  const opened = openOrRefuse(found.directory, found.name);
  const { functions } = opened;
  const quiet = libcFunction("abs");
  functions.setLog(quiet, null);
  checkLibrary(functions, found.name);
  const listening = <T>(body: () => T) => listen(functions, quiet, options.log, body);
  if (backends) listening(() => opened.loadBackends(found.directory));
  if (isForGpu && !opened.findsGpu()) {
    throw new RepriseError(
      "LIBRARY_UNSUPPORTED",
      `The libraries of @node-llama-cpp/${found.name} find no GPU that they can use; their driver or run-time libraries may be missing`,
    );
  }
  functions.backendInit();
  return { functions, build: found.name, createThreadPool: opened.createThreadPool, listening };
}

interface FoundPackage {
  readonly name: string;
  readonly root: string;
  /** Where the libraries lie. */
  readonly directory: string;
}

/** The names this platform's packages may have, best first. */
export function packageNames(gpu: GpuUse, platform: string = process.platform, arch: string = process.arch): string[] {
  if (platform === "darwin" && arch === "arm64") return ["mac-arm64-metal"];
  if (platform !== "linux") return [];
  const plain = `linux-${arch}`;
  return gpu === "auto" ? [`${plain}-cuda`, `${plain}-vulkan`, plain] : [plain];
}

function findPackage(names: readonly string[], resolve: (name: string) => string | undefined): FoundPackage {
  for (const name of names) {
    const root = resolve(name);
    if (root !== undefined) return { name, root, directory: join(root, "bins", name) };
  }
  const wanted = names.at(-1);
  throw new RepriseError(
    "LIBRARY_UNSUPPORTED",
    wanted === undefined
      ? `There is no llama.cpp build for ${process.platform} ${process.arch}; Reprise runs on Linux x64, Linux arm64 and macOS arm64.`
      : `The llama.cpp libraries are not installed. Install them: npm install @node-llama-cpp/${wanted}@${supported.package}`,
  );
}

function resolvePackage(name: string): string | undefined {
  try {
    // The packages export nothing but dist/index.js, so their root is found from there.
    return dirname(dirname(createRequire(import.meta.url).resolve(`@node-llama-cpp/${name}`)));
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "MODULE_NOT_FOUND") return undefined;
    throw new RepriseError("LIBRARY_UNSUPPORTED", `@node-llama-cpp/${name} is damaged: ${describe(error)}`, {
      cause: error,
    });
  }
}

/** Compares the package's own records with {@link supported}. @throws RepriseError LIBRARY_UNSUPPORTED. */
export function checkPackage(root: string, directory: string, name: string): void {
  const install = `install @node-llama-cpp/${name}@${supported.package}`;
  const version = field(join(root, "package.json"), ["version"]);
  if (version !== supported.package) {
    throw new RepriseError(
      "LIBRARY_UNSUPPORTED",
      `@node-llama-cpp/${name} is version ${version ?? "unknown"}; this release needs ${supported.package}: ${install}`,
    );
  }
  const release = field(join(directory, "_nlcBuildMetadata.json"), ["buildOptions", "llamaCpp", "release"]);
  if (release !== supported.release) {
    throw new RepriseError(
      "LIBRARY_UNSUPPORTED",
      `The libraries in ${directory} are llama.cpp ${release ?? "of an unknown release"}; ${supported.release} is needed: ${install}`,
    );
  }
}

function field(file: string, path: readonly string[]): string | undefined {
  if (!existsSync(file)) return undefined;
  let value: unknown = JSON.parse(readFileSync(file, "utf8"));
  for (const name of path) {
    if (typeof value !== "object" || value === null) return undefined;
    value = (value as Record<string, unknown>)[name];
  }
  return typeof value === "string" ? value : undefined;
}

function openOrRefuse(directory: string, name: string): ReturnType<typeof openLlama> {
  try {
    const files = readdirSync(directory);
    // Builds for a GPU have its kind in the names: libllama.cuda.v0.5.0.so.
    const path = (pattern: RegExp) => {
      const file = files.find((entry) => pattern.test(entry));
      if (file === undefined) throw new Error(`no file like ${pattern.source} in ${directory}`);
      return join(directory, file);
    };
    return openLlama({
      base: path(/^libggml-base\.(so|dylib)$/),
      ggml: path(/^libggml(\.[a-z]+)?\.v[\d.]+\.(so|dylib)$/),
      llama: path(/^libllama(\.[a-z]+)?\.v[\d.]+\.(so|dylib)$/),
    });
  } catch (error) {
    throw new RepriseError(
      "LIBRARY_UNSUPPORTED",
      `The llama.cpp libraries of @node-llama-cpp/${name} cannot be loaded: ${describe(error)}. They need glibc 2.34 or newer.`,
      { cause: error },
    );
  }
}

/** What the loaded library says of itself. @throws RepriseError LIBRARY_UNSUPPORTED. */
export function checkLibrary(
  functions: Pick<LlamaFunctions, "version" | "defaultModelParams" | "defaultContextParams">,
  name: string,
): void {
  const refuse = (found: string, needed: string): never => {
    throw new RepriseError(
      "LIBRARY_UNSUPPORTED",
      `The llama.cpp library has ${found}; this release needs ${needed}: install @node-llama-cpp/${name}@${supported.package}`,
    );
  };
  const version = functions.version();
  if (version !== supported.version) refuse(`version ${version}`, supported.version);

  const offsets = fieldOffsets();
  if (offsets.modelLast !== 77 || offsets.contextTypeK !== 104 || offsets.contextLast !== 152) {
    refuse(`structs laid out differently here (${JSON.stringify(offsets)})`, "the System V layout");
  }
  for (const [title, values, expected] of [
    ["llama_model_params", functions.defaultModelParams(), modelDefaults],
    ["llama_context_params", functions.defaultContextParams(), contextDefaults],
  ] as const) {
    for (const [key, value] of Object.entries(expected)) {
      const have = (values as unknown as Record<string, unknown>)[key];
      if (have !== value) refuse(`${title}.${key} = ${String(have)} by default`, String(value));
    }
  }
}

/** Default values of v0.5.0: a struct of another shape does not reproduce them all. */
const modelDefaults = {
  devices: null,
  tensor_buft_overrides: null,
  n_gpu_layers: -1,
  split_mode: 1,
  load_mode: -1,
  lazy_mode: 1,
  main_gpu: 0,
  tensor_split: null,
  progress_callback: null,
  progress_callback_user_data: null,
  kv_overrides: null,
  vocab_only: false,
  check_tensors: false,
  use_extra_bufts: true,
  no_host: false,
  no_alloc: false,
  load_mtp: false,
};

const contextDefaults = {
  n_ctx: 512,
  n_batch: 2048,
  n_ubatch: 512,
  n_seq_max: 1,
  n_rs_seq: 0,
  n_outputs_max: 0,
  n_outputs_max_per_seq: 1,
  ctx_type: 0,
  rope_scaling_type: -1,
  pooling_type: -1,
  attention_type: -1,
  flash_attn_type: -1,
  rope_freq_base: 0,
  rope_freq_scale: 0,
  yarn_ext_factor: -1,
  yarn_attn_factor: -1,
  yarn_beta_fast: -1,
  yarn_beta_slow: -1,
  yarn_orig_ctx: 0,
  defrag_thold: -1,
  cb_eval: null,
  cb_eval_user_data: null,
  type_k: 1,
  type_v: 1,
  abort_callback: null,
  abort_callback_data: null,
  embeddings: false,
  offload_kqv: true,
  no_perf: true,
  op_offload: true,
  swa_full: true,
  kv_unified: false,
  samplers: null,
  n_samplers: 0,
  ctx_other: null,
};

const errorLevel = 4;

/**
 * llama.cpp logs by a callback that any of its threads may call. A JavaScript callback is safe only while nothing but the
 * calling thread works, which holds for loading: errors are heard there, and afterwards a native function swallows the
 * log. Return codes tell of what fails later.
 */
function listen<T>(
  functions: LlamaFunctions,
  quiet: Pointer,
  log: Log,
  body: () => T,
): { result: T; errors: readonly string[] } {
  const errors: string[] = [];
  const hear = (level: number, text: string) => {
    if (level !== errorLevel) return;
    errors.push(text.trim());
    log.debug(`llama.cpp: ${text.trim()}`);
  };
  const result = withLogCallback(hear, (callback) => {
    functions.setLog(callback, null);
    try {
      return body();
    } finally {
      functions.setLog(quiet, null);
    }
  });
  return { result, errors };
}
