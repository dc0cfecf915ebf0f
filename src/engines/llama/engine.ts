/**
 * The embedded llama.cpp engine as the server sees it: an Engine whose model lives in a child process.
 *
 *     loading ──ready──► serving ──process died──► restarting ──ready──► serving
 *        └──refused──► failed          (running requests fail, new ones wait; tries again after a pause that doubles)
 */
import { within } from "../../cache/deadline.ts";
import type { SessionOptions } from "../../cache/session.ts";
import type { Engine, EngineStats, GenerateEvent, GenerateRequest, ModelInfo, PromptReport } from "../../engine.ts";
import { RepriseError, assert, describe } from "../../errors.ts";
import type { Log } from "../../log.ts";
import type { TierName } from "../../tier.ts";
import { ChatTemplate } from "./chat-template.ts";
import { EngineChild } from "./child.ts";
import { Deferred } from "./deferred.ts";
import { type Exchange, Exchanges } from "./exchanges.ts";
import { checkModelFile } from "./gguf-header.ts";
import type { GpuUse } from "./library.ts";
import type { FromEngine, GenerateMessage, LoadedModel, ToEngine } from "./messages.ts";
import { checkRequest } from "./request-check.ts";
import { weightsDigest } from "./weights-digest.ts";

export interface LlamaEngineOptions {
  /** A GGUF file; of a split model, its first part. */
  readonly modelPath: string;
  /** Tokens of prompt and answer of one request; undefined = the model's own, at most 8,192. */
  readonly contextTokens?: number | undefined;
  /** Requests served at a time. */
  readonly slots: number;
  /** Undefined = one for each physical core. */
  readonly threads?: number | undefined;
  readonly gpu: GpuUse;
  /** Layers on the GPU; undefined = all. */
  readonly gpuLayers?: number | undefined;
  /** The same text bit for bit, whatever is cached and whoever else is served; slower. */
  readonly deterministic: boolean;
  /** The cache's socket; undefined = no cache. */
  readonly socketPath: string | undefined;
  /** Where the digest of the weights is remembered. */
  readonly dataDirectory: string;
  /** Requests that may wait for a slot; more are refused. */
  readonly maxWaiting: number;
  /** Tokens per stored chunk; 64 unless given. */
  readonly chunkTokens?: number;
  readonly log: Log;
  /** Called with 0 to 1 while a model is loaded. */
  readonly onProgress?: (share: number) => void;
}

/** Pauses before the process is started again; the first after it served for a while. */
const firstPauseMs = 200;
const longestPauseMs = 30_000;
const servedWellMs = 60_000;
/** How long a loaded model waits for the cache before it serves without. */
const connectWaitMs = 1000;

type State = "loading" | "serving" | "restarting" | "failed" | "closed";

export class LlamaEngine implements Engine {
  readonly ready: Promise<ModelInfo>;
  readonly #options: LlamaEngineOptions;
  readonly #log: Log;
  readonly #exchanges = new Exchanges();
  readonly #closing = new AbortController();
  #state: State = "loading";
  #child: EngineChild | undefined;
  #model: ModelInfo | undefined;
  #template: ChatTemplate | undefined;
  #digest: string | undefined;
  /** Settles when the process that is being started serves, or cannot. */
  #serving = new Deferred<void>();
  #restarts = 0;
  #pauseMs = firstPauseMs;
  #readyAt = 0;
  #restartTimer: NodeJS.Timeout | undefined;
  readonly #totals = { promptTokens: 0, computedTokens: 0, generatedTokens: 0, savedChunks: 0 };
  #unsavedChunks = 0;
  /** Settles when the process that was just loaded has the cache. */
  #connected: Deferred<void> | undefined;
  readonly #guest = new Deferred<SessionOptions>();
  readonly #reused: Partial<Record<TierName, number>> = {};

