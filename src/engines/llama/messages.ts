/**
 * What the server and its engine process say to each other, over Node's child-process channel (structured clone, in order).
 *
 *     server ──start──► process ──progress…──► ready │ refused
 *     server ──generate, cancel, tokenize, detokenize, weights──► process
 *     server ◄──started, events, failed, tokens, text, saved, guest, connected, log── process
 */
import type { SessionOptions } from "../../cache/session.ts";
import type { CacheUse, GenerateEvent, ModelInfo, Sampling } from "../../engine.ts";
import type { ErrorCode } from "../../errors.ts";
import type { LogLevel } from "../../log.ts";
import type { GpuUse } from "./library.ts";

export interface StartOptions {
  readonly modelPath: string;
  /** Tokens of prompt and answer of one request; undefined = the model's own, at most {@link defaultContextTokens}. */
  readonly contextTokens: number | undefined;
  /** Requests served at a time. */
  readonly slots: number;
  /** Undefined = one for each physical core. */
  readonly threads: number | undefined;
  readonly gpu: GpuUse;
  readonly gpuLayers: number | undefined;
  readonly deterministic: boolean;
  readonly chunkTokens: number;
  /** The cache's socket; undefined = no cache. */
  readonly socketPath: string | undefined;
  /** File whose first byte stops a decode. */
  readonly abortFlagPath: string;
}

/** Context of a request when nothing else is said: KV for every slot is taken at the start, so long contexts are asked for. */
export const defaultContextTokens = 8192;

export interface GenerateMessage {
  readonly kind: "generate";
  readonly id: number;
  /** A text still has to be tokenized; special tokens in it count as such. */
  readonly prompt: { readonly text: string; readonly begin: boolean } | { readonly tokens: Uint32Array };
  readonly sampling: Sampling;
  readonly maxTokens: number;
  readonly stop: readonly string[];
  readonly ignoreEnd: boolean;
  readonly logprobs: number | undefined;
  readonly cache: CacheUse;
}

export type ToEngine =
  | { readonly kind: "start"; readonly options: StartOptions }
  /** SHA-256 of the model's files: from now on the cache may be used. */
  | { readonly kind: "weights"; readonly digest: string }
  | GenerateMessage
  | { readonly kind: "cancel"; readonly id: number }
  | {
      readonly kind: "tokenize";
      readonly id: number;
      readonly text: string;
      readonly special: boolean;
      readonly begin: boolean;
    }
  | { readonly kind: "detokenize"; readonly id: number; readonly tokens: Uint32Array };

/** What the server needs to know of a loaded model. */
export interface LoadedModel {
  readonly info: ModelInfo;
  /** The Jinja template, undefined when the file has none. */
  readonly chatTemplate: string | undefined;
  readonly beginText: string;
  readonly endText: string;
}

export type FromEngine =
  /** Share of the weights read, 0 to 1. */
  | { readonly kind: "progress"; readonly share: number }
  | { readonly kind: "ready"; readonly model: LoadedModel }
  /** The model cannot be served; the process ends. */
  | { readonly kind: "refused"; readonly code: ErrorCode; readonly message: string }
  /** The request left the queue: its prompt is being read from now on. */
  | { readonly kind: "started"; readonly id: number }
  /** All of a step's events. */
  | {
      readonly kind: "events";
      readonly events: readonly (readonly [id: number, event: GenerateEvent])[];
      readonly unsavedChunks: number;
    }
  | {
      readonly kind: "failed";
      readonly id: number;
      readonly code: ErrorCode;
      readonly message: string;
      readonly field: string | undefined;
    }
  | { readonly kind: "tokens"; readonly id: number; readonly tokens: Uint32Array }
  | { readonly kind: "text"; readonly id: number; readonly text: string }
  /** Chunks that the cache took, and how many still wait to be given to it. */
  | { readonly kind: "saved"; readonly chunks: number; readonly unsavedChunks: number }
  /** What this engine is to the cache. */
  | { readonly kind: "guest"; readonly session: SessionOptions }
  /** The cache answers: from now on requests find what is stored. */
  | { readonly kind: "connected" }
  | { readonly kind: "log"; readonly level: LogLevel; readonly message: string };
