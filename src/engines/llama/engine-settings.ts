/**
 * How an engine is to run: said once, by whoever starts it, and handed to the engine process as it is. What is undefined is
 * the process's to choose, which has the model and the machine before it.
 */
import type { GpuUse } from "./model/library-places.ts";

/** Where tokens that may come next are taken from, to be computed before it is known whether they do. */
export type DraftUse = "off" | "lookup";

export interface EngineSettings {
  /** What people call the model; undefined = its file's name. */
  readonly modelName?: string | undefined;
  /** Tokens of prompt and answer of one request; undefined = the model's own, at most 8,192. */
  readonly contextTokens: number | undefined;
  /** Requests served at a time. */
  readonly sequences: number;
  /** Undefined = one for each physical core. */
  readonly threads: number | undefined;
  /** Most time between two tokens of an answer while others' prompts are read, in ms; undefined = as suits the device. */
  readonly maxGapMs?: number | undefined;
  readonly gpu: GpuUse;
  /** Which of the libraries for a GPU are taken, as the server has tried them; undefined = the best. */
  readonly gpuBuild?: string | undefined;
  /** A folder with llama.cpp's libraries, in place of the packages. */
  readonly llamaLib?: string | undefined;
  /** Layers on the GPU; undefined = all. */
  readonly gpuLayers: number | undefined;
  /** The same text bit for bit, whatever is cached and whoever else is served; slower. */
  readonly deterministic: boolean;
  /** Not in deterministic mode, where a step has one row of an answer. */
  readonly draft: DraftUse;
  /** The cache's socket; undefined = no cache. */
  readonly socketPath: string | undefined;
}
