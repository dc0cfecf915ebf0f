/**
 * The tensors that hold a context's KV, and copies from and to them, one range of bytes at a time.
 *
 * llama.cpp's C interface moves whole sequences. Its tensors are ggml's, which are public, and a graph names them: `cache_k_l0` are the
 * first layer's keys. The function that builds such a graph is of llama.cpp's header for its own tests (src/llama-ext.h); where a library
 * does not have it, nothing here is used.
 */
import type { LibraryHandle } from "koffi";
import type { Pointer } from "./posix.ts";

/** One layer's keys or values: a row for each cell, the cells of the first stream before those of the second. */
export interface KvTensor {
  readonly pointer: Pointer;
  /** Where its bytes are: in this process, or on its device. */
  readonly address: Pointer;
  readonly bytes: number;
}

export interface KvTensors {
  readonly keys: readonly KvTensor[];
  readonly values: readonly KvTensor[];
}

/** The graph that is looked at is also the one that the context reserves memory for: it must be that of its largest batch. */
export interface LargestBatch {
  readonly rows: number;
  /** All that the context has. */
  readonly sequences: number;
}

export interface KvTensorFunctions {
  /** Between decodes only. @returns undefined where a layer's KV lies in no tensor of that name */
  find: (context: Pointer, layers: number, largest: LargestBatch) => KvTensors | undefined;
  /** Copies `bytes` at `offset` of a tensor to `into`; done when it returns. */
  read: (tensor: Pointer, into: Pointer, offset: number, bytes: number) => void;
  write: (tensor: Pointer, from: Pointer, offset: number, bytes: number) => void;
}

/** The name that C++ gives `llama_graph_reserve`, but for Windows. */
const reserveName = "_Z19llama_graph_reserveP13llama_contextjjj";

/** Makes the graph of a batch, which is there until the next decode. @throws Error where the library has no such function */
export function declareReserve(
  llama: LibraryHandle,
): (context: Pointer, tokens: number, sequences: number, outputs: number) => Pointer | null {
  return llama.func(reserveName, "void*", ["void*", "uint32", "uint32", "uint32"]) as ReturnType<typeof declareReserve>;
}

/** @returns undefined where the libraries lack a function */
export function declareKvTensors(base: LibraryHandle, llama: LibraryHandle): KvTensorFunctions | undefined {
  try {
    const reserve = declareReserve(llama);
    const tensorOf = base.func("void* ggml_graph_get_tensor(void*, const char*)");
    const dataOf = base.func("void* ggml_get_data(void*)");
    const bytesOf = base.func("size_t ggml_nbytes(void*)");
    const named = (graph: Pointer, name: string): KvTensor | undefined => {
      const pointer = tensorOf(graph, name) as Pointer | null;
      const address = pointer === null ? null : (dataOf(pointer) as Pointer | null);
      if (pointer === null || address === null) return undefined;
      return { pointer, address, bytes: Number(bytesOf(pointer)) };
    };
    return {
      find: (context, layers, { rows, sequences }) => {
        const graph = reserve(context, rows, sequences, sequences);
        if (graph === null) return undefined;
        const all = (kind: string) => Array.from({ length: layers }, (_, i) => named(graph, `cache_${kind}_l${i}`));
        const [keys, values] = [all("k"), all("v")];
        const isKnown = (tensors: (KvTensor | undefined)[]): tensors is KvTensor[] => !tensors.includes(undefined);
        return isKnown(keys) && isKnown(values) ? { keys, values } : undefined;
      },
      read: base.func(
        "void ggml_backend_tensor_get(void* tensor, void* into, size_t offset, size_t bytes)",
      ) as KvTensorFunctions["read"],
      write: base.func(
        "void ggml_backend_tensor_set(void* tensor, void* from, size_t offset, size_t bytes)",
      ) as KvTensorFunctions["write"],
    };
  } catch {
    return undefined;
  }
}
