/**
 * The engine process: loads a model and serves the requests that come over the channel. Started by child.ts.
 *
 * Native code lives here and nowhere else, because llama.cpp ends its process on a broken assertion. When the server goes, so
 * does this process, at once.
 */
import { createHash } from "node:crypto";
import { basename, extname } from "node:path";
import { describeSpace, canAbort, familyFacts, measureLayout, refusal } from "./family.ts";
import type { GenerateEvent } from "../../engine.ts";
import { RepriseError, codeOf, describe, errorCodes } from "../../errors.ts";
import type { ErrorCode } from "../../errors.ts";
import { createLog } from "../../log.ts";
import type { Log, LogLevel } from "../../log.ts";
import { mapAbortFlag } from "./abort-flag.ts";
import { CacheConnection } from "./cache-connection.ts";
import { Context, headSizes } from "./context.ts";
import { checkModelFile } from "./gguf-header.ts";
import { openLibrary } from "./library.ts";
import { physicalCores } from "./machine.ts";
import { defaultContextTokens } from "./messages.ts";
import type { FromEngine, GenerateMessage, LoadedModel, StartOptions, ToEngine } from "./messages.ts";
import { isGpuBuild, Model } from "./model.ts";
import { Scheduler } from "./scheduler.ts";
import { payloadBytes } from "./sequence-state.ts";
import type { PayloadLayout } from "./sequence-state.ts";
import { StepThreads } from "./thread-choice.ts";
import { TiledAttention } from "./tiled-attention.ts";

/** How long a stopped decode waits for the message that says why. */
const abortReasonMs = 500;
/** Progress is told in steps of this share at least. */
const progressStep = 0.01;

class EngineProcess {
  readonly #log: Log = channelLog();
  readonly #options: StartOptions;
  readonly #model: Model;
  readonly #contextTokens: number;
  readonly #threads: number;
  readonly #layout: PayloadLayout | undefined;
  readonly #scheduler: Scheduler;
  readonly #abortFlag: Uint8Array;
  readonly #cells: number;
  #cache: CacheConnection | undefined;
  #events: [number, GenerateEvent][] = [];
  #abortReason: (() => void) | undefined;

