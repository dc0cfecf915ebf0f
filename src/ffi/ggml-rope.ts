/**
 * Rotations by position (RoPE) of rows that lie in this process's memory, by the same kernels of ggml's CPU backend that the engine's own
 * graphs use: what comes out is what llama.cpp would have made of them, bit for bit.
 *
 * Tensors are laid over the rows where they are, and over the place where they shall be. In between there is one block of them as f32.
 *
 *     rows ──get_rows──► a block in f32 ──rope, in place──► the block ──set_rows──► rows
 */
import koffi from "koffi";
import type { LibraryHandle } from "koffi";
import type { Pointer } from "./posix.ts"; // its functions open a library, and a process may have to set koffi up first

/** What ggml is told of a rotation, by the names that the papers have. */
export interface Rope {
  /** Elements of a head that are rotated, from its first on. */
  readonly dimensions: number;
  /** 0 rotates neighbours, 2 (NeoX) an element of the first half with one of the second. */
  readonly mode: number;
  readonly originalContext: number;
  readonly base: number;
  readonly scale: number;
  /** How much of YaRN there is: 0 none. */
  readonly extension: number;
  /** All is multiplied by this, and by YaRN's own factor where there is an extension. */
  readonly magnitude: number;
  readonly betaFast: number;
  readonly betaSlow: number;
  /** Frequencies are divided by these, one for each pair. */
  readonly factors: Float32Array | undefined;
}

/** Heads that lie one after the other. */
export interface RopeRows {
  readonly rope: Rope;
  /** ggml's number of their element type, one of {@link rotatableTypes}. */
  readonly type: number;
  readonly headSize: number;
  readonly heads: number;
  readonly from: Pointer;
  /** The same place, or one that does not overlap. */
  readonly to: Pointer;
}

/** Rotates all of them as by so many positions. @throws Error when ggml says that it failed */
export type RotateRows = (rows: readonly RopeRows[], positions: number, threads: number) => void;

/** f32, f16, q8_0 and bf16. */
export const rotatableTypes = { f32: 0, f16: 1, q8_0: 8, bf16: 30 } as const;
/** 1 MiB of f32. */
const blockElements = 2 ** 18;
const typeI32 = 26;
const cpuDevice = 0;
const isSuccess = 0;
/** Made once and never freed: "a buffer" that is all of the memory this process can have. Its start must be aligned, tensors need not be. */
const allMemory = { from: 64n, bytes: 2 ** 47 };

koffi.struct("ggml_init_params", { mem_size: "size_t", mem_buffer: "void*", no_alloc: "bool" });
const setThreads = koffi.proto("void reprise_backend_set_n_threads(void* backend, int threads)");
const setPool = koffi.proto("void reprise_backend_set_threadpool(void* backend, void* pool)");

type Rotate = (
  context: Pointer,
  rows: Pointer,
  positions: Pointer,
  factors: Pointer | null,
  dimensions: number,
  mode: number,
  originalContext: number,
  base: number,
  scale: number,
  extension: number,
  magnitude: number,
  betaFast: number,
  betaSlow: number,
) => Pointer;
const rotateArguments = "void*, void*, void*, void*, int, int, int, float, float, float, float, float, float";

