/**
 * The embedded llama.cpp engine as the server sees it: an Engine whose model lives in a child process (engine-life.ts), and
 * whose texts become tokens in others (tokenizer.ts).
 *
 *     request ──text──► tokenizer ──tokens──► engine process ──events──► request
 */
import { within } from "../../../deadline.ts";
import type { SessionOptions } from "../../../session.ts";
import type {
  Asker,
  Engine,
  EngineStats,
  GenerateEvent,
  GenerateRequest,
  ModelInfo,
  PromptReport,
} from "../../../engine.ts";
import { RepriseError, assert } from "../../../errors.ts";
import type { Log } from "../../../log.ts";
import type { TierName } from "../../../tier.ts";
import { Deferred } from "./deferred.ts";
import type { EngineSettings } from "../engine-settings.ts";
import { EngineLife, engineLimits } from "./engine-life.ts";
import type { LifeState } from "./engine-life.ts";
import { type Exchange, Exchanges } from "./exchanges.ts";
import type { FromEngine, LoadedModel } from "../messages.ts";
import type { ModelFiles } from "../model/model-files.ts";
import { errorOf } from "../server-channel.ts";
import { checkPrompt, checkRequest, checkTextBytes, checkTokens } from "./request-check.ts";
import { type TextOwner, Tokenizer } from "./tokenizer.ts";
import { makeRoom } from "../turn-queue.ts";
import type { WatchLimits } from "./watchdog.ts";

export interface LlamaEngineOptions {
  /** A GGUF file; of a split model, its first part. */
  readonly modelPath: string;
  readonly settings: EngineSettings;
  /** In place of the model's own chat template, which it may have none of. */
  readonly chatTemplate?: string | undefined;
  /** Where the digest of the weights is remembered. */
  readonly dataDirectory: string;
  /** Requests that may wait for a sequence; more are refused. */
  readonly maxWaiting: number;
  /** The program of the tokenizer processes; ours unless given. */
  readonly tokenizerProgram?: string;
  /** That of the engine process: ours unless given. */
  readonly engineProgram?: string;
  /** That of the process that tries a GPU's libraries: ours unless given. */
  readonly probeProgram?: string;
  /** Its limits; those of gpu-probe.ts unless given. */
  readonly probeLimits?: WatchLimits;
  /** When a process without a sign of life is silent, and when it is ended; {@link engineLimits} unless given. */
  readonly watchLimits?: WatchLimits;
  readonly log: Log;
  /** Called with 0 to 1 while a model is loaded. */
  readonly onProgress?: (share: number) => void;
}

/** How long a request waits for a process that is being started again. */
const restartWaitMs = 60_000;

