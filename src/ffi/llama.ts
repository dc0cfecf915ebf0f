/**
 * llama.cpp's C interface, as far as the embedded engine uses it: every declaration, and nothing that decides.
 *
 * Written for llama.cpp v0.5.0. Four of the last five releases changed the two parameter structs, and a struct of the wrong
 * shape is memory corruption, not an error. So both structs are declared larger than they are (a library that has grown
 * writes into the reserve, never past it), and engines/llama/model/library.ts compares versions and default values before
 * anything else is called.
 *
 * Calls are synchronous and belong on one thread. llama.cpp answers a broken assertion with abort(): only a process whose
 * death is provided for may load this file.
 */
import koffi from "koffi";
import type { LibraryHandle } from "koffi";
import { type Backends, declareBackends } from "./ggml-devices.ts";
import { createRotateRows, type RotateRows } from "./ggml-rope.ts";
import { declareKeyRopes, type FindKeyRopes } from "./key-ropes.ts";
import { declareKvTensors, type KvTensorFunctions } from "./kv-tensors.ts";

declare const brand: unique symbol;
/** An address in this process. */
export type Pointer = bigint;
export type ModelPointer = bigint & { readonly [brand]: "Model" };
export type VocabularyPointer = bigint & { readonly [brand]: "Vocabulary" };
export type ContextPointer = bigint & { readonly [brand]: "Context" };
export type MemoryPointer = bigint & { readonly [brand]: "Memory" };

/** Bytes set aside for each parameter struct; v0.5.0 uses 80 and 160 of them. */
const structBytes = 512;

const modelParamFields = {
  devices: "void*",
  tensor_buft_overrides: "void*",
  n_gpu_layers: "int32",
  split_mode: "int32",
  load_mode: "int32",
  lazy_mode: "int32",
  main_gpu: "int32",
  tensor_split: "void*",
  progress_callback: "void*",
  progress_callback_user_data: "void*",
  kv_overrides: "void*",
  vocab_only: "bool",
  check_tensors: "bool",
  use_extra_bufts: "bool",
  no_host: "bool",
  no_alloc: "bool",
  load_mtp: "bool",
} as const;

const contextParamFields = {
  n_ctx: "uint32",
  n_batch: "uint32",
  n_ubatch: "uint32",
  n_seq_max: "uint32",
  n_rs_seq: "uint32",
  n_outputs_max: "uint32",
  n_outputs_max_per_seq: "uint32",
  n_threads: "int32",
  n_threads_batch: "int32",
  ctx_type: "int32",
  rope_scaling_type: "int32",
  pooling_type: "int32",
  attention_type: "int32",
  flash_attn_type: "int32",
  rope_freq_base: "float",
  rope_freq_scale: "float",
  yarn_ext_factor: "float",
  yarn_attn_factor: "float",
  yarn_beta_fast: "float",
  yarn_beta_slow: "float",
  yarn_orig_ctx: "uint32",
  defrag_thold: "float",
  cb_eval: "void*",
  cb_eval_user_data: "void*",
  type_k: "int32",
  type_v: "int32",
  abort_callback: "void*",
  abort_callback_data: "void*",
  embeddings: "bool",
  offload_kqv: "bool",
  no_perf: "bool",
  op_offload: "bool",
  swa_full: "bool",
  kv_unified: "bool",
  samplers: "void*",
  n_samplers: "size_t",
  ctx_other: "void*",
} as const;

type Field<T> = T extends "bool" ? boolean : T extends "void*" ? Pointer | null : number;
type Struct<T> = { [K in keyof T]: Field<T[K]> };
export type ModelParams = Struct<typeof modelParamFields>;
export type ContextParams = Struct<typeof contextParamFields>;

/** Arrays of a batch in llama.cpp's own memory; at most `capacity` tokens, one sequence each. */
export interface NativeBatch {
  readonly capacity: number;
  readonly tokens: Int32Array;
  readonly positions: Int32Array;
  readonly sequences: readonly Int32Array[];
  /** 1 where logits are wanted. */
  readonly outputs: Int8Array;
  /** The struct that `llama_decode` takes. */
  readonly struct: { n_tokens: number };
}

/** Values of the enums that are used. */
export const flashAttentionEnabled = 1;
export const typeF16 = 1;

