/**
 * An engine: something that reads a prompt and writes an answer. http/ knows engines only by this interface; the
 * embedded llama.cpp engine (engines/llama) implements it, with the model in a child process.
 */
import { RepriseError } from "./errors.ts";
import type { TierName } from "./tier.ts";

/**
 * A part of what a message says. There is one kind yet, because models here read only text; APIs refuse others by their
 * names. Another is a further member of this union, and whoever reads contents is told by the compiler.
 */
export type ContentBlock = { readonly kind: "text"; readonly text: string };

/** A message of a chat. All fields but the content reach the chat template as they are. */
export interface ChatMessage {
  readonly role: string;
  /** Empty: it says nothing, such as one that only calls tools. */
  readonly content: readonly ContentBlock[];
  readonly [field: string]: unknown;
}

export interface ChatPrompt {
  readonly messages: readonly ChatMessage[];
  /** Tool definitions, handed to the template as they came. */
  readonly tools?: readonly unknown[];
  /** Extra variables for the template (`chat_template_kwargs`). */
  readonly templateArguments?: Readonly<Record<string, unknown>>;
  /**
   * What follows the messages: "answer" opens the assistant's turn (the default), "nothing" does not, "continued" leaves
   * the last message open, so that the model writes on where it ends.
   */
  readonly ending?: "answer" | "nothing" | "continued";
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
  /** Added to tokens' logits; -Infinity is never. */
  readonly logitBias?: readonly TokenBias[];
}

export type TokenBias = readonly [token: number, bias: number];

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
  /**
   * Who asks: tenants take turns, and share the queue and the cache's memory. Undefined: all who ask so take turns as one, and
   * each salt has a share of the memory of its own.
   */
  readonly tenant?: string | undefined;
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
  /** And before any of these tokens. */
  readonly stopTokens?: readonly number[];
  /** Nothing ends the generation before it has so many tokens, but `maxTokens` and the context. */
  readonly minTokens?: number;
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
  | {
      readonly kind: "end";
      readonly reason: "stop" | "length";
      readonly completionTokens: number;
      /** Where tokens are drafted: how many were computed, and how many of them are of the answer. */
      readonly draftedTokens?: number;
      readonly acceptedTokens?: number;
    };

export interface ModelInfo {
  /** The file's name without its extension. */
  readonly name: string;
  /** Tokens of prompt and answer together that one request may have. */
  readonly contextTokens: number;
  /** UTF-8 bytes of the longest text that may be sent: one of more would not fit into the context. */
  readonly longestTextBytes: number;
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
  /** "hung": it has shown no sign of life for a while, and is started again if that goes on. */
  readonly state: "loading" | "ready" | "hung" | "failed";
  readonly runningRequests: number;
  readonly waitingRequests: number;
  readonly sequences: number;
  /** Times the engine process was started again after it died. */
  readonly restarts: number;
  /** Since the server's start. */
  readonly promptTokens: number;
  readonly computedTokens: number;
  readonly generatedTokens: number;
  /** Computed as what may come next in an answer, and those of them that did. */
  readonly draftedTokens: number;
  readonly acceptedTokens: number;
  readonly reusedTokens: Partial<Record<TierName, number>>;
  readonly savedChunks: number;
  /** Chunks of answered requests that are not handed to the cache yet. */
  readonly unsavedChunks: number;
}

/** Whose text it is, and until when it is wanted. */
export interface Asker {
  /** As {@link CacheUse.tenant}. */
  readonly tenant?: string | undefined;
  readonly signal?: AbortSignal;
}

export interface Engine extends AsyncDisposable {
  /** Resolves when the model is loaded. @throws RepriseError when it cannot be. */
  readonly ready: Promise<ModelInfo>;
  /** Undefined until the model is loaded for the first time. */
  readonly model: ModelInfo | undefined;

  /**
   * Runs a request. Leaving the loop, or `signal`, stops the work: a running prefill within 200 ms.
   *
   * @throws RepriseError PROMPT_TOO_LONG, TEXT_NOT_TOKENIZABLE, BAD_REQUEST (with the field), QUEUE_FULL, ENGINE_LOADING,
   *   ENGINE_FAILED, CANCELLED; all but ENGINE_FAILED and CANCELLED before the first event.
   */
  generate(request: GenerateRequest, signal: AbortSignal): AsyncIterable<GenerateEvent>;

  /**
   * The tokens of a prompt, as {@link generate} reads it.
   *
   * @throws RepriseError as {@link generate}
   */
  promptTokens(prompt: GenerateRequest["prompt"], options?: Asker): Promise<Uint32Array>;

  /**
   * Token ids of a text. `special`: read `<|…|>` as the special tokens they name. `begin`: put the model's BOS before it.
   *
   * @throws RepriseError as {@link generate}
   */
  tokenize(text: string, options: { special: boolean; begin: boolean } & Asker): Promise<Uint32Array>;
  /** @throws RepriseError as {@link generate} */
  detokenize(tokens: Uint32Array, options?: Asker): Promise<string>;
  /**
   * Each token's own bytes, which may be a part of a character; those of special tokens are their names.
   *
   * @throws RepriseError as {@link generate}
   */
  pieces(tokens: Uint32Array, options?: Asker): Promise<readonly Uint8Array[]>;

  stats(): EngineStats;
}

/**
 * The refusal of a prompt that the context does not hold. Clients look for "maximum context length" to shorten it and ask
 * again.
 *
 * @param promptTokens a number, or words such as "more than 9000" where nobody counted to the end
 */
export function promptTooLong(promptTokens: number | string, contextTokens: number): RepriseError {
  return new RepriseError(
    "PROMPT_TOO_LONG",
    `The prompt has ${promptTokens} tokens, and this model's maximum context length is ${contextTokens} tokens, answer included; send a shorter one`,
    { field: "prompt" },
  );
}
