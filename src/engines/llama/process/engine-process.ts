/**
 * The engine process: loads a model and serves the requests that come over the channel. Started by child.ts.
 *
 * Native code lives here and nowhere else, because llama.cpp ends its process on a broken assertion. When the server goes, so
 * does this process, at once.
 */
import { createHash } from "node:crypto";
import { basename, extname } from "node:path";
import { describeSpace, canAbort, familyFacts, refusal } from "./family.ts";
import type { GenerateEvent } from "../../../engine.ts";
import { RepriseError, describe } from "../../../errors.ts";
import { createLog } from "../../../log.ts";
import type { Log, LogLevel } from "../../../log.ts";
import { mapAbortFlag } from "../abort-flag.ts";
import type { MappedFlag } from "../abort-flag.ts";
import { CacheConnection } from "./cache-connection.ts";
import { headSizes, type Context } from "./context.ts";
import { makeContexts } from "./contexts.ts";
import { openLibrary } from "../model/library.ts";
import { isGpuBuild } from "../model/library-places.ts";
import type { EngineSettings } from "../engine-settings.ts";
import type { FromEngine, LoadedModel, StartOptions, ToEngine } from "../messages.ts";
import { LoadableModel } from "../model/model-files.ts";
import { Model } from "../model/model.ts";
import { mostDrafting, mostDrafts } from "./drafts.ts";
import { MeasuredRowCost } from "./row-cost.ts";
import { Scheduler } from "./scheduler.ts";
import { failureOf, openServerChannel } from "../server-channel.ts";
import { payloadBytes } from "./sequence-state.ts";
import type { PayloadLayout } from "./sequence-state.ts";
import { mostThreads } from "./thread-choice.ts";
import { TiledAttention } from "./tiled-attention.ts";

/** How long a stopped decode waits for the message that says why. */
const abortReasonMs = 500;
/** Progress is told in steps of this share at least. */
const progressStep = 0.01;
/** Between two tokens of an answer, unless something else is asked for. A GPU reads little of a prompt at a time if it may not take longer. */
const gapMsOnCpu = 120;
const gapMsOnGpu = 80;
/** Tokens per stored chunk. */
const chunkTokens = 64;
/** KV for every sequence is taken at the start, so that more than this is asked for. */
const defaultContextTokens = 8192;
/** Less holds no chat: templates alone take a dozen tokens. */
const leastContextTokens = 16;

const server = openServerChannel<ToEngine, FromEngine>();

class EngineProcess {
  readonly #log: Log = channelLog();
  readonly #settings: EngineSettings;
  readonly #files: LoadableModel;
  readonly #model: Model;
  readonly #contextTokens: number;
  readonly #threads: number;
  readonly #layout: PayloadLayout | undefined;
  readonly #contexts: readonly Context[];
  readonly #scheduler: Scheduler;
  readonly #abortFlag: MappedFlag;
  readonly #cells: number;
  #cache: CacheConnection | undefined;
  /** The state of the files in which the cache may be used. */
  #digested: string | undefined;
  #events: [number, GenerateEvent][] = [];
  #abortReason: (() => void) | undefined;

