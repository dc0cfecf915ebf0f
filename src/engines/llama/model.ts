/**
 * A loaded model: its weights, its metadata and its vocabulary. Lives in the engine process.
 */
import { constrainedMemoryBytes } from "./machine.ts";
import { RepriseError } from "../../errors.ts";
import type { ModelPointer, VocabularyPointer, LlamaFunctions } from "../../ffi/llama.ts";
import { withProgressCallback } from "../../ffi/llama.ts";
import type { ModelFile } from "./gguf-header.ts";
import type { Library } from "./library.ts";

export interface ModelOptions {
  readonly library: Library;
  readonly file: ModelFile;
  /** Layers to put on a GPU: undefined = all that a GPU build finds room for. */
  readonly gpuLayers?: number | undefined;
  /** Called with 0 to 1 while the weights are read. False stops the loading. */
  readonly onProgress: (share: number) => boolean;
}

export class Model {
  readonly functions: LlamaFunctions;
  readonly pointer: ModelPointer;
  readonly metadata: ReadonlyMap<string, string>;
  readonly architecture: string;
  readonly trainedContext: number;
  readonly parameters: number;
  readonly vocabularySize: number;
  readonly #vocabulary: VocabularyPointer;
  #endTokens: readonly number[] | undefined;
  readonly #pieces = new Map<number, Uint8Array>();

