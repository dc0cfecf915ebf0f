/**
 * How a context rotates the keys of each layer, read from the graph that it computes: the rotation whose result is stored in `cache_k_l0`
 * is the first layer's, with all that was made of the model's metadata, the library's defaults and the context's own size.
 *
 * A graph's tensors are structs whose shape is of one release. So a rotation of known parameters is made and read back first.
 *
 *     ggml_tensor   0 type │ 16 sizes, 4 × i64 │ 84 parameters, 16 × i32 │ 152 sources, 10 × pointer │ 232 viewed tensor
 */
import { isDeepStrictEqual } from "node:util";
import koffi from "koffi";
import type { LibraryHandle } from "koffi";
import { declareGraphs, type GraphFunctions, type Rope, rotatableTypes } from "./ggml-rope.ts";
import { declareReserve, type LargestBatch } from "./kv-tensors.ts";
import type { Pointer } from "./posix.ts"; // its functions open a library, and a process may have to set koffi up first

/** What is stored of a layer's keys: vectors that were rotated last, such as have no position, or something else. */
export type LayerKeys =
  | { readonly are: "rotated"; readonly headSize: number; readonly heads: number; readonly rope: Rope }
  | { readonly are: "without position" }
  | { readonly are: "something else"; readonly operation: string };

/** Between decodes only. @returns undefined where the graph does not say it, or is not what is known here */
export type FindKeyRopes = (context: Pointer, layers: number, largest: LargestBatch) => LayerKeys[] | undefined;

const structBytes = 256;
const at = { sizes: 16, parameters: 84, sources: 152, viewed: 232 };
const mostSources = 10;
/** They change nothing of what is in a tensor. */
const sameValues: readonly string[] = ["VIEW", "RESHAPE", "CONT", "PERMUTE"];
/** Nodes that are looked at between a layer's keys and its weights. */
const mostNodes = 64;

/** @returns undefined where the libraries lack a function */
export function declareKeyRopes(base: LibraryHandle, llama: LibraryHandle): FindKeyRopes | undefined {
  try {
    const reserve = declareReserve(llama);
    const graphs = declareGraphs(base);
    const reader = new GraphReader(base);
    let isKnown: boolean | undefined;
    return (context, layers, { rows, sequences }) => {
      isKnown ??= isReadBack(graphs, reader);
      const graph = isKnown ? reserve(context, rows, sequences, sequences) : null;
      return graph === null ? undefined : reader.keysOf(graph, layers);
    };
  } catch {
    return undefined;
  }
}

interface Tensor {
  readonly operation: string;
  readonly name: string;
  readonly sizes: readonly number[];
  readonly parameters: DataView;
  readonly sources: readonly (Pointer | undefined)[];
  readonly viewed: Pointer | undefined;
}

class GraphReader {
  readonly #operationOf;
  readonly #nameOf;
  readonly #count;
  readonly #node;
  readonly #elements;
  readonly #read;

