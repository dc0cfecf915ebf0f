/**
 * One llama.cpp context: the cells that hold KV, a batch to fill, and the copies between cells and pool slots.
 *
 * Sequences 0 to n−1 serve requests. Where their cells are unified, or on a device, there is one more, the last, that ranges pass through
 * (kv-copies.ts).
 */
import { RepriseError, assert } from "../../../errors.ts";
import { createBatch, flashAttentionEnabled, floatsAt, libcFunction, typeF16 } from "../../../ffi/llama.ts";
import type { LayerKeys } from "../../../ffi/key-ropes.ts";
import type { ContextPointer, LlamaFunctions, MemoryPointer, NativeBatch, Pointer } from "../../../ffi/llama.ts";
import { Candidates } from "./candidates.ts";
import type { Library } from "../model/library.ts";
import { availableMemoryBytes } from "../model/machine.ts";
import { isGpuBuild } from "../model/library-places.ts";
import { gibibytes } from "../model/model.ts";
import type { Model } from "../model/model.ts";
import { DeviceCopies } from "./device-copies.ts";
import type { CopyTools, KvCopies, StreamTools } from "./kv-copies.ts";
import type { KvRows } from "./kv-rows.ts";
import { findRows } from "./known-rows.ts";
import type { PayloadLayout } from "./sequence-state.ts";
import { StreamCells } from "./stream-cells.ts";
import { StreamCopies } from "./stream-copies.ts";
import type { StepThreads } from "./thread-choice.ts";
import { UnifiedCopies } from "./unified-copies.ts";

/** Rows that llama.cpp computes together. */
export const rowsTogether = 512;

/** Tokens of a batch at most: llama.cpp aborts the process on more than its n_batch. A device gets work for longer. */
const batchTokensOf: Record<CellLayout, number> = {
  unified: rowsTogether,
  streams: rowsTogether,
  device: 4 * rowsTogether,
};

/** Steps that cost less are made of short operations: see thread-choice.ts. */
const smallStepCost = 32;

/** llama.cpp's graphs and output buffers, besides KV: a round figure that 512-token batches stay below. */
const workspaceBytes = 256 * 2 ** 20;

/** How the cells of a context's sequences lie: in one store, or in streams, each in one of its own, in memory or on a GPU. */
export type CellLayout = "unified" | "streams" | "device";

/** Sharing copies a stream on a device, which takes as long as computing some tokens. */
const leastSharedOnDevice = 256;

export interface ContextOptions {
  readonly library: Library;
  readonly model: Model;
  /** Cells for all sequences that serve requests together; each has its share where they are streams. */
  readonly cells: number;
  /** Sequences that serve requests. */
  readonly sequences: number;
  /** Unified unless given. */
  readonly layout?: CellLayout;
  /** Rows of a batch, at most, whose logits are wanted besides one of each sequence; none unless given. */
  readonly draftRows?: number;
  /** Contexts of this shape that there will be; 1 unless given. All must fit into memory before the first is made. */
  readonly contexts?: number;
  /** The same for all contexts of an engine. */
  readonly threads: StepThreads;
  /** Threads that sleep between steps, shared by all contexts: a step that starts its own takes longer, and some far longer. */
  readonly threadPool: Pointer | undefined;
  /** Address of a byte that stops a running decode when it is not zero. */
  readonly abortFlag: Pointer | undefined;
}

/** How a decode ended. */
export type DecodeResult = "done" | "no room" | "aborted" | { readonly failed: number };

export class Context {
  readonly batch: NativeBatch;
  readonly sequences: number;
  readonly layout: CellLayout;
  /** Cells that a sequence may have. */
  readonly #cells: number;
  readonly #library: Library;
  readonly #functions: LlamaFunctions;
  readonly #model: Model;
  readonly #context: ContextPointer;
  readonly #memory: MemoryPointer;
  readonly #threads: StepThreads;
  readonly #rows = new Map<Pointer, Float32Array>();
  #candidates: Candidates | undefined;
  /** Undefined where cells are unified. */
  #streamCells: StreamCells | undefined;
  #copies: KvCopies | undefined;
  #copiedBy: KvRows["by"] | undefined;
  #filled = 0;

  private constructor(context: ContextPointer, options: ContextOptions) {
    const { library, model, layout = "unified", sequences, cells } = options;
    const { functions } = library;
    this.#library = library;
    this.#functions = functions;
    this.#model = model;
    this.#context = context;
    this.#memory = functions.memory(context);
    this.#cells = layout === "unified" ? cells : Math.floor(cells / sequences);
    this.sequences = sequences;
    this.layout = layout;
    this.#streamCells = layout === "unified" ? undefined : new StreamCells(functions, this.#memory);
    this.#threads = options.threads;
    this.batch = createBatch(functions, batchTokensOf[layout]);
  }

