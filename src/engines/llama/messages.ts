/**
 * What the server and its engine process say to each other, over Node's child-process channel (structured clone, in order).
 *
 *     server ──start──► process ──progress…──► ready │ refused
 *     server ──generate, cancel, weights, ping──► process
 *     server ◄──started, events, failed, saved, guest, connected, changed, pong, log── process
 */
import type { SessionOptions } from "../../session.ts";
import type { GenerateEvent, GenerateRequest, ModelInfo } from "../../engine.ts";
import type { LogLevel } from "../../log.ts";
import type { EngineSettings } from "./engine-settings.ts";
import type { InheritedFiles } from "./model/model-files.ts";
import type { WeightsDigest } from "./model/model-files.ts";
import type { Failure, Refused } from "./server-channel.ts";

export interface StartOptions {
  readonly settings: EngineSettings;
  readonly model: InheritedFiles;
  /** Descriptor of the file whose first byte stops a decode. */
  readonly abortFlag: number;
}

/** A request as the engine process takes it: the prompt is tokens, all fields are checked. */
export interface EngineRequest extends Omit<GenerateRequest, "prompt"> {
  /** Under which its events are told. */
  readonly id: number;
  readonly tokens: Uint32Array;
}

export type ToEngine =
  | { readonly kind: "start"; readonly options: StartOptions }
  /** SHA-256 of the model's files in the state of that identity: while they are in it the cache may be used. */
  | { readonly kind: "weights"; readonly weights: WeightsDigest }
  | { readonly kind: "generate"; readonly request: EngineRequest }
  | { readonly kind: "cancel"; readonly id: number }
  /** Answered between two steps. */
  | { readonly kind: "ping" };

/** What the server needs to know of a loaded model. */
export interface LoadedModel {
  readonly info: Omit<ModelInfo, "longestTextBytes">;
}

export type FromEngine =
  /** Libraries for a GPU are about to be opened, where others would do. */
  | { readonly kind: "gpu"; readonly build: string }
  /** Share of the weights read, 0 to 1. */
  | { readonly kind: "progress"; readonly share: number }
  | { readonly kind: "ready"; readonly model: LoadedModel }
  /** The model cannot be served. */
  | Refused
  /** The request left the queue: its prompt is being read from now on. */
  | { readonly kind: "started"; readonly id: number }
  /** All of a step's events. */
  | {
      readonly kind: "events";
      readonly events: readonly (readonly [id: number, event: GenerateEvent])[];
      readonly unsavedChunks: number;
    }
  | ({ readonly kind: "failed"; readonly id: number } & Failure)
  /** Chunks that the cache took, and how many still wait to be given to it. */
  | { readonly kind: "saved"; readonly chunks: number; readonly unsavedChunks: number }
  /** What this engine is to the cache. */
  | { readonly kind: "guest"; readonly session: SessionOptions }
  /** The cache answers: from now on requests find what is stored. */
  | { readonly kind: "connected" }
  | { readonly kind: "pong" }
  /** The model's files are not in the state that they were in: the cache is not used until it is said what they hold. */
  | { readonly kind: "changed" }
  | { readonly kind: "log"; readonly level: LogLevel; readonly message: string };
