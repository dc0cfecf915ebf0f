/**
 * Test support: an Engine without a model. Words are its tokens, it remembers prompts as a cache would, and a script says
 * what it answers, how slowly, and where it fails. Deterministic; honours signals as the contract asks.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { contentText } from "../../chat/content.ts";
import type { Engine, EngineStats, GenerateEvent, GenerateRequest, ModelInfo, TokenLogprob } from "../../engine.ts";
import { promptTooLong } from "../../engine.ts";
import { RepriseError } from "../../errors.ts";
import type { TierName } from "../../tier.ts";

/** How one request goes. */
export interface FakeAnswer {
  /** The pieces of text, one token each; endless is allowed. */
  readonly pieces: Iterable<string>;
  /** Thrown before the first event. */
  readonly refusal?: Error;
  readonly prefillMs?: number;
  readonly pieceMs?: number;
  /** Thrown after the last piece, in place of the end. */
  readonly failure?: Error;
}

export interface FakeEngineOptions {
  /** Default: says how many words it read. */
  readonly script?: (request: GenerateRequest, promptTokens: number) => FakeAnswer;
  readonly state?: EngineStats["state"];
  /** The tier that a remembered prompt is found in. */
  readonly warmTier?: TierName;
  readonly contextTokens?: number;
  readonly reuse?: ModelInfo["reuse"];
  /** Bytes of tokens, where they are other than their word's. */
  readonly pieces?: Readonly<Record<number, Uint8Array>>;
}

export const fakeModel: ModelInfo = {
  name: "fake-1b",
  contextTokens: 4096,
  longestTextBytes: 4096 * 1024,
  vocabularySize: 50_000,
  architecture: "fake",
  parameters: 1_000_000_000,
  created: 1_700_000_000,
  reuse: true,
};

export class FakeEngine implements Engine {
  readonly ready: Promise<ModelInfo>;
  readonly model: ModelInfo | undefined;
  /** Every request as it arrived. */
  readonly requests: GenerateRequest[] = [];
  /** Events handed out so far, over all requests. */
  events = 0;
  state: EngineStats["state"];

  readonly #options: FakeEngineOptions;
  readonly #ids = new Map<string, number>();
  readonly #words: string[] = [];
  readonly #remembered = new Map<string, string[][]>();
  readonly #totals = { promptTokens: 0, computedTokens: 0, generatedTokens: 0, reusedTokens: 0 };
  #running = 0;

  constructor(options: FakeEngineOptions = {}) {
    this.#options = options;
    this.state = options.state ?? "ready";
    const { contextTokens = 4096, reuse = true } = options;
    this.model = this.state === "ready" ? { ...fakeModel, contextTokens, reuse } : undefined;
    this.ready = this.model === undefined ? new Promise(() => {}) : Promise.resolve(this.model);
  }

  async *generate(request: GenerateRequest, signal: AbortSignal): AsyncGenerator<GenerateEvent, void> {
    this.requests.push(request);
    this.#running += 1;
    try {
      for await (const event of this.#answer(request, signal)) {
        this.events += 1;
        yield event;
      }
    } finally {
      this.#running -= 1;
    }
  }