  /** @throws RepriseError NOT_ENOUGH_MEMORY, or LIBRARY_UNSUPPORTED when the library did not take the parameters as given. */
  static create(options: ContextOptions): Context {
    const { library, model } = options;
    const { functions } = library;
    // llama.cpp makes batches no larger than a context, so that a small one has room for a whole batch.
    const { contexts = 1, layout = "unified" } = options;
    const batchTokens = batchTokensOf[layout];
    const ids = layout === "streams" ? options.sequences : options.sequences + 1;
    const stores = layout === "unified" ? 1 : ids;
    const perStore = layout === "unified" ? options.cells : Math.ceil(options.cells / options.sequences);
    const cells = stores * Math.max(batchTokens, Math.ceil(perStore / 256) * 256);
    const needBytes = contexts * keyValueBytes(model, cells) + workspaceBytes;
    const need = `${gibibytes(needBytes)} for ${(contexts * cells).toLocaleString("en")} tokens of context`;
    if (!isGpuBuild(library.build) && needBytes > availableMemoryBytes()) throw notEnough(need);

    const { result: context } = library.listening(() =>
      functions.createContext(model.pointer, {
        ...functions.defaultContextParams(),
        n_ctx: cells,
        n_batch: batchTokens,
        n_ubatch: rowsTogether,
        n_seq_max: ids,
        n_outputs_max: ids + (options.draftRows ?? 0),
        n_threads: options.threads.most,
        n_threads_batch: options.threads.most,
        flash_attn_type: flashAttentionEnabled,
        type_k: typeF16,
        type_v: typeF16,
        kv_unified: layout === "unified",
        abort_callback: options.abortFlag === undefined ? null : libcFunction("strlen"),
        abort_callback_data: options.abortFlag ?? null,
      }),
    );
    if (context === null) throw notEnough(need);
    const taken = {
      cells: functions.contextTokens(context),
      batch: functions.batchTokens(context),
      sequences: functions.maxSequences(context),
    };
    if (taken.cells < cells || taken.batch !== batchTokens || taken.sequences !== ids) {
      throw new RepriseError(
        "LIBRARY_UNSUPPORTED",
        `llama.cpp made a context of ${JSON.stringify(taken)} where ${cells}, ${batchTokens} and ${ids} were asked for`,
      );
    }
    if (options.threadPool !== undefined) functions.attachThreadPool(context, options.threadPool, options.threadPool);
    return new Context(context, options);
  }

  /** Starts a new batch. */
  begin(): void {
    this.#filled = 0;
  }

  /** Puts a token into the batch; its index there is what {@link logits} and samplers take. */
  add(sequence: number, position: number, token: number, wantsOutput: boolean): number {
    const index = this.#filled;
    assert(index < this.batch.capacity, "a batch has the tokens that its context was made with");
    this.#streamCells?.settle(sequence);
    this.batch.tokens[index] = token;
    this.batch.positions[index] = position;
    this.batch.sequences[index]![0] = sequence;
    this.batch.outputs[index] = wantsOutput ? 1 : 0;
    this.#filled += 1;
    return index;
  }

  /**
   * Runs the batch: all of it, or nothing on "no room" and "aborted".
   *
   * @param cost what a large batch costs in proportion to others, so that their times can be compared; its tokens unless given.
   * @param drafts so many of its rows are drafts: what it takes then says nothing of other small batches.
   */
  decode(cost = this.#filled, drafts = 0): DecodeResult {
    this.batch.struct.n_tokens = this.#filled;
    const small = cost < smallStepCost;
    const choice = small ? this.#threads.small : this.#threads.large;
    const started = performance.now();
    this.#threads.begin(started);
    const threads = drafts > 0 ? choice.best : choice.next();
    this.#functions.setThreads(this.#context, threads, threads);
    const code = this.#functions.decode(this.#context, this.batch.struct);
    const ended = performance.now();
    this.#threads.end(ended);
    if (code >= 0) this.#copies?.decoded(); // a failed one may have ended before anything was done
    const elapsedMs = ended - started;
    if (code === 0 && drafts === 0) choice.measured(threads, small ? elapsedMs : elapsedMs / cost);
    if (code === 0) return "done";
    if (code === 1) return "no room";
    return code === 2 ? "aborted" : { failed: code };
  }

