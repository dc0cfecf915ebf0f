/**
 * Which llama.cpp libraries are loaded, and the proof that they are the ones this release was written for.
 *
 * They come in the platform packages of node-llama-cpp. Three things must agree before a struct is passed to them: the
 * package's release, what the library says of itself, and the default values of both parameter structs, whose shape
 * changes without notice. Anything else is refused.
 */
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { RepriseError, describe } from "../../../errors.ts";
import type { Log } from "../../../log.ts";
import { fieldOffsets, libcFunction, openLlama, withLogCallback } from "../../../ffi/llama.ts";
import type { Device } from "../../../ffi/ggml-devices.ts";
import type { RotateRows } from "../../../ffi/ggml-rope.ts";
import type { FindKeyRopes } from "../../../ffi/key-ropes.ts";
import type { KvTensorFunctions } from "../../../ffi/kv-tensors.ts";
import type { LlamaFunctions, Pointer } from "../../../ffi/llama.ts";
import { isGpuLibrary, type LibraryPlace, libraryPlaces, supported, type WantedLibraries } from "./library-places.ts";

export interface Library {
  readonly functions: LlamaFunctions;
  /** The package the libraries came from, for example "linux-x64". */
  readonly build: string;
  /** GPUs that were found. */
  readonly gpus: readonly Device[];
  /** Undefined where a context's KV can be reached as whole sequences only. */
  readonly kvTensors: KvTensorFunctions | undefined;
  /** Undefined where it cannot be read how a context rotates keys. */
  readonly findKeyRopes: FindKeyRopes | undefined;
  /** Rotates rows on these threads, or on new ones each time; undefined where the libraries cannot. */
  createRotateRows: (pool: Pointer | undefined) => RotateRows | undefined;
  /** Starts ggml's threads for steps of all contexts; undefined = every step starts its own. */
  createThreadPool: (threads: number) => Pointer | undefined;
  /** Runs `body` while llama.cpp's error lines are collected: what it says of why a model cannot be loaded. */
  listening: <T>(body: () => T) => { result: T; errors: readonly string[] };
}

export interface LibraryOptions extends WantedLibraries {
  readonly log: Log;
  /** The one that is taken of those that are there, by its {@link LibraryPlace.build}; the best unless given. */
  readonly build?: string | undefined;
  /** False: what computes is not loaded; for who wants a vocabulary only. */
  readonly backends?: boolean;
  /** Libraries for a GPU are about to be opened, where others would do. They may end the process. */
  readonly onGpu?: (build: string) => void;
}

/**
 * Finds, opens and checks the libraries.
 *
 * @throws RepriseError LIBRARY_UNSUPPORTED, saying what was found, what is needed and what to install; BAD_CONFIG when a
 *   folder was given that cannot be used.
 */
export function openLibrary(options: LibraryOptions): Library {
  const { backends = true } = options;
  const place = placeFor(options);
  const isForGpu = backends && place.gpu !== undefined;
  if (isForGpu) options.onGpu?.(place.build);
  if (place.root !== undefined) checkPackage(place.root, place.directory, place.title);
  const opened = openOrRefuse(place);
  const { functions } = opened;
  const quiet = libcFunction("abs");
  functions.setLog(quiet, null);
  checkLibrary(functions, place);
  if (place.root === undefined && opened.hasBackends()) {
    throw new RepriseError(
      "LIBRARY_UNSUPPORTED",
      `${place.title}: these libraries were built without -DGGML_BACKEND_DL=ON, so that a GPU's cannot be left out (docs/gpu.md)`,
    );
  }
  const listening = <T>(body: () => T) => listen(functions, quiet, options.log, body);
  if (backends) listening(() => loadBackends(opened, place));
  const gpus = isForGpu ? opened.devices().filter(({ kind }) => kind === "gpu") : [];
  if (isForGpu && gpus.length === 0) {
    throw new RepriseError(
      "LIBRARY_UNSUPPORTED",
      `The libraries of ${place.title} find no GPU that they can use; their driver or run-time libraries may be missing`,
    );
  }
  functions.backendInit();
  const { kvTensors, findKeyRopes, createRotateRows, createThreadPool } = opened;
  return {
    functions,
    build: place.build,
    gpus,
    kvTensors,
    findKeyRopes,
    createRotateRows,
    createThreadPool,
    listening,
  };
}