const modelParams = koffi.struct("llama_model_params", padded(modelParamFields));
const contextParams = koffi.struct("llama_context_params", padded(contextParamFields));
koffi.struct("llama_batch", {
  n_tokens: "int32",
  token: "void*",
  embd: "void*",
  pos: "void*",
  n_seq_id: "void*",
  seq_id: "void*",
  logits: "void*",
});
koffi.struct("ggml_threadpool_params", {
  cpumask: koffi.array("bool", 512),
  n_threads: "int32",
  prio: "int32",
  poll: "uint32",
  strict_cpu: "bool",
  paused: "bool",
  reserved: koffi.array("uint8", 512),
});
const newThreadPool = koffi.proto("void* reprise_threadpool_new(ggml_threadpool_params*)");
const logCallback = koffi.proto("void reprise_llama_log(int level, const char* text, void* data)");
const progressCallback = koffi.proto("bool reprise_llama_progress(float share, void* data)");

/** One line per function: its C declaration, and its type as TypeScript calls it. */
function declare(library: LibraryHandle) {
  // oxlint-disable-next-line typescript/no-unnecessary-type-parameters -- a cast with a name: C declarations have no types here
  const fn = <T>(declaration: string): T => library.func(declaration) as T;
  return {
    version: fn<() => string>("const char* llama_version()"),
    systemInfo: fn<() => string>("const char* llama_print_system_info()"),
    setLog: fn<(callback: Pointer | null, data: null) => void>("void llama_log_set(void*, void*)"),
    backendInit: fn<() => void>("void llama_backend_init()"),
    defaultModelParams: fn<() => ModelParams>("llama_model_params llama_model_default_params()"),
    defaultContextParams: fn<() => ContextParams>("llama_context_params llama_context_default_params()"),

    /** `paths`: all parts in order, one for a model that is not split. */
    loadModel: fn<(paths: readonly string[], count: number, params: ModelParams) => ModelPointer | null>(
      "void* llama_model_load_from_splits(const char**, size_t, llama_model_params)",
    ),
    freeModel: fn<(model: ModelPointer) => void>("void llama_model_free(void*)"),
    metadataCount: fn<(model: ModelPointer) => number>("int32 llama_model_meta_count(void*)"),
    metadataKey: fn<(model: ModelPointer, index: number, into: Uint8Array, bytes: number) => number>(
      "int32 llama_model_meta_key_by_index(void*, int32, void*, size_t)",
    ),
    metadataValue: fn<(model: ModelPointer, index: number, into: Uint8Array, bytes: number) => number>(
      "int32 llama_model_meta_val_str_by_index(void*, int32, void*, size_t)",
    ),
    parameterCount: fn<(model: ModelPointer) => number | bigint>("uint64 llama_model_n_params(void*)"),
    trainedContext: fn<(model: ModelPointer) => number>("int32 llama_model_n_ctx_train(void*)"),
    layers: fn<(model: ModelPointer) => number>("int32 llama_model_n_layer(void*)"),
    embeddingSize: fn<(model: ModelPointer) => number>("int32 llama_model_n_embd(void*)"),
    heads: fn<(model: ModelPointer) => number>("int32 llama_model_n_head(void*)"),
    keyValueHeads: fn<(model: ModelPointer) => number>("int32 llama_model_n_head_kv(void*)"),
    slidingWindow: fn<(model: ModelPointer) => number>("int32 llama_model_n_swa(void*)"),
    ropeType: fn<(model: ModelPointer) => number>("int32 llama_model_rope_type(void*)"),
    isRecurrent: fn<(model: ModelPointer) => boolean>("bool llama_model_is_recurrent(void*)"),
    isHybrid: fn<(model: ModelPointer) => boolean>("bool llama_model_is_hybrid(void*)"),
    isDiffusion: fn<(model: ModelPointer) => boolean>("bool llama_model_is_diffusion(void*)"),
    hasEncoder: fn<(model: ModelPointer) => boolean>("bool llama_model_has_encoder(void*)"),
    hasDecoder: fn<(model: ModelPointer) => boolean>("bool llama_model_has_decoder(void*)"),

    vocabulary: fn<(model: ModelPointer) => VocabularyPointer>("void* llama_model_get_vocab(void*)"),
    vocabularySize: fn<(vocabulary: VocabularyPointer) => number>("int32 llama_vocab_n_tokens(void*)"),
    isEnd: fn<(vocabulary: VocabularyPointer, token: number) => boolean>("bool llama_vocab_is_eog(void*, int32)"),
    beginToken: fn<(vocabulary: VocabularyPointer) => number>("int32 llama_vocab_bos(void*)"),
    endToken: fn<(vocabulary: VocabularyPointer) => number>("int32 llama_vocab_eos(void*)"),
    tokenAttributes: fn<(vocabulary: VocabularyPointer, token: number) => number>(
      "int32 llama_vocab_get_attr(void*, int32)",
    ),
    addsBegin: fn<(vocabulary: VocabularyPointer) => boolean>("bool llama_vocab_get_add_bos(void*)"),
    tokenize: fn<
      (
        vocabulary: VocabularyPointer,
        text: Uint8Array,
        textBytes: number,
        into: Int32Array,
        capacity: number,
        addSpecial: boolean,
        parseSpecial: boolean,
      ) => number
    >("int32 llama_tokenize(void*, void*, int32, void*, int32, bool, bool)"),
    tokenPiece: fn<
      (
        vocabulary: VocabularyPointer,
        token: number,
        into: Uint8Array,
        bytes: number,
        strip: number,
        special: boolean,
      ) => number
    >("int32 llama_token_to_piece(void*, int32, void*, int32, int32, bool)"),
    detokenize: fn<
      (
        vocabulary: VocabularyPointer,
        tokens: Int32Array,
        count: number,
        into: Uint8Array,
        bytes: number,
        removeSpecial: boolean,
        special: boolean,
      ) => number
    >("int32 llama_detokenize(void*, void*, int32, void*, int32, bool, bool)"),

    createContext: fn<(model: ModelPointer, params: ContextParams) => ContextPointer | null>(
      "void* llama_init_from_model(void*, llama_context_params)",
    ),
    freeContext: fn<(context: ContextPointer) => void>("void llama_free(void*)"),
    contextTokens: fn<(context: ContextPointer) => number>("uint32 llama_n_ctx(void*)"),
    batchTokens: fn<(context: ContextPointer) => number>("uint32 llama_n_batch(void*)"),
    maxSequences: fn<(context: ContextPointer) => number>("uint32 llama_n_seq_max(void*)"),
    setThreads: fn<(context: ContextPointer, threads: number, batchThreads: number) => void>(
      "void llama_set_n_threads(void*, int32, int32)",
    ),
    attachThreadPool: fn<(context: ContextPointer, forTokens: Pointer, forBatches: Pointer) => void>(
      "void llama_attach_threadpool(void*, void*, void*)",
    ),
    memory: fn<(context: ContextPointer) => MemoryPointer>("void* llama_get_memory(void*)"),
    batchInit: fn<(tokens: number, embedding: number, sequences: number) => Record<string, Pointer>>(
      "llama_batch llama_batch_init(int32, int32, int32)",
    ),
    decode: fn<(context: ContextPointer, batch: { n_tokens: number }) => number>(
      "int32 llama_decode(void*, llama_batch)",
    ),
    /** Waits for what a decode left running on a device. */
    synchronize: fn<(context: ContextPointer) => void>("void llama_synchronize(void*)"),
    logitsAt: fn<(context: ContextPointer, output: number) => Pointer | null>(
      "void* llama_get_logits_ith(void*, int32)",
    ),

    removeTokens: fn<(memory: MemoryPointer, sequence: number, from: number, to: number) => boolean>(
      "bool llama_memory_seq_rm(void*, int32, int32, int32)",
    ),
    copyTokens: fn<(memory: MemoryPointer, source: number, target: number, from: number, to: number) => void>(
      "void llama_memory_seq_cp(void*, int32, int32, int32, int32)",
    ),
    lastPosition: fn<(memory: MemoryPointer, sequence: number) => number>(
      "int32 llama_memory_seq_pos_max(void*, int32)",
    ),
    clearMemory: fn<(memory: MemoryPointer, data: boolean) => void>("void llama_memory_clear(void*, bool)"),
    stateBytes: fn<(context: ContextPointer, sequence: number, flags: number) => number>(
      "size_t llama_state_seq_get_size_ext(void*, int32, uint32)",
    ),
    readState: fn<
      (context: ContextPointer, into: Pointer | Uint8Array, bytes: number, sequence: number, flags: number) => number
    >("size_t llama_state_seq_get_data_ext(void*, void*, size_t, int32, uint32)"),
    writeState: fn<
      (context: ContextPointer, from: Pointer | Uint8Array, bytes: number, sequence: number, flags: number) => number
    >("size_t llama_state_seq_set_data_ext(void*, void*, size_t, int32, uint32)"),
  };
}