  private constructor(functions: LlamaFunctions, pointer: ModelPointer) {
    this.functions = functions;
    this.pointer = pointer;
    this.metadata = readMetadata(functions, pointer);
    this.architecture = this.metadata.get("general.architecture") ?? "unknown";
    this.trainedContext = functions.trainedContext(pointer);
    this.parameters = Number(functions.parameterCount(pointer));
    this.#vocabulary = functions.vocabulary(pointer);
    this.vocabularySize = functions.vocabularySize(this.#vocabulary);
  }

  /**
   * Reads the weights; blocks for as long as that takes.
   *
   * @throws RepriseError MODEL_INVALID with llama.cpp's own reason, or NOT_ENOUGH_MEMORY.
   */
  static load(options: ModelOptions): Model {
    const { library, file } = options;
    const have = constrainedMemoryBytes();
    if (file.bytes > have && !isGpuBuild(library.build)) {
      throw new RepriseError(
        "NOT_ENOUGH_MEMORY",
        `The model needs ${gibibytes(file.bytes)} of memory and this machine has ${gibibytes(have)}; use a smaller model or quantisation`,
      );
    }
    const { result: pointer, errors } = library.listening(() =>
      withProgressCallback(options.onProgress, (callback) =>
        library.functions.loadModel(file.path, {
          ...library.functions.defaultModelParams(),
          n_gpu_layers: isGpuBuild(library.build) ? (options.gpuLayers ?? -1) : 0,
          progress_callback: callback,
        }),
      ),
    );
    if (pointer === null) {
      const reason = errors[0]?.replace(/^.*error loading model: /, "") ?? "llama.cpp gives no reason";
      throw new RepriseError("MODEL_INVALID", `${file.path} cannot be loaded: ${reason}`);
    }
    const model = new Model(library.functions, pointer);
    const fault = unusable(library.functions, pointer);
    if (fault === undefined) return model;
    library.functions.freeModel(pointer);
    throw new RepriseError("MODEL_INVALID", `${file.path} is ${fault}; this engine runs decoder-only language models`);
  }

  /** Token ids of a text. `special`: read special tokens by name. `begin`: the model's BOS first, if it has the habit. */
  tokenize(text: string, options: { special: boolean; begin: boolean }): Uint32Array {
    const bytes = Buffer.from(text, "utf8");
    // One token a byte and a few for the ends is the most there can be; -n tells how many there are when that is wrong.
    let tokens = new Int32Array(bytes.length + 8);
    const run = () =>
      this.functions.tokenize(this.#vocabulary, bytes, bytes.length, tokens, tokens.length, false, options.special);
    let count = run();
    if (count < 0) {
      tokens = new Int32Array(-count);
      count = run();
    }
    if (count < 0) throw new RepriseError("BAD_REQUEST", "The text cannot be tokenized", { field: "prompt" });
    const ids = new Uint32Array(tokens.buffer, 0, count);
    // Not left to llama.cpp, which would put an end token behind a prompt as well where a model has that habit.
    return options.begin && this.addsBegin ? withFirst(this.#beginToken, ids) : ids;
  }

  /** The text of tokens, special ones by their names. */
  detokenize(tokens: Uint32Array): string {
    const ids = new Int32Array(tokens);
    let bytes = new Uint8Array(8 * tokens.length + 64);
    const run = () => this.functions.detokenize(this.#vocabulary, ids, ids.length, bytes, bytes.length, false, true);
    let count = run();
    if (count < 0) {
      bytes = new Uint8Array(-count);
      count = run();
    }
    return Buffer.from(bytes.buffer, 0, Math.max(0, count)).toString("utf8");
  }

  /** The bytes that a generated token adds to the text: none for special tokens, and maybe a part of a character. */
  piece(token: number): Uint8Array {
    const known = this.#pieces.get(token);
    if (known !== undefined) return known;
    const piece = this.#pieceOf(token, { special: false });
    this.#pieces.set(token, piece);
    return piece;
  }

  /** A special token by its name, "" when the model has none. */
  specialText(which: "begin" | "end"): string {
    const token = which === "begin" ? this.#beginToken : this.functions.endToken(this.#vocabulary);
    return token < 0 ? "" : Buffer.from(this.#pieceOf(token, { special: true })).toString("utf8");
  }

  /** Does the model want its BOS token at the start of a text? */
  get addsBegin(): boolean {
    return this.#beginToken >= 0 && this.functions.addsBegin(this.#vocabulary);
  }

  get #beginToken(): number {
    return this.functions.beginToken(this.#vocabulary);
  }

  /** All tokens that end a generation; found on the first call, since all of the vocabulary is asked. */
  get endTokens(): readonly number[] {
    this.#endTokens ??= Array.from({ length: this.vocabularySize }, (_, token) => token).filter((token) =>
      this.isEnd(token),
    );
    return this.#endTokens;
  }

  /** Does this token end the generation? */
  isEnd(token: number): boolean {
    return this.functions.isEnd(this.#vocabulary, token);
  }

  #pieceOf(token: number, options: { special: boolean }): Uint8Array {
    let bytes = new Uint8Array(64);
    const run = () => this.functions.tokenPiece(this.#vocabulary, token, bytes, bytes.length, 0, options.special);
    let count = run();
    if (count < 0) {
      bytes = new Uint8Array(-count);
      count = run();
    }
    return bytes.subarray(0, Math.max(0, count));
  }
}

/** True when the libraries can put layers on a GPU. */
export function isGpuBuild(build: string): boolean {
  return /-(cuda|vulkan|metal)$/.test(build);
}

export function gibibytes(bytes: number): string {
  return `${(bytes / 2 ** 30).toFixed(1)} GiB`;
}

function unusable(functions: LlamaFunctions, model: ModelPointer): string | undefined {
  if (functions.isDiffusion(model)) return "a diffusion model";
  if (functions.hasEncoder(model)) return "an encoder-decoder model";
  if (!functions.hasDecoder(model)) return "an encoder or embedding model";
  return undefined;
}

function readMetadata(functions: LlamaFunctions, model: ModelPointer): Map<string, string> {
  const read = (index: number, from: LlamaFunctions["metadataKey"]) => {
    let bytes = Buffer.alloc(256);
    const length = from(model, index, bytes, bytes.length);
    if (length >= bytes.length) {
      bytes = Buffer.alloc(length + 1);
      from(model, index, bytes, bytes.length);
    }
    return bytes.toString("utf8", 0, Math.max(0, length));
  };
  const metadata = new Map<string, string>();
  for (let index = 0; index < functions.metadataCount(model); index += 1) {
    metadata.set(read(index, functions.metadataKey), read(index, functions.metadataValue));
  }
  return metadata;
}

function withFirst(token: number, tokens: Uint32Array): Uint32Array {
  const all = new Uint32Array(tokens.length + 1);
  all[0] = token;
  all.set(tokens, 1);
  return all;
}