  constructor({ settings, model, abortFlag }: StartOptions) {
    this.#settings = settings;
    const { gpu, gpuLayers, deterministic, sequences } = settings;
    const flag = mapAbortFlag(abortFlag);
    this.#abortFlag = flag;
    const library = openLibrary({
      gpu,
      folder: settings.llamaLib,
      build: settings.gpuBuild,
      log: this.#log,
      onGpu: (build) => server.send({ kind: "gpu", build }),
    });
    this.#files = new LoadableModel(model);
    this.#model = Model.load({ library, file: this.#files, gpuLayers, onProgress: progressTeller() });
    this.#contextTokens = contextTokensOf(this.#model, settings.contextTokens);
    this.#threads = mostThreads(settings.threads, { deterministic, log: this.#log });

    const facts = familyFacts(this.#model);
    const { contexts, payloads, decodeMs, cells } = makeContexts({
      library,
      model: this.#model,
      contextTokens: this.#contextTokens,
      sequences,
      threads: this.#threads,
      deterministic,
      gpuLayers,
      draftRows: settings.draft === "off" ? 0 : mostDrafting * mostDrafts,
      abortFlag: flag.address,
      log: this.#log,
    });
    this.#contexts = contexts;
    this.#cells = cells;
    const refused = refusal(facts) ?? (payloads === undefined ? "its state has a layout that is not known" : undefined);
    this.#layout = refused === undefined ? payloads : undefined;
    if (refused !== undefined) this.#log.warn(`KV of this model is not reused: ${refused}`);
    if (refused !== undefined && settings.draft !== "off") this.#log.warn(`nothing is drafted with it either`);

    this.#scheduler = new Scheduler({
      model: this.#model,
      contexts,
      contextTokens: this.#contextTokens,
      layout: this.#layout,
      sliceTokens: deterministic ? chunkTokens : undefined,
      shortSteps: !canAbort(facts),
      maxGapMs: settings.maxGapMs ?? (isGpuBuild(library.build) ? gapMsOnGpu : gapMsOnCpu),
      stored: () => (this.#files.identity === this.#digested ? this.#cache?.stored : undefined),
      weightsChanged: () => this.#weightsChanged(),
      computeMsPerToken: Math.max(0.001, decodeMs),
      attention: isGpuBuild(library.build) ? undefined : attentionOf(this.#model, this.#threads),
      // What is computed for drafts in vain is cut off again: that takes KV which can be cut at a token.
      rowCost: settings.draft === "off" || this.#layout === undefined ? undefined : new MeasuredRowCost(),
      listener: {
        onStarted: (id) => server.send({ kind: "started", id }),
        onEvent: (id, event) => this.#queueEvent(id, event),
        onFailed: (id, error) => server.send({ kind: "failed", id, ...failureOf(error) }),
        onSaved: (chunks) => server.send({ kind: "saved", chunks, unsavedChunks: this.#scheduler.unsavedChunks }),
        onDecoding: (id) => (this.#abortFlag.request[0] = id ?? 0),
        onAborted: () => this.#aborted(),
      },
      log: this.#log,
    });
    const reuse = refused === undefined ? true : { refused };
    server.send({ kind: "ready", model: this.#loaded(reuse) });
  }

  /** Serves until the process ends. */
  run(): Promise<void> {
    return this.#scheduler.run();
  }

  receive(message: ToEngine): void {
    switch (message.kind) {
      case "generate":
        this.#scheduler.submit(message.request);
        return;
      case "cancel":
        this.#abortFlag.bytes[0] = 0;
        this.#scheduler.cancel(message.id);
        this.#abortReason?.();
        return;
      case "ping":
        server.send({ kind: "pong" });
        return;
      case "weights":
        this.#digested = message.weights.identity;
        this.#connectCache(message.weights.digest);
        return;
      case "start":
        throw new Error("Bug: an engine process is started once");
    }
  }

  /** A step's events travel as one message. */
  #queueEvent(id: number, event: GenerateEvent): void {
    if (this.#events.length === 0) {
      queueMicrotask(() => {
        server.send({ kind: "events", events: this.#events, unsavedChunks: this.#scheduler.unsavedChunks });
        this.#events = [];
      });
    }
    this.#events.push([id, event]);
  }

  /** Waits for the cancellation that the flag announced; a flag without one is taken down. */
  async #aborted(): Promise<void> {
    if (this.#abortFlag.bytes[0] !== 0) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, abortReasonMs);
        this.#abortReason = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
    this.#abortReason = undefined;
    this.#abortFlag.bytes[0] = 0;
  }

  #weightsChanged(): boolean {
    if (this.#files.look() === "unchanged") return false;
    server.send({ kind: "changed" });
    return true;
  }

  #connectCache(weights: string): void {
    const { socketPath, deterministic } = this.#settings;
    if (socketPath === undefined || this.#layout === undefined || this.#cache !== undefined) return;
    const space = describeSpace({
      model: this.#model,
      layout: this.#layout,
      weights,
      chunkTokens,
      cells: this.#cells,
      exactness: deterministic ? this.#exactness() : undefined,
    });
    const session = { space, rank: 0, slotBytes: [payloadBytes(this.#layout, chunkTokens)], model: this.#name };
    server.send({ kind: "guest", session });
    this.#cache = new CacheConnection({
      socketPath,
      session,
      log: this.#log,
      onMapped: (pool) => this.#contexts.forEach((context) => context.prepare(pool.extents())),
      beforeUnmap: async () => void (await Promise.all(this.#contexts.map((context) => context.letGo()))),
    });
    this.#cache.connect().then(
      () => server.send({ kind: "connected" }),
      (error: unknown) => this.#log.error(`the cache is not used: ${describe(error)}`),
    );
  }

  /** What bits depend on besides the model: the kernels of this processor, and how many threads share the work. */
  #exactness(): string {
    const machine = createHash("sha256").update(this.#model.functions.systemInfo()).digest("hex");
    return `${machine.slice(0, 16)}/${this.#threads}`;
  }

  #loaded(reuse: LoadedModel["info"]["reuse"]): LoadedModel {
    return {
      info: {
        name: this.#name,
        contextTokens: this.#contextTokens,
        vocabularySize: this.#model.vocabularySize,
        architecture: this.#model.architecture,
        parameters: this.#model.parameters,
        created: this.#files.changed,
        reuse,
      },
    };
  }

  /** What people call the model. */
  get #name(): string {
    return this.#settings.modelName ?? basename(this.#files.path, extname(this.#files.path));
  }
}

function contextTokensOf(model: Model, wanted: number | undefined): number {
  const trained = model.trainedContext;
  if (wanted === undefined) return Math.min(trained, defaultContextTokens);
  if (wanted < leastContextTokens) {
    throw new RepriseError(
      "BAD_CONFIG",
      `A context of ${wanted.toLocaleString("en")} tokens was asked for, answer included: use --context ${leastContextTokens} or more`,
    );
  }
  if (wanted <= trained) return wanted;
  throw new RepriseError(
    "BAD_CONFIG",
    `A context of ${wanted.toLocaleString("en")} tokens was asked for; this model was trained for ${trained.toLocaleString("en")}: use --context ${trained} or less`,
  );
}

function attentionOf(model: Model, threads: number): TiledAttention {
  const { functions, pointer, parameters } = model;
  const shape = { layers: functions.layers(pointer), heads: functions.heads(pointer), headSize: headSizes(model).key };
  return new TiledAttention({ ...shape, parameters, threads });
}

/** Tells the server how far loading is; stops it when the server is gone, since no message can arrive meanwhile. */
function progressTeller(): (share: number) => boolean {
  const parent = process.ppid;
  let told = -1;
  return (share) => {
    if (share === 1 || share - told >= progressStep) {
      server.send({ kind: "progress", share });
      told = share;
    }
    return process.ppid === parent;
  };
}

function channelLog(): Log {
  // Levels are the server's to judge; the line's own time and level are cut off again.
  const at = (level: LogLevel) => (message: string) => server.send({ kind: "log", level, message });
  const log = { debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error") };
  return { ...log, named: (part) => createLog({ level: "debug", part, write: (line) => log.debug(line.trim()) }) };
}

let engine: EngineProcess | undefined;

server.listen((message) => {
  if (engine !== undefined) {
    engine.receive(message);
    return;
  }
  if (message.kind !== "start") return;
  try {
    engine = new EngineProcess(message.options);
  } catch (error) {
    server.refuse(error);
    return;
  }
  void engine.run();
});