  async *#answer(request: GenerateRequest, signal: AbortSignal): AsyncGenerator<GenerateEvent, void> {
    const words = wordsOf(textOf(request));
    const answer = this.#script(request, words.length);
    if (answer.refusal !== undefined) throw answer.refusal;
    if (words.length > (this.model?.contextTokens ?? 0)) {
      throw promptTooLong(words.length, this.model?.contextTokens ?? 0);
    }
    await pause(answer.prefillMs ?? 0, signal);
    const reusedTokens = this.#reuse(request, words);
    const computedTokens = words.length - reusedTokens;
    this.#totals.promptTokens += words.length;
    this.#totals.computedTokens += computedTokens;
    this.#totals.reusedTokens += reusedTokens;
    yield {
      kind: "prompt",
      report: {
        promptTokens: words.length,
        computedTokens,
        reused: { [this.#warmTier]: reusedTokens },
        anywhereTokens: 0,
        ttftMs: 1 + computedTokens * 2,
        prefillMs: computedTokens * 2,
        loadMs: reusedTokens === 0 ? 0 : 1,
      },
    };
    let count = 0;
    for (const text of answer.pieces) {
      if (count === request.maxTokens) {
        yield { kind: "end", reason: "length", completionTokens: count };
        return;
      }
      await pause(answer.pieceMs ?? 0, signal);
      count += 1;
      this.#totals.generatedTokens += 1;
      yield this.#piece(text, request);
    }
    if (answer.failure !== undefined) throw answer.failure;
    yield { kind: "end", reason: "stop", completionTokens: count };
  }

  async promptTokens(prompt: GenerateRequest["prompt"]): Promise<Uint32Array> {
    if (prompt instanceof Uint32Array) return prompt;
    const words = wordsOf(textOf({ prompt }));
    const { contextTokens = 4096 } = this.#options;
    if (words.length >= contextTokens) throw promptTooLong(words.length, contextTokens);
    return Uint32Array.from(words.map((word) => this.#idOf(word)));
  }

  async tokenize(text: string, options: { special: boolean; begin: boolean }): Promise<Uint32Array> {
    return Uint32Array.from([...(options.begin ? ["<s>"] : []), ...wordsOf(text)].map((word) => this.#idOf(word)));
  }

  async detokenize(tokens: Uint32Array): Promise<string> {
    return Array.from(tokens, (token) => this.#words[token] ?? "?").join("");
  }

  async pieces(tokens: Uint32Array): Promise<readonly Uint8Array[]> {
    return Array.from(tokens, (token) => this.#options.pieces?.[token] ?? Buffer.from(this.#words[token] ?? "?"));
  }

  stats(): EngineStats {
    const { reusedTokens, ...totals } = this.#totals;
    return {
      state: this.state,
      runningRequests: this.#running,
      waitingRequests: 0,
      sequences: 4,
      restarts: 0,
      draftedTokens: 0,
      acceptedTokens: 0,
      ...totals,
      reusedTokens: { [this.#warmTier]: reusedTokens },
      unsavedChunks: 0,
      savedChunks: 0,
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {}

  get #warmTier(): TierName {
    return this.#options.warmTier ?? "memory";
  }

  #script(request: GenerateRequest, promptTokens: number): FakeAnswer {
    if (this.#options.script !== undefined) return this.#options.script(request, promptTokens);
    return { pieces: ["I", " read", ` ${promptTokens}`, " words", "."] };
  }

  /** The longest beginning shared with a remembered prompt of the same salt; the last word is always computed. */
  #reuse(request: GenerateRequest, words: string[]): number {
    const { salt, read, save } = request.cache;
    const remembered = this.#remembered.get(salt) ?? [];
    let best = 0;
    for (const known of read ? remembered : []) {
      let length = 0;
      while (length < words.length - 1 && known[length] === words[length]) length += 1;
      best = Math.max(best, length);
    }
    if (save) this.#remembered.set(salt, [...remembered.slice(-15), words]);
    return best;
  }

  #piece(text: string, request: GenerateRequest): GenerateEvent {
    const token = this.#idOf(text);
    if (request.logprobs === undefined) return { kind: "text", text, tokens: [token] };
    const chosen: TokenLogprob = { token, text, bytes: [...Buffer.from(text)], logprob: -0.25 };
    const top = Array.from({ length: request.logprobs }, (_, rank) =>
      rank === 0 ? chosen : { token: 0, text: `other${rank}`, bytes: [0x6f], logprob: -rank },
    );
    return { kind: "text", text, tokens: [token], logprobs: [{ ...chosen, top }] };
  }

  #idOf(word: string): number {
    const known = this.#ids.get(word);
    if (known !== undefined) return known;
    this.#ids.set(word, this.#words.length);
    return this.#words.push(word) - 1;
  }
}

/** Words with the space before them, so that joining gives the text back. */
function wordsOf(text: string): string[] {
  return text.match(/\s*\S+|\s+$/g) ?? [];
}

function textOf({ prompt }: Pick<GenerateRequest, "prompt">): string {
  if (typeof prompt === "string") return prompt;
  if (prompt instanceof Uint32Array) return Array.from(prompt, (token) => ` t${token}`).join("");
  return prompt.messages.map((message) => `<${message.role}> ${contentText(message.content)}`).join("\n");
}

/** Gives the event loop a turn even for 0 ms: an endless answer must not be one synchronous loop. */
async function pause(ms: number, signal: AbortSignal): Promise<void> {
  try {
    if (ms > 0) await sleep(ms, undefined, { signal });
    else await new Promise((resolve) => setImmediate(resolve));
  } catch (cause) {
    throw new RepriseError("CANCELLED", "The request was cancelled.", { cause });
  }
  if (signal.aborted) throw new RepriseError("CANCELLED", "The request was cancelled.");
}