export class LlamaEngine implements Engine {
  readonly ready: Promise<ModelInfo>;
  readonly #options: LlamaEngineOptions;
  readonly #log: Log;
  readonly #exchanges = new Exchanges();
  readonly #life: EngineLife;
  readonly #texts: Tokenizer;
  #model: ModelInfo | undefined;
  readonly #totals = {
    promptTokens: 0,
    computedTokens: 0,
    generatedTokens: 0,
    draftedTokens: 0,
    acceptedTokens: 0,
    savedChunks: 0,
  };
  #unsavedChunks = 0;
  readonly #guest = new Deferred<SessionOptions>();
  readonly #reused: Partial<Record<TierName, number>> = {};

  private constructor(options: LlamaEngineOptions) {
    this.#options = options;
    this.#log = options.log.named("engine");
    const { settings, modelPath, dataDirectory, engineProgram } = options;
    this.#life = new EngineLife({
      launch: { settings, modelPath, dataDirectory, program: engineProgram },
      probe: { program: options.probeProgram, limits: options.probeLimits },
      log: this.#log,
      limits: options.watchLimits ?? engineLimits,
      onMessage: (message) => this.#receive(message),
      onLaunched: (files) => this.#useTexts(files),
      onLoaded: (model) => this.#loaded(model),
      onLost: (error) => {
        this.#unsavedChunks = 0;
        this.#exchanges.failAll(error);
      },
    });
    this.#texts = new Tokenizer({
      gpu: settings.gpu,
      llamaLib: settings.llamaLib,
      chatTemplate: options.chatTemplate,
      maxWaiting: settings.sequences + options.maxWaiting,
      program: options.tokenizerProgram,
      isBusy: () => this.stats().runningRequests > 0,
      log: options.log.named("tokenizer"),
    });
    this.ready = this.#life.serving.then(() => {
      assert(this.#model !== undefined, "an engine that serves has a model");
      return this.#model;
    });
    this.ready.catch(() => {}); // those who wait for it hear of it
  }

  /** Starts to load the model and returns at once; `ready` tells how it went. */
  static start(options: LlamaEngineOptions): LlamaEngine {
    const engine = new LlamaEngine(options);
    engine.#life.begin();
    return engine;
  }

  get model(): ModelInfo | undefined {
    return this.#model;
  }

  /** What this engine is to the cache; pending until it begins to use it, for ever if it never does. */
  get guest(): Promise<SessionOptions> {
    return this.#guest.promise;
  }

  /** Process id of the engine process, for whoever watches it. */
  get pid(): number | undefined {
    return this.#life.pid;
  }

  /** Those of the tokenizer's processes. */
  get tokenizerPids(): readonly number[] {
    return this.#texts.pids;
  }

  async *generate(request: GenerateRequest, signal: AbortSignal): AsyncGenerator<GenerateEvent, void, void> {
    this.#mustServe();
    const { tenant = "", salt, read, save } = request.cache;
    // Who is refused anyway, or has left, takes nobody's place in the queue.
    checkRequest(request, this.#loadedModel);
    this.#checkPrompt(request.prompt);
    if (signal.aborted) throw clientLeft();
    this.#makeRoom(tenant);
    const accepted = performance.now();
    const exchange = this.#exchanges.open(tenant);
    const left = new Deferred<never>();
    const leave = () => {
      const error = clientLeft();
      exchange.answers.fail(error);
      left.reject(error);
    };
    signal.addEventListener("abort", leave, { once: true });
    let ended = false;
    try {
      const owner = { tenant, salt: read && save ? salt : undefined, signal };
      const tokens = await this.#tokensOf(request.prompt, owner, left.promise);
      exchange.answers.mustGoOn();
      const { prompt: _prompt, ...rest } = request;
      this.#life.send({ kind: "generate", request: { ...rest, id: exchange.id, tokens } });
      while (!ended) {
        const event = await exchange.answers.next();
        ended = event.kind === "end";
        yield this.#count(event, accepted);
      }
    } catch (error) {
      if (error instanceof RepriseError && error.code !== "CANCELLED") ended = true;
      throw error;
    } finally {
      signal.removeEventListener("abort", leave);
      if (!ended) this.#cancel(exchange);
      this.#exchanges.close(exchange);
    }
  }

  async promptTokens(
    prompt: GenerateRequest["prompt"],
    { tenant = "", signal = neverAborted() }: Asker = {},
  ): Promise<Uint32Array> {
    this.#mustServe();
    const tokens = await this.#tokenize(prompt, { tenant, signal });
    checkPrompt(tokens, this.#loadedModel);
    return tokens;
  }

  async tokenize(text: string, options: { special: boolean; begin: boolean } & Asker): Promise<Uint32Array> {
    const { special, begin, tenant = "", signal = neverAborted() } = options;
    this.#mustServe();
    checkTextBytes(text, this.#loadedModel);
    const answer = await this.#texts.run({ kind: "tokenize", text, special, begin }, { tenant, signal });
    return answer as Uint32Array; // as tokenizer-process.ts answers this kind
  }

  async detokenize(tokens: Uint32Array, { tenant = "", signal = neverAborted() }: Asker = {}): Promise<string> {
    this.#mustServe();
    checkTokens(tokens, this.#loadedModel.vocabularySize, "tokens");
    return (await this.#texts.run({ kind: "detokenize", tokens }, { tenant, signal })) as string; // likewise
  }

  async pieces(
    tokens: Uint32Array,
    { tenant = "", signal = neverAborted() }: Asker = {},
  ): Promise<readonly Uint8Array[]> {
    this.#mustServe();
    checkTokens(tokens, this.#loadedModel.vocabularySize, "tokens");
    return (await this.#texts.run({ kind: "pieces", tokens }, { tenant, signal })) as readonly Uint8Array[]; // likewise
  }

  stats(): EngineStats {
    const { sequences } = this.#options.settings;
    const { count } = this.#exchanges;
    return {
      state: this.#life.isSilent ? "hung" : statsStates[this.#life.state],
      runningRequests: Math.min(sequences, count),
      waitingRequests: Math.max(0, count - sequences),
      sequences,
      restarts: this.#life.restarts,
      ...this.#totals,
      unsavedChunks: this.#unsavedChunks,
      reusedTokens: { ...this.#reused },
    };
  }

  /** Ends the processes; running requests fail with CANCELLED. */
  async [Symbol.asyncDispose](): Promise<void> {
    const error = new RepriseError("CANCELLED", "The server is shutting down");
    this.#exchanges.failAll(error);
    await Promise.all([this.#life.close(error), this.#texts[Symbol.asyncDispose]()]);
  }

  #receive(message: FromEngine): void {
    switch (message.kind) {
      case "progress":
        this.#options.onProgress?.(message.share);
        return;
      case "started":
        this.#setPhase(message.id, "prefill");
        return;
      case "events":
        for (const [id, event] of message.events) {
          if (event.kind === "prompt") this.#setPhase(id, "decoding");
          this.#exchanges.get(id)?.answers.push(event);
        }
        this.#unsavedChunks = message.unsavedChunks;
        return;
      case "failed":
        this.#exchanges.get(message.id)?.answers.fail(errorOf(message));
        return;
      case "saved":
        this.#totals.savedChunks += message.chunks;
        this.#unsavedChunks = message.unsavedChunks;
        return;
      case "guest":
        this.#guest.resolve(message.session);
        return;
      case "log":
        this.#log[message.level](message.message);
        return;
      case "ready":
      case "refused":
      case "gpu":
      case "connected":
      case "changed":
      case "pong":
        return; // of the process's life, not of requests
    }
  }

  #useTexts(files: ModelFiles): void {
    this.#texts.use(files);
    this.#texts.ready.catch((error: unknown) => {
      if (this.#life.state === "loading") this.#life.giveUp(error);
    });
  }

  /** A model serves once its texts can be read. */
  async #loaded({ info }: LoadedModel): Promise<void> {
    const { longestPieceBytes } = await this.#texts.ready;
    this.#model = { ...info, longestTextBytes: info.contextTokens * longestPieceBytes };
  }

  /** The prompt's tokens, when the process that they are for serves: a restart may have brought another vocabulary. */
  async #tokensOf(prompt: GenerateRequest["prompt"], asker: TextOwner, left: Promise<never>): Promise<Uint32Array> {
    for (;;) {
      const { identity } = this.#texts;
      const tokens = await this.#tokenize(prompt, asker);
      await Promise.race([this.#untilServing(), left]);
      if (identity !== this.#texts.identity) continue;
      checkPrompt(tokens, this.#loadedModel);
      return tokens;
    }
  }

  async #tokenize(prompt: GenerateRequest["prompt"], asker: TextOwner): Promise<Uint32Array> {
    if (prompt instanceof Uint32Array) return prompt;
    this.#checkPrompt(prompt); // a restart may have brought another model
    const task = { kind: "prompt", prompt, mostBytes: this.#loadedModel.longestTextBytes } as const;
    return (await this.#texts.run(task, asker)) as Uint32Array; // as tokenizer-process.ts answers this kind
  }

  /** @throws RepriseError BAD_REQUEST or PROMPT_TOO_LONG, as far as that is known before texts are tokens. */
  #checkPrompt(prompt: GenerateRequest["prompt"]): void {
    if (prompt instanceof Uint32Array) checkPrompt(prompt, this.#loadedModel);
    else if (typeof prompt === "string") checkTextBytes(prompt, this.#loadedModel, "prompt");
  }

  /** @throws RepriseError when no process serves or is about to. */
  #mustServe(): void {
    const { state } = this.#life;
    if (state === "loading")
      throw new RepriseError("ENGINE_LOADING", "The model is still being loaded; try again soon");
    if (state === "failed")
      throw new RepriseError("ENGINE_FAILED", "The model could not be loaded; see the server's log");
    if (state === "closed") throw new RepriseError("CANCELLED", "The server is shutting down");
    if (this.#life.isSilent)
      throw new RepriseError("ENGINE_FAILED", "The engine shows no sign of life; it is started again if that goes on");
  }

  /** @throws RepriseError ENGINE_LOADING when the process that is being started takes too long, ENGINE_FAILED when it cannot be. */
  async #untilServing(): Promise<void> {
    if ((await within(this.#life.serving, restartWaitMs)) !== "late") return;
    throw new RepriseError("ENGINE_LOADING", "The engine is still being started again; try again soon");
  }

  /** @throws RepriseError QUEUE_FULL when neither this tenant nor one with more in the queue can make room. */
  #makeRoom(tenant: string): void {
    const { maxWaiting, settings } = this.#options;
    const { sequences } = settings;
    if (this.#exchanges.count < sequences + maxWaiting) return;
    const full = `${sequences} requests run and ${maxWaiting} wait already; try again later`;
    makeRoom(this.#exchanges.waiting, tenant, full, (leaving, error) => {
      leaving.answers.fail(error);
      this.#cancel(leaving);
      this.#exchanges.close(leaving);
    });
  }

  get #loadedModel(): ModelInfo {
    assert(this.#model !== undefined, "an engine that serves has a model");
    return this.#model;
  }

  /** A decode that reads this request's prompt and nothing else is stopped: others lose nothing by it. */
  #cancel({ id, phase }: Exchange): void {
    if (phase === "prefill") this.#life.raiseAbort(id);
    this.#life.send({ kind: "cancel", id });
  }

  #setPhase(id: number, phase: Exchange["phase"]): void {
    const exchange = this.#exchanges.get(id);
    if (exchange !== undefined) exchange.phase = phase;
  }

  /** Keeps the totals; times to the first token are counted from when this process took the request. */
  #count(event: GenerateEvent, accepted: number): GenerateEvent {
    if (event.kind === "end") {
      this.#totals.generatedTokens += event.completionTokens;
      this.#totals.draftedTokens += event.draftedTokens ?? 0;
      this.#totals.acceptedTokens += event.acceptedTokens ?? 0;
    }
    if (event.kind !== "prompt") return event;
    const report: PromptReport = { ...event.report, ttftMs: performance.now() - accepted };
    this.#totals.promptTokens += report.promptTokens;
    this.#totals.computedTokens += report.computedTokens;
    for (const [tier, tokens] of Object.entries(report.reused) as [TierName, number][]) {
      this.#reused[tier] = (this.#reused[tier] ?? 0) + tokens;
    }
    return { kind: "prompt", report };
  }
}

const statsStates: Readonly<Record<LifeState, EngineStats["state"]>> = {
  loading: "loading",
  restarting: "loading",
  serving: "ready",
  failed: "failed",
  closed: "failed",
};

function clientLeft(): RepriseError {
  return new RepriseError("CANCELLED", "The client left before the answer was complete");
}

function neverAborted(): AbortSignal {
  return new AbortController().signal;
}