/** What is declared of ggml to make graphs of rotations. */
export function declareGraphs(base: LibraryHandle) {
  // oxlint-disable-next-line typescript/no-unnecessary-type-parameters -- a cast with a name: C declarations have no types here
  const fn = <T>(declaration: string): T => base.func(declaration) as T;
  const init = fn<(params: object) => Pointer | null>("void* ggml_init(ggml_init_params)");
  const free = fn<(context: Pointer) => void>("void ggml_free(void*)");
  const tensorBytes = Number(base.func("size_t ggml_tensor_overhead()")());
  const graphBytes = base.func("size_t ggml_graph_overhead_custom(size_t, bool)");
  return {
    /** Calls `body` with a context that has room for so many tensors and a graph of them, and none for what is in them. */
    within: <T>(tensors: number, body: (context: Pointer) => T): T => {
      const bytes = tensors * (tensorBytes + 64) + Number(graphBytes(tensors, false));
      const context = init({ mem_size: bytes, mem_buffer: null, no_alloc: true });
      if (context === null) throw new Error(`ggml has no room for ${tensors} tensors`);
      try {
        return body(context);
      } finally {
        free(context);
      }
    },
    vector: fn<(context: Pointer, type: number, count: number) => Pointer>(
      "void* ggml_new_tensor_1d(void*, int, int64)",
    ),
    heads: fn<(context: Pointer, type: number, headSize: number, heads: number, tokens: number) => Pointer>(
      "void* ggml_new_tensor_3d(void*, int, int64, int64, int64)",
    ),
    rope: fn<Rotate>(`void* ggml_rope_ext(${rotateArguments})`),
    ropeInPlace: fn<Rotate>(`void* ggml_rope_ext_inplace(${rotateArguments})`),
    /** As f32. */
    takeRows: fn<(context: Pointer, tensor: Pointer, indices: Pointer) => Pointer>(
      "void* ggml_get_rows(void*, void*, void*)",
    ),
    /** From f32. */
    putRows: fn<(context: Pointer, tensor: Pointer, rows: Pointer, indices: Pointer) => Pointer>(
      "void* ggml_set_rows(void*, void*, void*, void*)",
    ),
    graph: fn<(context: Pointer, size: number, gradients: boolean) => Pointer>(
      "void* ggml_new_graph_custom(void*, size_t, bool)",
    ),
    expand: fn<(graph: Pointer, tensor: Pointer) => void>("void ggml_build_forward_expand(void*, void*)"),
    place: fn<(buffer: Pointer, tensor: Pointer, at: Pointer) => number>(
      "int ggml_backend_tensor_alloc(void*, void*, void*)",
    ),
    compute: fn<(backend: Pointer, graph: Pointer) => number>("int ggml_backend_graph_compute(void*, void*)"),
    memoryBuffer: fn<(at: Pointer, bytes: number) => Pointer>("void* ggml_backend_cpu_buffer_from_ptr(void*, size_t)"),
  };
}

export type GraphFunctions = ReturnType<typeof declareGraphs>;

/**
 * Starts a backend of its own on the processor, for as long as the process lives. After backends are loaded.
 *
 * @param pool threads that it computes on; without them each call starts its own
 * @returns undefined where the libraries lack what it takes
 */
export function createRotateRows(
  base: LibraryHandle,
  ggml: LibraryHandle,
  pool: Pointer | undefined,
): RotateRows | undefined {
  try {
    const registered = ggml.func("void* ggml_backend_reg_by_name(const char*)")("CPU") as Pointer | null;
    const functionOf = base.func("void* ggml_backend_reg_get_proc_address(void*, const char*)");
    const byName = (name: string) => functionOf(registered, name) as Pointer | null;
    const backend =
      registered === null
        ? null
        : (ggml.func("void* ggml_backend_init_by_type(int, const char*)")(cpuDevice, null) as Pointer | null);
    const [threads, takePool] = [byName("ggml_backend_set_n_threads"), byName("ggml_backend_cpu_set_threadpool")];
    if (backend === null || threads === null || takePool === null) return undefined;
    if (pool !== undefined) koffi.call(takePool, setPool, backend, pool);
    const functions = declareGraphs(base);
    const buffer = functions.memoryBuffer(allMemory.from, allMemory.bytes);
    const rotation = new Rotation(functions, backend, buffer);
    return (rows, positions, count) => {
      koffi.call(threads, setThreads, backend, count);
      rotation.run(rows, positions);
    };
  } catch {
    return undefined;
  }
}

class Rotation {
  readonly #functions: GraphFunctions;
  readonly #backend: Pointer;
  readonly #buffer: Pointer;
  /** Rows as f32 between two types: a graph's nodes run one after the other, so that all use the same. */
  #room = new Float32Array(0);
  #indices = new Int32Array(0);