  private constructor(options: LlamaEngineOptions) {
    this.#options = options;
    this.#log = options.log.named("engine");
    this.ready = this.#serving.promise.then(() => {
      assert(this.#model !== undefined, "an engine that serves has a model");
      return this.#model;
    });
    this.ready.catch(() => {}); // those who wait for it hear of it
  }

  /** Starts to load the model and returns at once; `ready` tells how it went. */
  static start(options: LlamaEngineOptions): LlamaEngine {
    const engine = new LlamaEngine(options);
    try {
      checkModelFile(options.modelPath);
    } catch (error) {
      engine.#giveUp(error);
      return engine;
    }
    engine.#launch();
    void engine.#digestWeights();
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
    return this.#child?.pid;
  }

  async *generate(request: GenerateRequest, signal: AbortSignal): AsyncGenerator<GenerateEvent, void, void> {
    this.#mustServe();
    const { slots, maxWaiting } = this.#options;
    if (this.#exchanges.generations >= slots + maxWaiting) {
      throw new RepriseError("QUEUE_FULL", `${slots} requests run and ${maxWaiting} wait already; try again later`);
    }
    checkRequest(request);
    const accepted = performance.now();
    const exchange = this.#exchanges.open("generation");
    const left = new Deferred<never>();
    const leave = () => {
      const error = new RepriseError("CANCELLED", "The client left before the answer was complete");
      exchange.answers.fail(error);
      left.reject(error);
    };
    if (signal.aborted) leave();
    signal.addEventListener("abort", leave, { once: true });
    let ended = false;
    try {
      await Promise.race([this.#serving.promise, left.promise]);
      this.#tell(this.#message(exchange.id, request));
      while (!ended) {
        const event = (await exchange.answers.next()) as GenerateEvent; // generations are answered by events
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

  async tokenize(text: string, options: { special: boolean; begin: boolean }): Promise<Uint32Array> {
    const answer = await this.#ask((id) => ({ kind: "tokenize", id, text, ...options }));
    return answer as Uint32Array; // as messages.ts pairs them
  }

  async detokenize(tokens: Uint32Array): Promise<string> {
    return (await this.#ask((id) => ({ kind: "detokenize", id, tokens }))) as string; // as messages.ts pairs them
  }

  stats(): EngineStats {
    const { slots } = this.#options;
    const states = {
      loading: "loading",
      restarting: "loading",
      serving: "ready",
      failed: "failed",
      closed: "failed",
    } as const;
    return {
      state: states[this.#state],
      runningRequests: Math.min(slots, this.#exchanges.generations),
      waitingRequests: Math.max(0, this.#exchanges.generations - slots),
      slots,
      restarts: this.#restarts,
      ...this.#totals,
      unsavedChunks: this.#unsavedChunks,
      reusedTokens: { ...this.#reused },
    };
  }

  /** Ends the process; running requests fail with CANCELLED. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#state = "closed";
    this.#closing.abort();
    clearTimeout(this.#restartTimer);
    const error = new RepriseError("CANCELLED", "The server is shutting down");
    this.#serving.reject(error);
    this.#exchanges.failAll(error);
    await this.#child?.kill();
  }

  #launch(): void {
    const { modelPath, contextTokens, slots, threads, gpu, gpuLayers, deterministic, socketPath } = this.#options;
    const { chunkTokens = 64 } = this.#options;
    const start = { modelPath, contextTokens, slots, threads, gpu, gpuLayers, deterministic, socketPath, chunkTokens };
    const child: EngineChild = new EngineChild({
      start,
      log: this.#log,
      onMessage: (message) => this.#receive(message),
      onExit: (how) => this.#exited(how),
    });
    this.#child = child;
  }

  #receive(message: FromEngine): void {
    switch (message.kind) {
      case "progress":
        this.#options.onProgress?.(message.share);
        return;
      case "ready":
        this.#loaded(message.model);
        return;
      case "connected":
        this.#connected?.resolve();
        return;
      case "refused":
        this.#refused(new RepriseError(message.code, message.message));
        return;
      case "started":
        this.#setPhase(message.id, "reading");
        return;
      case "events":
        for (const [id, event] of message.events) {
          if (event.kind === "prompt") this.#setPhase(id, "decoding");
          this.#exchanges.get(id)?.answers.push(event);
        }
        this.#unsavedChunks = message.unsavedChunks;
        return;
      case "failed": {
        const { code, field } = message;
        this.#exchanges
          .get(message.id)
          ?.answers.fail(new RepriseError(code, message.message, field === undefined ? {} : { field }));
        return;
      }
      case "tokens":
        this.#exchanges.get(message.id)?.answers.push(message.tokens);
        return;
      case "text":
        this.#exchanges.get(message.id)?.answers.push(message.text);
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
    }
  }

  #loaded(model: LoadedModel): void {
    if (this.#state === "closed") return;
    try {
      this.#template = new ChatTemplate(model);
    } catch (error) {
      this.#giveUp(error);
      void this.#child?.kill();
      return;
    }
    this.#model = model.info;
    void this.#serveOnceConnected(this.#child, model.info);
  }

  /** The first request after a restart shall find what is stored: a short wait for the cache, where it can be used at once. */
  async #serveOnceConnected(child: EngineChild | undefined, { reuse }: ModelInfo): Promise<void> {
    if (this.#digest !== undefined) {
      this.#connected = new Deferred<void>();
      this.#tell({ kind: "weights", digest: this.#digest });
      if (reuse === true) await within(this.#connected.promise, connectWaitMs);
    }
    if (this.#child !== child || (this.#state !== "loading" && this.#state !== "restarting")) return;
    this.#state = "serving";
    this.#readyAt = performance.now();
    this.#serving.resolve();
  }

  /** The first load decides: what a restart meets may pass. */
  #refused(error: RepriseError): void {
    if (this.#state === "loading") this.#giveUp(error);
    else this.#log.error(`the model cannot be loaded again: ${error.message}`);
  }

  #exited(how: string): void {
    if (this.#state === "closed" || this.#state === "failed") return;
    const error = new RepriseError("ENGINE_FAILED", `The engine process is gone: ${how}`);
    this.#unsavedChunks = 0;
    if (this.#state === "loading") {
      this.#giveUp(error);
      return;
    }
    this.#log.error(`the engine process is gone, starting it again: ${how}`);
    if (this.#state === "serving" && performance.now() - this.#readyAt > servedWellMs) this.#pauseMs = firstPauseMs;
    this.#serving.reject(error); // a restart that failed; the first time this has long been resolved
    this.#exchanges.failAll(error);
    this.#state = "restarting";
    this.#serving = new Deferred<void>();
    this.#restartTimer = setTimeout(() => {
      this.#restarts += 1;
      this.#launch();
    }, this.#pauseMs);
    this.#pauseMs = Math.min(2 * this.#pauseMs, longestPauseMs);
  }

  #giveUp(error: unknown): void {
    this.#state = "failed";
    this.#serving.reject(error);
    this.#exchanges.failAll(error);
  }

  /** @throws RepriseError when no process serves or is about to. */
  #mustServe(): void {
    if (this.#state === "loading")
      throw new RepriseError("ENGINE_LOADING", "The model is still being loaded; try again soon");
    if (this.#state === "failed")
      throw new RepriseError("ENGINE_FAILED", "The model could not be loaded; see the server's log");
    if (this.#state === "closed") throw new RepriseError("CANCELLED", "The server is shutting down");
  }

  async #ask(message: (id: number) => ToEngine): Promise<unknown> {
    this.#mustServe();
    const exchange = this.#exchanges.open("question");
    try {
      await this.#serving.promise;
      this.#tell(message(exchange.id));
      return await exchange.answers.next();
    } finally {
      this.#exchanges.close(exchange);
    }
  }

  #message(id: number, request: GenerateRequest): GenerateMessage {
    const { prompt, sampling, maxTokens, stop, ignoreEnd = false, logprobs, cache } = request;
    return {
      kind: "generate",
      id,
      prompt: this.#promptOf(prompt),
      sampling,
      maxTokens,
      stop,
      ignoreEnd,
      logprobs,
      cache,
    };
  }

  #promptOf(prompt: GenerateRequest["prompt"]): GenerateMessage["prompt"] {
    if (prompt instanceof Uint32Array) return { tokens: prompt };
    if (typeof prompt === "string") return { text: prompt, begin: true };
    assert(this.#template !== undefined, "an engine that serves has a template");
    return { text: this.#template.render(prompt), begin: true };
  }

  /** A decode that reads this request's prompt is stopped; one that has others' next tokens in it is short anyway. */
  #cancel({ id, phase }: Exchange): void {
    if (phase === "reading") this.#child?.raiseAbort();
    this.#tell({ kind: "cancel", id });
  }

  #setPhase(id: number, phase: Exchange["phase"]): void {
    const exchange = this.#exchanges.get(id);
    if (exchange !== undefined) exchange.phase = phase;
  }

  /** Keeps the totals; times to the first token are counted from when this process took the request. */
  #count(event: GenerateEvent, accepted: number): GenerateEvent {
    if (event.kind === "end") this.#totals.generatedTokens += event.completionTokens;
    if (event.kind !== "prompt") return event;
    const report: PromptReport = { ...event.report, ttftMs: performance.now() - accepted };
    this.#totals.promptTokens += report.promptTokens;
    this.#totals.computedTokens += report.computedTokens;
    for (const [tier, tokens] of Object.entries(report.reused) as [TierName, number][]) {
      this.#reused[tier] = (this.#reused[tier] ?? 0) + tokens;
    }
    return { kind: "prompt", report };
  }

  #tell(message: ToEngine): void {
    this.#child?.send(message);
  }

  /** In the background of the first load; until it is done, nothing is stored and nothing found. */
  async #digestWeights(): Promise<void> {
    const { modelPath, dataDirectory, socketPath } = this.#options;
    if (socketPath === undefined) return;
    try {
      this.#digest = await weightsDigest(modelPath, { dataDirectory, signal: this.#closing.signal, log: this.#log });
      if (this.#state === "serving") this.#tell({ kind: "weights", digest: this.#digest });
    } catch (error) {
      if (!this.#closing.signal.aborted) this.#log.error(`the cache is not used: ${describe(error)}`);
    }
  }
}