  /** Logits of a token of the last batch: native memory, valid until the next decode. */
  logits(index: number): Float32Array {
    const pointer = this.#functions.logitsAt(this.#context, index);
    assert(pointer !== null, "logits were asked for where none were computed");
    let row = this.#rows.get(pointer);
    if (row === undefined) {
      // Rows stay where they are until llama.cpp makes room for more; a view of one takes longer to make than a small choice.
      if (this.#rows.size > 2 * this.sequences) this.#rows.clear();
      row = floatsAt(pointer, this.#model.vocabularySize);
      this.#rows.set(pointer, row);
    }
    return row;
  }

  /** Room for choosing a token of its logits. */
  get candidates(): Candidates {
    this.#candidates ??= new Candidates(this.#model.vocabularySize);
    return this.#candidates;
  }

  /** Forgets a sequence from position `from` on. */
  truncate(sequence: number, from: number): void {
    if (this.#streamCells !== undefined) this.#streamCells.cut(sequence, from);
    else this.#functions.removeTokens(this.#memory, sequence, from === 0 ? -1 : from, -1);
  }

  /** Can a sequence begin with what another one holds, without a copy through memory? */
  get isShareable(): boolean {
    return this.layout !== "streams";
  }

  /** Tokens that must be gained by sharing. */
  get leastShared(): number {
    return this.layout === "device" ? leastSharedOnDevice : 0;
  }

  /**
   * Lets `target`, which holds the first `from` tokens of `source`, hold the first `to` of them. Where a context {@link isShareable}.
   */
  share(source: number, target: number, from: number, to: number): void {
    if (this.#copies instanceof DeviceCopies) this.#copies.share(source, target, to);
    else this.#functions.copyTokens(this.#memory, source, target, from, to);
  }

  /** Forgets everything, and where the next cell would be taken. Before copies are made only. */
  clear(): void {
    this.#functions.clearMemory(this.#memory, false);
    this.#streamCells &&= new StreamCells(this.#functions, this.#memory);
  }

  /** Positions from 0 that a sequence holds; for checks. */
  length(sequence: number): number {
    return this.#streamCells?.held(sequence) ?? this.#functions.lastPosition(this.#memory, sequence) + 1;
  }

  /** All of a sequence, as llama.cpp writes it. */
  state(sequence: number): Uint8Array {
    this.#streamCells?.settle(sequence);
    const state = new Uint8Array(this.#functions.stateBytes(this.#context, sequence, 0));
    return state.subarray(0, this.#functions.readState(this.#context, state, state.length, sequence, 0));
  }

  /** Streams of a state. */
  get streams(): number {
    if (this.layout === "unified") return 1;
    return this.layout === "device" ? this.sequences + 1 : this.sequences;
  }

  /**
   * Says how payloads look, without which none can be copied. The context is empty afterwards.
   *
   * @param state what {@link state} gave of sequence 0, which holds one token and still does
   * @returns false where payloads of this layout cannot be copied
   */
  setPayloadLayout(layout: PayloadLayout, state: Uint8Array): boolean {
    const tools: CopyTools = {
      functions: this.#functions,
      context: this.#context,
      memory: this.#memory,
      sequences: this.sequences,
    };
    const { streams } = this;
    const places = { library: this.#library, model: this.#model, context: this.#context, rowsTogether };
    const rows = this.layout === "unified" ? undefined : findRows(places, { layout, streams, state });
    this.clear();
    this.#copiedBy = rows?.by;
    const cells = this.#streamCells;
    if (cells === undefined) this.#copies = new UnifiedCopies(tools);
    else if (rows !== undefined) this.#copies = this.#streamCopies({ ...tools, layout, rows, cells });
    return this.#copies !== undefined;
  }

  /** How it makes the keys of each layer, between decodes only; undefined where that cannot be read. */
  layerKeys(layers: number): readonly LayerKeys[] | undefined {
    const sequences = this.#functions.maxSequences(this.#context);
    return this.#library.findKeyRopes?.(this.#context, layers, { rows: rowsTogether, sequences });
  }

  /** Who copies rows; undefined where whole sequences are copied. */
  get copiedBy(): KvRows["by"] | undefined {
    return this.#copiedBy;
  }

  #streamCopies(tools: StreamTools): KvCopies | undefined {
    if (this.layout === "streams") return new StreamCopies(tools);
    const runOne = (sequence: number, position: number) => {
      this.begin();
      this.add(sequence, position, 0, false);
      this.decode();
    };
    return DeviceCopies.make({ ...tools, assemblyTokens: this.#cells - 1, runOne });
  }

  get copies(): KvCopies {
    assert(this.#copies !== undefined, "KV is copied where its layout is known");
    return this.#copies;
  }

  /** Says what memory payloads will lie in. */
  prepare(extents: Iterable<Uint8Array>): void {
    this.#copies?.prepare(extents);
  }

  /** That memory will be unmapped: resolves when nothing is kept of it. */
  async letGo(): Promise<void> {
    await this.#copies?.letGo();
  }

  /** Nothing is to be done: memory that copies are made in may go. */
  rest(): void {
    this.#copies?.rest();
  }

  /** Frees the cells. */
  free(): void {
    this.#functions.freeContext(this.#context);
  }
}

/** Bytes of KV of `cells` tokens in f16, from the model's shape. */
function keyValueBytes(model: Model, cells: number): number {
  const { functions, pointer } = model;
  const headSize = headSizes(model);
  return cells * functions.layers(pointer) * functions.keyValueHeads(pointer) * (headSize.key + headSize.value) * 2;
}

/** Elements of one head's key and value. */
export function headSizes(model: Model): { key: number; value: number } {
  const { functions, pointer, metadata, architecture } = model;
  const usual = Math.floor(functions.embeddingSize(pointer) / Math.max(1, functions.heads(pointer)));
  const size = (name: string) => Number(metadata.get(`${architecture}.attention.${name}`) ?? usual);
  return { key: size("key_length"), value: size("value_length") };
}

function notEnough(need: string): RepriseError {
  return new RepriseError(
    "NOT_ENOUGH_MEMORY",
    `The engine needs ${need}, and ${gibibytes(availableMemoryBytes())} are free; use a smaller --context or fewer --sequences`,
  );
}