  constructor(base: LibraryHandle) {
    this.#operationOf = base.func("const char* ggml_op_desc(void*)") as (tensor: Pointer) => string;
    this.#nameOf = base.func("const char* ggml_get_name(void*)") as (tensor: Pointer) => string;
    this.#count = base.func("int ggml_graph_n_nodes(void*)") as (graph: Pointer) => number;
    this.#node = base.func("void* ggml_graph_node(void*, int)") as (graph: Pointer, index: number) => Pointer;
    this.#elements = base.func("int64 ggml_nelements(void*)") as (tensor: Pointer) => number | bigint;
    this.#read = base.func("void ggml_backend_tensor_get(void*, void*, size_t, size_t)") as (
      tensor: Pointer,
      into: Pointer,
      offset: number,
      bytes: number,
    ) => void;
  }

  keysOf(graph: Pointer, layers: number): LayerKeys[] | undefined {
    const stored = new Map<string, LayerKeys>();
    for (let index = 0; index < this.#count(graph); index += 1) {
      const node = this.#node(graph, index);
      if (this.#operationOf(node) !== "SET_ROWS") continue;
      const { viewed, sources } = this.tensor(node);
      const [keys] = sources;
      if (viewed !== undefined && keys !== undefined) stored.set(this.#nameOf(viewed), this.keys(keys));
    }
    const found = Array.from({ length: layers }, (_, layer) => stored.get(`cache_k_l${layer}`));
    return found.every((each) => each !== undefined) ? found : undefined;
  }

  /** What `pointer`, which is stored as keys, is made of. */
  keys(pointer: Pointer): LayerKeys {
    let tensor = this.tensor(pointer);
    for (let steps = 0; steps < mostNodes && sameValues.includes(tensor.operation); steps += 1) {
      if (tensor.sources[0] === undefined) break;
      tensor = this.tensor(tensor.sources[0]);
    }
    if (tensor.operation === "ROPE") return this.#rotated(tensor);
    return this.#isWithoutPosition(tensor)
      ? { are: "without position" }
      : { are: "something else", operation: tensor.operation };
  }

  /** Nothing between these keys and the weights that they are a product of is a rotation. */
  #isWithoutPosition(keys: Tensor): boolean {
    const open = [keys];
    for (let seen = 0; seen < mostNodes; seen += 1) {
      const tensor = open.pop();
      if (tensor === undefined) return true;
      if (tensor.operation === "ROPE") return false;
      const sources = tensor.sources.flatMap((source) => (source === undefined ? [] : [this.tensor(source)]));
      const isProjection = tensor.operation === "MUL_MAT" && sources[0]?.name.startsWith("blk.") === true;
      if (!isProjection) open.push(...sources);
    }
    return false;
  }

  #rotated({ sizes, parameters, sources }: Tensor): LayerKeys {
    const int = (index: number) => parameters.getInt32(4 * index, true);
    const float = (index: number) => parameters.getFloat32(4 * index, true);
    const offset = int(15);
    if (offset !== 0) return { are: "something else", operation: `ROPE from element ${offset}` };
    const [headSize, heads] = sizes as [number, number]; // there are four
    const factors = sources[2] === undefined ? undefined : this.#floats(sources[2]);
    const rope = {
      dimensions: int(1),
      mode: int(2),
      originalContext: int(4),
      base: float(5),
      scale: float(6),
      extension: float(7),
      magnitude: float(8),
      betaFast: float(9),
      betaSlow: float(10),
      factors,
    };
    return { are: "rotated", headSize, heads, rope };
  }

  #floats(tensor: Pointer): Float32Array {
    const values = new Float32Array(Number(this.#elements(tensor))); // ggml takes f32 only
    this.#read(tensor, koffi.address(values.buffer), 0, values.byteLength);
    return values;
  }

  tensor(pointer: Pointer): Tensor {
    const bytes = new DataView(koffi.view(pointer, structBytes).slice(0)); // what is kept outlives the graph
    const pointerAt = (offset: number) => bytes.getBigUint64(offset, true) || undefined;
    return {
      operation: this.#operationOf(pointer),
      name: this.#nameOf(pointer),
      sizes: [0, 1, 2, 3].map((i) => Number(bytes.getBigInt64(at.sizes + 8 * i, true))),
      parameters: new DataView(bytes.buffer, at.parameters, 64),
      sources: Array.from({ length: mostSources }, (_, i) => pointerAt(at.sources + 8 * i)),
      viewed: pointerAt(at.viewed),
    };
  }
}

/** Is what a rotation was made with what is read of it? */
function isReadBack(graphs: GraphFunctions, reader: GraphReader): boolean {
  return graphs.within(8, (context) => {
    const rows = graphs.heads(context, rotatableTypes.f32, 24, 3, 5);
    const positions = graphs.vector(context, 26, 5);
    const made = graphs.rope(context, rows, positions, null, 16, 2, 4096, 500, 0.25, 0.5, 1.5, 32, 2);
    const { operation, sources, viewed } = reader.tensor(made);
    const isPlaced =
      operation === "ROPE" && sources[0] === rows && sources[1] === positions && sources[2] === undefined;
    const expected: LayerKeys = {
      are: "rotated",
      headSize: 24,
      heads: 3,
      rope: {
        dimensions: 16,
        mode: 2,
        originalContext: 4096,
        base: 500,
        scale: 0.25,
        extension: 0.5,
        magnitude: 1.5,
        betaFast: 32,
        betaSlow: 2,
        factors: undefined,
      },
    };
    return isPlaced && viewed === undefined && isDeepStrictEqual(reader.keys(made), expected);
  });
}
