/**
 * A context of llama.cpp without ours around it, for what no engine asks of it: keys of other types, texts that begin anywhere, and
 * llama.cpp's own way to move what it holds.
 */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import koffi from "koffi";
import type { LayerKeys } from "../../src/ffi/key-ropes.ts";
import { createBatch, flashAttentionEnabled, typeF16 } from "../../src/ffi/llama.ts";
import type { ContextPointer } from "../../src/ffi/llama.ts";
import { libraryPlaces } from "../../src/engines/llama/model/library-places.ts";
import type { Model } from "../../src/engines/llama/model/model.ts";
import { type PayloadLayout, readLayout } from "../../src/engines/llama/process/sequence-state.ts";
import { library } from "./scheduler-rig.ts";

const { functions } = library;
const batch = createBatch(functions, 512);
const shift = nativeShift();

export class RawKv {
  readonly #context: ContextPointer;
  readonly #layers: number;

  constructor(model: Model, options: { readonly cells?: number; readonly keyType?: number } = {}) {
    const context = functions.createContext(model.pointer, {
      ...functions.defaultContextParams(),
      n_ctx: options.cells ?? 512,
      n_batch: 512,
      n_ubatch: 512,
      n_seq_max: 2,
      n_threads: 1,
      n_threads_batch: 1,
      flash_attn_type: flashAttentionEnabled,
      type_k: options.keyType ?? typeF16,
      type_v: typeF16,
      kv_unified: true,
    });
    if (context === null) throw new Error("llama.cpp makes no such context");
    this.#context = context;
    this.#layers = functions.layers(model.pointer);
  }

  /** What sequence 0 holds after these tokens, from position `first` on: a payload. */
  computed(tokens: Uint32Array, first: number): Uint8Array {
    this.#forget();
    this.#decode(tokens, first, 0);
    return this.#state();
  }

  /** The same, moved by llama.cpp after it was computed from position 0 on. */
  shifted(tokens: Uint32Array, positions: number): Uint8Array {
    this.#forget();
    this.#decode(tokens, 0, 0);
    shift(functions.memory(this.#context), 0, 0, -1, positions);
    this.#decode(tokens.subarray(0, 1), 0, 1); // it moves keys when it decodes
    return this.#state();
  }

  get layout(): PayloadLayout {
    const layout = readLayout(this.computed(Uint32Array.of(7), 0));
    if (layout === undefined) throw new Error("the state is of a kind that is not known");
    return layout;
  }

  get keys(): readonly LayerKeys[] | undefined {
    return library.findKeyRopes?.(this.#context, this.#layers, { rows: 512, sequences: 2 });
  }

  free(): void {
    functions.freeContext(this.#context);
  }

  #forget(): void {
    functions.clearMemory(functions.memory(this.#context), false);
  }

  #decode(tokens: Uint32Array, first: number, sequence: number): void {
    for (const [i, token] of tokens.entries()) {
      batch.tokens[i] = token;
      batch.positions[i] = first + i;
      batch.sequences[i]![0] = sequence;
      batch.outputs[i] = i === tokens.length - 1 ? 1 : 0;
    }
    batch.struct.n_tokens = tokens.length;
    const code = functions.decode(this.#context, batch.struct);
    if (code !== 0) throw new Error(`llama.cpp answered ${code}`);
  }

  #state(): Uint8Array {
    const state = new Uint8Array(functions.stateBytes(this.#context, 0, 0));
    return state.subarray(0, functions.readState(this.#context, state, state.length, 0, 0));
  }
}

function nativeShift(): (memory: bigint, sequence: number, from: number, to: number, by: number) => void {
  const { directory } = libraryPlaces({ gpu: "off" }).at(-1)!; // the rig has opened one
  const file = readdirSync(directory).find((name) => /^libllama\.(v[\d.]+\.)?(so|dylib)$/.test(name));
  const llama = koffi.load(join(directory, file!)); // likewise
  return llama.func("void llama_memory_seq_add(void*, int32, int32, int32, int32)") as ReturnType<typeof nativeShift>;
}