  constructor(functions: GraphFunctions, backend: Pointer, buffer: Pointer) {
    this.#functions = functions;
    this.#backend = backend;
    this.#buffer = buffer;
  }

  run(rows: readonly RopeRows[], positions: number): void {
    const { within, graph: newGraph, expand, compute } = this.#functions;
    const blocks = rows.flatMap(blocksOf);
    const widest = Math.max(0, ...blocks.map(({ heads, headSize }) => heads * headSize));
    if (this.#room.length < widest) this.#room = new Float32Array(widest);
    const most = Math.max(0, ...blocks.map(({ heads }) => heads));
    if (this.#indices.length < most) this.#indices = Int32Array.from({ length: most }, (_, i) => i);
    const by = Int32Array.of(positions); // one position for all heads: sines are computed once
    const tensors = 8 * blocks.length + 8;
    within(tensors, (context) => {
      const position = this.#lay(this.#functions.vector(context, typeI32, 1), koffi.address(by.buffer));
      const graph = newGraph(context, tensors, false);
      for (const each of blocks) expand(graph, this.#rotated(context, each, position));
      const status = compute(this.#backend, graph);
      if (status !== isSuccess) throw new Error(`ggml could not rotate rows: status ${status}`);
    });
  }

  #rotated(context: Pointer, { type, headSize, heads, from, to, rope }: RopeRows, position: Pointer): Pointer {
    const { heads: tensor, vector, takeRows, putRows } = this.#functions;
    const { factors } = rope;
    const source = this.#lay(tensor(context, type, headSize, heads, 1), from);
    const divisors =
      factors === undefined
        ? null
        : this.#lay(vector(context, rotatableTypes.f32, factors.length), koffi.address(factors.buffer));
    const rotate = (rows: Pointer, rotation: GraphFunctions["rope"]) =>
      rotation(
        context,
        rows,
        position,
        divisors,
        rope.dimensions,
        rope.mode,
        rope.originalContext,
        rope.base,
        rope.scale,
        rope.extension,
        rope.magnitude,
        rope.betaFast,
        rope.betaSlow,
      );
    if (type === rotatableTypes.f32) return this.#lay(rotate(source, this.#functions.rope), to);
    // ggml's kernel takes f16 as well, and so do its casts, but they turn one element after the other: 2.0 ms where this takes 0.5.
    const indices = this.#lay(vector(context, typeI32, heads), koffi.address(this.#indices.buffer));
    const wide = this.#lay(takeRows(context, source, indices), koffi.address(this.#room.buffer));
    const rotated = rotate(wide, this.#functions.ropeInPlace);
    return putRows(context, this.#lay(tensor(context, type, headSize, heads, 1), to), rotated, indices);
  }

  #lay(tensor: Pointer, at: Pointer): Pointer {
    this.#functions.place(this.#buffer, tensor, at);
    return tensor;
  }
}

/** Parts of what is to be rotated that stay in a core's cache meanwhile, as f32. */
function blocksOf(rows: RopeRows): RopeRows[] {
  const { headSize, type, heads, from, to } = rows;
  const most = Math.max(1, Math.floor(blockElements / headSize));
  const headBytes = bytesOfHead(type, headSize) ?? 0;
  return Array.from({ length: Math.ceil(heads / most) }, (_, block) => {
    const at = BigInt(block * most * headBytes);
    return { ...rows, heads: Math.min(most, heads - block * most), from: from + at, to: to + at };
  });
}

/** Bytes of so many elements; undefined where they cannot be rotated. */
export function bytesOfHead(type: number, headSize: number): number | undefined {
  if (type === rotatableTypes.f32) return 4 * headSize;
  if (type === rotatableTypes.f16 || type === rotatableTypes.bf16) return 2 * headSize;
  const isBlocks = type === rotatableTypes.q8_0 && headSize % 32 === 0;
  return isBlocks ? (headSize / 32) * 34 : undefined; // a scale in f16, then a byte for each
}