  constructor(options: StartOptions) {
    this.#options = options;
    const flag = mapAbortFlag(options.abortFlagPath);
    this.#abortFlag = flag.bytes;
    const library = openLibrary({ gpu: options.gpu, log: this.#log });
    const file = checkModelFile(options.modelPath);
    this.#model = Model.load({ library, file, gpuLayers: options.gpuLayers, onProgress: progressTeller() });
    this.#contextTokens = contextTokensOf(this.#model, options.contextTokens);
    this.#threads = options.threads ?? physicalCores();

    const facts = familyFacts(this.#model);
    // ggml's CPU attention looks at every cell of a context for every row, head and layer, its own or not: one context for
    // all slots made a prompt beside three resident ones of 2,000 tokens take 2.4 times as long. GPUs gain more by batching.
    const isApart = options.deterministic || !isGpuBuild(library.build);
    const sequences = isApart ? 1 : options.slots;
    const count = isApart ? options.slots : 1;
    this.#cells = sequences * this.#contextTokens;
    const threads = new StepThreads(this.#threads, options);
    const threadPool = this.#threads > 1 ? library.createThreadPool(this.#threads) : undefined;
    const contexts = Array.from({ length: count }, () =>
      Context.create({
        library,
        model: this.#model,
        cells: this.#cells,
        sequences,
        contexts: count,
        threads,
        threadPool,
        abortFlag: canAbort(facts) ? flag.address : undefined,
      }),
    );

    let refused = refusal(facts);
    const measured = contexts.map((context) => measureLayout(context))[0]!; // at least one context
    if (refused === undefined && measured.layout === undefined) refused = "its state has a layout that is not known";
    this.#layout = refused === undefined ? measured.layout : undefined;
    if (refused !== undefined) this.#log.info(`KV of this model is not reused: ${refused}`);

    this.#scheduler = new Scheduler({
      model: this.#model,
      contexts,
      contextTokens: this.#contextTokens,
      layout: this.#layout,
      sliceTokens: options.deterministic ? options.chunkTokens : undefined,
      shortSteps: !canAbort(facts),
      stored: () => this.#cache?.stored,
      computeMsPerToken: Math.max(0.001, measured.decodeMs),
      attention: isGpuBuild(library.build) ? undefined : attentionOf(this.#model, this.#threads),
      listener: {
        onStarted: (id) => tell({ kind: "started", id }),
        onEvent: (id, event) => this.#queueEvent(id, event),
        onFailed: (id, error) => this.#fail(id, error),
        onSaved: (chunks) => tell({ kind: "saved", chunks, unsavedChunks: this.#scheduler.unsavedChunks }),
        onAborted: () => this.#aborted(),
      },
      log: this.#log,
    });
    const reuse = refused === undefined ? true : { refused };
    tell({ kind: "ready", model: this.#loaded(file.changed, reuse) });
  }

  /** Serves until the process ends. */
  run(): Promise<void> {
    return this.#scheduler.run();
  }

  receive(message: ToEngine): void {
    switch (message.kind) {
      case "generate":
        this.#answer(message.id, () => this.#generate(message));
        return;
      case "cancel":
        this.#abortFlag[0] = 0;
        this.#scheduler.cancel(message.id);
        this.#abortReason?.();
        return;
      case "tokenize":
        this.#answer(message.id, () =>
          tell({ kind: "tokens", id: message.id, tokens: this.#model.tokenize(message.text, message) }),
        );
        return;
      case "detokenize":
        this.#answer(message.id, () => {
          this.#mustBeTokens(message.tokens, "tokens");
          tell({ kind: "text", id: message.id, text: this.#model.detokenize(message.tokens) });
        });
        return;
      case "weights":
        this.#connectCache(message.digest);
        return;
      case "start":
        throw new Error("Bug: an engine process is started once");
    }
  }

  #generate(message: GenerateMessage): void {
    const { prompt } = message;
    const tokens =
      "tokens" in prompt
        ? prompt.tokens
        : this.#model.tokenize(prompt.text, { special: true, begin: prompt.begin && !this.#beginsItself(prompt.text) });
    this.#mustBeTokens(tokens, "prompt");
    if (tokens.length === 0) throw new RepriseError("BAD_REQUEST", "The prompt is empty", { field: "prompt" });
    if (tokens.length >= this.#contextTokens) {
      throw new RepriseError(
        "PROMPT_TOO_LONG",
        `The prompt has ${tokens.length} tokens; the context holds ${this.#contextTokens}, answer included`,
        { field: "prompt" },
      );
    }
    this.#scheduler.submit({ ...message, tokens });
  }

  /** Templates often write the BOS themselves: it is not put there twice. */
  #beginsItself(text: string): boolean {
    const begin = this.#model.specialText("begin");
    return begin !== "" && text.startsWith(begin);
  }

  #mustBeTokens(tokens: Uint32Array, field: string): void {
    const wrong = tokens.find((token) => token >= this.#model.vocabularySize);
    if (wrong === undefined) return;
    throw new RepriseError("BAD_REQUEST", `Token ${wrong} is not in the vocabulary of ${this.#model.vocabularySize}`, {
      field,
    });
  }

  /** Runs `body`; what it throws is the answer to request `id`. */
  #answer(id: number, body: () => void): void {
    try {
      body();
    } catch (error) {
      if (!(error instanceof RepriseError)) throw error;
      this.#fail(id, error);
    }
  }

  #fail(id: number, error: RepriseError): void {
    tell({ kind: "failed", id, code: error.code, message: error.message, field: error.field });
  }

  /** A step's events travel as one message. */
  #queueEvent(id: number, event: GenerateEvent): void {
    if (this.#events.length === 0) {
      queueMicrotask(() => {
        tell({ kind: "events", events: this.#events, unsavedChunks: this.#scheduler.unsavedChunks });
        this.#events = [];
      });
    }
    this.#events.push([id, event]);
  }

  /** Waits for the cancellation that the flag announced; a flag without one is taken down. */
  async #aborted(): Promise<void> {
    if (this.#abortFlag[0] !== 0) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, abortReasonMs);
        this.#abortReason = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
    this.#abortReason = undefined;
    this.#abortFlag[0] = 0;
  }

  #connectCache(weights: string): void {
    const { socketPath, chunkTokens, deterministic } = this.#options;
    if (socketPath === undefined || this.#layout === undefined || this.#cache !== undefined) return;
    const space = describeSpace({
      model: this.#model,
      layout: this.#layout,
      weights,
      chunkTokens,
      cells: this.#cells,
      exactness: deterministic ? this.#exactness() : undefined,
    });
    const session = { space, rank: 0, slotBytes: payloadBytes(this.#layout, chunkTokens) };
    tell({ kind: "guest", session });
    this.#cache = new CacheConnection({ socketPath, session, log: this.#log });
    this.#cache.connect().then(
      () => tell({ kind: "connected" }),
      (error: unknown) => this.#log.error(`the cache is not used: ${describe(error)}`),
    );
  }

  /** What bits depend on besides the model: the kernels of this processor, and how many threads share the work. */
  #exactness(): string {
    const machine = createHash("sha256").update(this.#model.functions.systemInfo()).digest("hex");
    return `${machine.slice(0, 16)}/${this.#threads}`;
  }

  #loaded(changed: number, reuse: LoadedModel["info"]["reuse"]): LoadedModel {
    const { modelPath } = this.#options;
    return {
      info: {
        name: basename(modelPath, extname(modelPath)),
        contextTokens: this.#contextTokens,
        vocabularySize: this.#model.vocabularySize,
        architecture: this.#model.architecture,
        parameters: this.#model.parameters,
        created: changed,
        reuse,
      },
      chatTemplate: this.#model.metadata.get("tokenizer.chat_template"),
      beginText: this.#model.specialText("begin"),
      endText: this.#model.specialText("end"),
    };
  }
}

function contextTokensOf(model: Model, wanted: number | undefined): number {
  const trained = model.trainedContext;
  if (wanted === undefined) return Math.min(trained, defaultContextTokens);
  if (wanted <= trained) return wanted;
  throw new RepriseError(
    "BAD_CONFIG",
    `A context of ${wanted} tokens was asked for; this model was trained for ${trained}: use --context ${trained} or less`,
  );
}

function attentionOf(model: Model, threads: number): TiledAttention {
  const { functions, pointer, parameters } = model;
  const shape = { layers: functions.layers(pointer), heads: functions.heads(pointer), headSize: headSizes(model).key };
  return new TiledAttention({ ...shape, parameters, threads });
}

/** Tells the server how far loading is; stops it when the server is gone, since no message can arrive meanwhile. */
function progressTeller(): (share: number) => boolean {
  const server = process.ppid;
  let told = -1;
  return (share) => {
    if (share === 1 || share - told >= progressStep) {
      tell({ kind: "progress", share });
      told = share;
    }
    return process.ppid === server;
  };
}

function channelLog(): Log {
  // Levels are the server's to judge; the line's own time and level are cut off again.
  const at = (level: LogLevel) => (message: string) => tell({ kind: "log", level, message });
  const log = { debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error") };
  return { ...log, named: (part) => createLog({ level: "debug", part, write: (line) => log.debug(line.trim()) }) };
}

function tell(message: FromEngine): void {
  // A server that is gone ends this process by "disconnect"; what it was told last does not matter.
  if (process.connected) process.send?.(message);
}

function refuse(error: unknown): void {
  const code = codeOf(error);
  const known = code !== undefined && code in errorCodes ? (code as ErrorCode) : "ENGINE_FAILED";
  process.send?.({ kind: "refused", code: known, message: describe(error) } satisfies FromEngine, () =>
    process.exit(1),
  );
}

let engine: EngineProcess | undefined;

process.on("disconnect", () => process.exit(0));
// Ctrl-C goes to every process of the terminal; the server decides when this one ends.
process.on("SIGINT", () => {});
process.on("SIGTERM", () => {});
process.on("message", (message: ToEngine) => {
  if (engine !== undefined) {
    engine.receive(message);
    return;
  }
  if (message.kind !== "start") return;
  try {
    engine = new EngineProcess(message.options);
  } catch (error) {
    refuse(error);
    return;
  }
  void engine.run();
});
