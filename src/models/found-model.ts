/** A model that lies on this machine as a GGUF file, whoever brought it. */

export interface FoundModel {
  /** What `--model` takes. Several files may have one name. */
  readonly name: string;
  /** What it takes as well: another tag of the same blob, the repository that the file came from. */
  readonly otherNames: readonly string[];
  /** The file; of a split model, its first part. */
  readonly path: string;
  /** Of all parts. */
  readonly bytes: number;
  /** llama.cpp's word for what kind of network it is, such as `llama` or `qwen3`. */
  readonly architecture: string;
  readonly source: ModelSource;
}

/** Who put it there. */
export type ModelSource = "Reprise" | "--models-dir" | "Ollama" | "LM Studio" | "Hugging Face" | "llama.cpp" | "Python";

/** A file that may be a model, before anybody has looked into it. */
export interface Candidate {
  readonly path: string;
  readonly source: ModelSource;
  /** Of a split model, those after the first. */
  readonly laterParts?: readonly string[];
  /** The file's name without its ending unless given. */
  readonly name?: string;
  /** The repository that it came from: `org/name`. */
  readonly repository?: string;
}
