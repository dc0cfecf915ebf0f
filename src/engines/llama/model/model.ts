/**
 * A loaded model: its weights, its metadata and its vocabulary. Weights live in the engine process; the tokenizer process
 * loads the vocabulary alone.
 */
import { constrainedMemoryBytes } from "./machine.ts";
import { RepriseError } from "../../../errors.ts";
import type { ModelPointer, LlamaFunctions } from "../../../ffi/llama.ts";
import { withProgressCallback } from "../../../ffi/llama.ts";
import type { Library } from "./library.ts";
import { isGpuBuild } from "./library-places.ts";
import type { LoadableModel } from "./model-files.ts";
import { type Piece, pieceOf } from "./piece.ts";
import { Vocabulary } from "./vocabulary.ts";

export interface ModelOptions {
  readonly library: Library;
  readonly file: LoadableModel;
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
  readonly vocabulary: Vocabulary;
  #endTokens: readonly number[] | undefined;
  readonly #pieces = new Map<number, Piece>();

  /** Tokens of the vocabulary: ids are below it. */
  get vocabularySize(): number {
    return this.vocabulary.size;
  }

  private constructor(functions: LlamaFunctions, pointer: ModelPointer) {
    this.functions = functions;
    this.pointer = pointer;
    this.metadata = readMetadata(functions, pointer);
    this.architecture = this.metadata.get("general.architecture") ?? "unknown";
    this.trainedContext = functions.trainedContext(pointer);
    this.parameters = Number(functions.parameterCount(pointer));
    this.vocabulary = new Vocabulary(functions, functions.vocabulary(pointer));
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
        library.functions.loadModel(file.openable, file.openable.length, {
          ...library.functions.defaultModelParams(),
          n_gpu_layers: isGpuBuild(library.build) ? (options.gpuLayers ?? -1) : 0,
          progress_callback: callback,
        }),
      ),
    );
    if (pointer === null) throw isGpuBuild(library.build) ? invalidOnGpu(file, errors) : invalid(file, errors);
    try {
      file.confirm();
      const fault = unusable(library.functions, pointer);
      if (fault === undefined) return new Model(library.functions, pointer);
      throw new RepriseError(
        "MODEL_INVALID",
        `${file.path} is ${fault}; this engine runs decoder-only language models`,
      );
    } catch (error) {
      library.functions.freeModel(pointer);
      throw error;
    }
  }

  /** What a generated token adds to the text: no bytes for special tokens. */
  piece(token: number): Piece {
    const known = this.#pieces.get(token);
    if (known !== undefined) return known;
    const piece = pieceOf(this.vocabulary.piece(token, { special: false }));
    this.#pieces.set(token, piece);
    return piece;
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
    return this.functions.isEnd(this.vocabulary.pointer, token);
  }
}

/**
 * Reads a model's vocabulary and metadata, and no weights.
 *
 * @throws RepriseError MODEL_INVALID with llama.cpp's own reason.
 */
export function loadVocabulary(options: Pick<ModelOptions, "library" | "file">): {
  readonly vocabulary: Vocabulary;
  readonly metadata: ReadonlyMap<string, string>;
} {
  const { file, library } = options;
  const { functions } = library;
  const { result: pointer, errors } = library.listening(() =>
    functions.loadModel(file.openable, file.openable.length, { ...functions.defaultModelParams(), vocab_only: true }),
  );
  if (pointer === null) throw invalid(file, errors);
  file.confirm();
  return {
    vocabulary: new Vocabulary(functions, functions.vocabulary(pointer)),
    metadata: readMetadata(functions, pointer),
  };
}

function invalid(file: LoadableModel, errors: readonly string[]): RepriseError {
  const reason = errors[0]?.replace(/^.*error loading model: /, "") ?? "llama.cpp gives no reason";
  return new RepriseError("MODEL_INVALID", `${file.path} cannot be loaded: ${reason}`);
}

/** A model that is all right may be too large for the GPU. */
function invalidOnGpu(file: LoadableModel, errors: readonly string[]): RepriseError {
  const full = errors.find((each) => /alloc/i.test(each));
  if (full === undefined) return invalid(file, errors);
  return new RepriseError(
    "NOT_ENOUGH_MEMORY",
    `${file.path} does not fit into the GPU's memory (${full}); put a part of it there: --gpu-layers N`,
  );
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