function placeFor({ backends = true, build, ...wanted }: LibraryOptions): LibraryPlace {
  // A vocabulary needs no GPU: where there are other libraries, those read it.
  const places = libraryPlaces(wanted);
  if (!backends) return places.at(-1)!; // none is refused above
  const place = places.find((each) => build === undefined || each.build === build);
  if (place !== undefined) return place;
  throw new RepriseError("LIBRARY_UNSUPPORTED", `The libraries of ${build} were here at the start, and are gone`);
}

/** A GPU's libraries are not even opened where none shall be used: they may end the process. */
function loadBackends(opened: ReturnType<typeof openLlama>, { directory, gpu, title }: LibraryPlace): void {
  const files = readdirSync(directory);
  if (gpu === undefined && files.some(isGpuLibrary)) {
    opened.loadBestOf(
      files.filter((file) => /^libggml-cpu[\w-]*\.so$/.test(file)).map((file) => join(directory, file)),
    );
    return;
  }
  const file = `libggml-${gpu}.so`;
  try {
    if (files.includes(file)) opened.tryBackend(join(directory, file));
  } catch (error) {
    throw new RepriseError("LIBRARY_UNSUPPORTED", `${file} of ${title} cannot be loaded: ${describe(error)}`, {
      cause: error,
    });
  }
  opened.loadBackends(directory);
}

/** Compares the package's own records with {@link supported}. @throws RepriseError LIBRARY_UNSUPPORTED. */
export function checkPackage(root: string, directory: string, title: string): void {
  const install = `install ${title}@${supported.package}`;
  const version = field(join(root, "package.json"), ["version"]);
  if (version !== supported.package) {
    throw new RepriseError(
      "LIBRARY_UNSUPPORTED",
      `${title} is version ${version ?? "unknown"}; this release needs ${supported.package}: ${install}`,
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

function openOrRefuse({ directory, title, root }: LibraryPlace): ReturnType<typeof openLlama> {
  try {
    const files = readdirSync(directory);
    const path = (patterns: readonly RegExp[]) => {
      for (const pattern of patterns) {
        const file = files.find((entry) => pattern.test(entry));
        if (file !== undefined) return join(directory, file);
      }
      throw new Error(`no file like ${patterns[0]!.source} in ${directory}`);
    };
    // Packages have the release in the names, and builds for a GPU its kind: libllama.cuda.v0.5.0.so.
    const packaged = (name: string) => path([new RegExp(`^${name}(\\.[a-z]+)?\\.v[\\d.]+\\.(so|dylib)$`)]);
    // As cmake makes them: libllama.so, or only what that is a link to.
    const own = (name: string) =>
      path([new RegExp(`^${name}\\.(so|dylib)$`), new RegExp(`^${name}\\.(so\\.[\\d.]+|[\\d.]+\\.dylib)$`)]);
    const named = root === undefined ? own : packaged;
    return openLlama({ base: own("libggml-base"), ggml: named("libggml"), llama: named("libllama") });
  } catch (error) {
    const needs = root === undefined ? "" : " They need glibc 2.34 or newer.";
    throw new RepriseError(
      "LIBRARY_UNSUPPORTED",
      `The llama.cpp libraries of ${title} cannot be loaded: ${describe(error)}.${needs}`,
      { cause: error },
    );
  }
}

/** What the loaded library says of itself. @throws RepriseError LIBRARY_UNSUPPORTED. */
export function checkLibrary(
  functions: Pick<LlamaFunctions, "version" | "defaultModelParams" | "defaultContextParams">,
  { title, root }: Pick<LibraryPlace, "title" | "root">,
): void {
  const refuse = (found: string, needed: string): never => {
    const get =
      root === undefined ? `build ${supported.release} (docs/gpu.md)` : `install ${title}@${supported.package}`;
    throw new RepriseError(
      "LIBRARY_UNSUPPORTED",
      `The llama.cpp library of ${title} has ${found}; this release needs ${needed}: ${get}`,
    );
  };
  const version = functions.version();
  const isKnown = version === supported.version || (root === undefined && version === supported.ownVersion);
  if (!isKnown) refuse(`version ${version}`, supported.version);

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