export type LlamaFunctions = ReturnType<typeof declare>;

/** Opens the libraries by absolute path. @throws what the dynamic linker says. */
export function openLlama(libraries: { base: string; ggml: string; llama: string }): Backends & {
  functions: LlamaFunctions;
  /** Undefined where the libraries lack what it takes. */
  kvTensors: KvTensorFunctions | undefined;
  /** Likewise. */
  findKeyRopes: FindKeyRopes | undefined;
  /** After the backends are loaded. */
  createRotateRows: (pool: Pointer | undefined) => RotateRows | undefined;
  /** Starts threads that sleep between steps; after the backends are loaded. */
  createThreadPool: (threads: number) => Pointer | undefined;
} {
  const base = koffi.load(libraries.base);
  const ggml = koffi.load(libraries.ggml);
  const llama = koffi.load(libraries.llama);
  return {
    functions: declare(llama),
    kvTensors: declareKvTensors(base, llama),
    findKeyRopes: declareKeyRopes(base, llama),
    createRotateRows: (pool) => createRotateRows(base, ggml, pool),
    ...declareBackends(base, ggml),
    createThreadPool: (threads) => createThreadPool(base, ggml, threads),
  };
}

/**
 * Threads of ggml's CPU backend, for as long as the process lives; without them it starts new ones for every step. They sleep
 * when there is nothing to do (`poll` 0): threads that spin between steps take the core that the server answers on.
 *
 * @returns undefined where the library knows no such threads, or has its parameters in another shape.
 */
