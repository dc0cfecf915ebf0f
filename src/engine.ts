/**
 * An engine: something that reads a prompt and writes an answer. http/ knows engines only by this interface; the
 * embedded llama.cpp engine (engines/llama) implements it, with the model in a child process.
 */
import type { TierName } from "./tier.ts";

/** A message of a chat, as the chat template receives it. */
export interface ChatMessage {
  readonly role: string;
  readonly content: string;
  readonly [field: string]: unknown;
}

export interface ChatPrompt {
  readonly messages: readonly ChatMessage[];
  /** Tool definitions, handed to the template as they came. */
  readonly tools?: readonly unknown[];
  /** Extra variables for the template (`chat_template_kwargs`). */
  readonly templateArguments?: Readonly<Record<string, unknown>>;
}

/** How the next token is chosen. Defaults are those of the OpenAI API, except that `temperature` 0 means greedy. */
export interface Sampling {
  readonly temperature: number;
  /** 0 = off. */
  readonly topK: number;
  /** 1 = off. */
  readonly topP: number;
  /** 0 = off. */
  readonly minP: number;
  /** 1 = off. */
  readonly repeatPenalty: number;
  /** 0 = off. */
  readonly frequencyPenalty: number;
  /** 0 = off. */
  readonly presencePenalty: number;
  /** Unsigned 32 bits; undefined = chosen at random. */
  readonly seed?: number;
}

export const greedy: Sampling = {
  temperature: 0,
  topK: 0,
  topP: 1,
  minP: 0,
  repeatPenalty: 1,
  frequencyPenalty: 0,
  presencePenalty: 0,
};

/** Which parts of the cache a request uses. */
export interface CacheUse {
  /** The tenant's salt; "" when there is none. */
  readonly salt: string;
  /** May stored KV be read? */
  readonly read: boolean;
  /** May this request's KV be stored? */
  readonly save: boolean;
}

export interface GenerateRequest {
  /** A chat (rendered by the model's template), a text, or token ids. */
  readonly prompt: ChatPrompt | string | Uint32Array;
  readonly sampling: Sampling;
  /** Tokens to generate at most; the context's end is a limit as well. At least 1. */
  readonly maxTokens: number;
  /** Generation ends before any of these texts. */
  readonly stop: readonly string[];
  /** Never draw an end-of-generation token (for benchmarks). */
  readonly ignoreEnd?: boolean;
  /** Alternatives to report for each token: undefined = no logprobs, 0 = the chosen token's alone. */
  readonly logprobs?: number;
  readonly cache: CacheUse;
}

export interface TokenLogprob {
  readonly token: number;
  readonly text: string;
  /** The token's own bytes, which may be a part of a character. */
  readonly bytes: readonly number[];
  /** Natural logarithm of the token's probability before temperature and filters. */
  readonly logprob: number;
}

/** Where the prompt's tokens came from and what it took. */
export interface PromptReport {
  readonly promptTokens: number;
  /** Tokens that went through the model. */
  readonly computedTokens: number;
  readonly reused: Partial<Record<TierName, number>>;
  /** Tokens reused away from their old context. */
  readonly anywhereTokens: number;
  /** From the engine's acceptance of the request to its first token. */
  readonly ttftMs: number;
  readonly prefillMs: number;
  readonly loadMs: number;
}

export type GenerateEvent =
  /** Once, just before the first text: the prompt is read. */
  | { readonly kind: "prompt"; readonly report: PromptReport }
  /** Some text: whole characters only. One or more tokens; `logprobs` when asked for. */
  | {
      readonly kind: "text";
      readonly text: string;
      readonly tokens: readonly number[];
      readonly logprobs?: readonly (TokenLogprob & { readonly top: readonly TokenLogprob[] })[];
    }
  /** Once, last. */
  | { readonly kind: "end"; readonly reason: "stop" | "length"; readonly completionTokens: number };

export interface ModelInfo {
  /** The file's name without its extension. */
  readonly name: string;
  /** Tokens of prompt and answer together that one request may have. */
  readonly contextTokens: number;
  readonly vocabularySize: number;
  /** "llama", "qwen3", … */
  readonly architecture: string;
  readonly parameters: number;
  /** Unix time in seconds of the file's last change. */
  readonly created: number;
  /** False when the family's KV cannot be reused (and the reason). */
  readonly reuse: true | { readonly refused: string };
}

export interface EngineStats {
  readonly state: "loading" | "ready" | "failed";
  readonly runningRequests: number;
  readonly waitingRequests: number;
  readonly slots: number;
  /** Times the engine process was started again after it died. */
  readonly restarts: number;
  /** Since the server's start. */
  readonly promptTokens: number;
  readonly computedTokens: number;
  readonly generatedTokens: number;
  readonly reusedTokens: Partial<Record<TierName, number>>;
  readonly savedChunks: number;
  /** Chunks of answered requests that are not handed to the cache yet. */
  readonly unsavedChunks: number;
}

export interface Engine extends AsyncDisposable {
  /** Resolves when the model is loaded. @throws RepriseError when it cannot be. */
  readonly ready: Promise<ModelInfo>;
  /** Undefined until the model is loaded for the first time. */
  readonly model: ModelInfo | undefined;

  /**
   * Runs a request. Leaving the loop, or `signal`, stops the work: a running prefill within 200 ms.
   *
   * @throws RepriseError PROMPT_TOO_LONG, BAD_REQUEST (with the field), QUEUE_FULL, ENGINE_LOADING, ENGINE_FAILED, CANCELLED;
   *   all but ENGINE_FAILED and CANCELLED before the first event.
   */
  generate(request: GenerateRequest, signal: AbortSignal): AsyncIterable<GenerateEvent>;

  /** Token ids of a text. `special`: read `<|…|>` as the special tokens they name. `begin`: put the model's BOS before it. */
  tokenize(text: string, options: { special: boolean; begin: boolean }): Promise<Uint32Array>;
  detokenize(tokens: Uint32Array): Promise<string>;

  stats(): EngineStats;
}