function createThreadPool(base: LibraryHandle, ggml: LibraryHandle, threads: number): Pointer | undefined {
  const backend = ggml.func("void* ggml_backend_reg_by_name(const char*)")("CPU") as Pointer | null;
  if (backend === null) return undefined;
  const functionOf = base.func("void* ggml_backend_reg_get_proc_address(void*, const char*)");
  const create = functionOf(backend, "ggml_threadpool_new") as Pointer | null;
  const defaults = base.func("ggml_threadpool_params ggml_threadpool_params_default(int)");
  const params = defaults(threads) as Record<string, unknown>;
  const isKnown = params["n_threads"] === threads && params["poll"] === 50 && params["prio"] === 0;
  if (create === null || !isKnown) return undefined;
  return (koffi.call(create, newThreadPool, { ...params, poll: 0 }) as Pointer | null) ?? undefined;
}

/** Makes a batch of llama.cpp's own memory. It lives as long as the process. */
export function createBatch(functions: LlamaFunctions, capacity: number): NativeBatch {
  const struct = functions.batchInit(capacity, 0, 1) as Record<string, Pointer> & { n_tokens: number };
  const ints = (pointer: Pointer, count: number) => new Int32Array(koffi.view(pointer, 4 * count));
  ints(struct["n_seq_id"]!, capacity).fill(1);
  const sequencePointers = new BigUint64Array(koffi.view(struct["seq_id"]!, 8 * capacity));
  return {
    capacity,
    tokens: ints(struct["token"]!, capacity),
    positions: ints(struct["pos"]!, capacity),
    sequences: Array.from(sequencePointers, (pointer) => ints(pointer, 1)),
    outputs: new Int8Array(koffi.view(struct["logits"]!, capacity)),
    struct,
  };
}

/** `count` floats at `pointer`: llama.cpp's memory, valid until its next decode. */
export function floatsAt(pointer: Pointer, count: number): Float32Array {
  return new Float32Array(koffi.view(pointer, 4 * count));
}

/** Address of the memory behind `bytes`, which must outlive every use of it. */
export function addressOf(bytes: Uint8Array): Pointer {
  return koffi.address(bytes);
}

/**
 * A function of the C library as a callback: `strlen` as abort callback (with the address of a byte as data: zero is "go
 * on"), `abs` as a log callback that does nothing. Backend threads call these, where a JavaScript function would wait
 * for the very thread that waits for them.
 */
export function libcFunction(name: "strlen" | "abs"): Pointer {
  return koffi.load(null).symbol(name) as Pointer;
}

/** Calls `body` with a native log callback that ends in `listen`; only for calls that log from the calling thread. */
export function withLogCallback<T>(listen: (level: number, text: string) => void, body: (callback: Pointer) => T): T {
  const callback = koffi.register(listen, koffi.pointer(logCallback));
  try {
    return body(callback);
  } finally {
    koffi.unregister(callback);
  }
}

/** Calls `body` with a native progress callback; llama.cpp calls it on the thread that loads. False stops the loading. */
export function withProgressCallback<T>(listen: (share: number) => boolean, body: (callback: Pointer) => T): T {
  const callback = koffi.register(listen, koffi.pointer(progressCallback));
  try {
    return body(callback);
  } finally {
    koffi.unregister(callback);
  }
}

/** Gives native calls the largest stack there is, 16 MiB; before the first of them. */
export function useDeepStack(): void {
  koffi.config({ sync_stack_size: 16 * 2 ** 20 });
}

/** Offsets of single fields, for the check of the declared shapes: bytes from the start of the struct. */
export function fieldOffsets(): { modelLast: number; contextTypeK: number; contextLast: number } {
  return {
    modelLast: koffi.offsetof(modelParams, "load_mtp"),
    contextTypeK: koffi.offsetof(contextParams, "type_k"),
    contextLast: koffi.offsetof(contextParams, "ctx_other"),
  };
}

function padded(fields: Record<string, string>): Record<string, string> {
  return { ...fields, reserved: `uint8 [${structBytes - 160}]` };
}
