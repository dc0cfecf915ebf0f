/**
 * The life of the engine process: started, watched, started again.
 *
 *     loading ──ready──► serving ──process died or hung──► restarting ──ready──► serving
 *        └──refused──► failed              (tries again after a pause that doubles, whatever a start met)
 *
 * What it computes on is decided before the first start (gpu-choice.ts). A first start that fails over the libraries for a GPU
 * all the same is made once more without them, unless a GPU must be used.
 */
import { within } from "../../../deadline.ts";
import { type ErrorCode, RepriseError, describe } from "../../../errors.ts";
import type { Log } from "../../../log.ts";
import { Deferred } from "./deferred.ts";
import type { EngineSettings } from "../engine-settings.ts";
import { chooseGpu, notUsed } from "./gpu-choice.ts";
import type { GpuChoiceOptions } from "./gpu-choice.ts";
import { Launch } from "./launch.ts";
import type { LaunchOptions } from "./launch.ts";
import type { FromEngine, LoadedModel, ToEngine } from "../messages.ts";
import type { ModelFiles } from "../model/model-files.ts";
import { Watchdog } from "./watchdog.ts";
import type { WatchLimits } from "./watchdog.ts";
import { withoutEffect } from "./without-effect.ts";

export interface EngineLifeOptions {
  readonly launch: Pick<LaunchOptions, "modelPath" | "settings" | "program" | "dataDirectory">;
  /** How a GPU's libraries are tried; as gpu-probe.ts does unless given. */
  readonly probe: Pick<GpuChoiceOptions, "program" | "limits">;
  readonly log: Log;
  /** Limits of the time in which the process shows no sign of life; see {@link engineLimits}. */
  readonly limits: WatchLimits;
  /** What it says of requests. */
  readonly onMessage: (message: FromEngine) => void;
  /** A process was started over these files, which may be others than those of the one before it. */
  readonly onLaunched: (files: ModelFiles) => void;
  /** The model is loaded. Requests are sent once this has resolved; what it throws ends the first load, or the process. */
  readonly onLoaded: (model: LoadedModel) => Promise<void>;
  /** The process is gone, and with it whatever ran in it. */
  readonly onLost: (error: unknown) => void;
}

/** Five seconds for a machine under load; twenty, since a restart costs everybody's answers; ten minutes for the longest step. */
export const engineLimits: WatchLimits = { silentMs: 5000, hungMs: 20_000, busyMs: 600_000, tickMs: 1000 };
/** A load may wait for a slow or far-away disk. */
const loadLimits: WatchLimits = { silentMs: 120_000, hungMs: 120_000, busyMs: 3_600_000, tickMs: 1000 };

/** How long a loaded model waits for the cache before it serves without. */
const connectWaitMs = 1000;
/** Pauses before the process is started again; the first after it served for a while. */
const firstPauseMs = 200;
const longestPauseMs = 30_000;
const servedWellMs = 60_000;

/** Why a model that a GPU's libraries cannot load may yet be loaded without them: they are not right, or the GPU is full. */
const ofGpus: ReadonlySet<ErrorCode> = new Set(["LIBRARY_UNSUPPORTED", "NOT_ENOUGH_MEMORY"]);

export type LifeState = "loading" | "serving" | "restarting" | "failed" | "closed";

export class EngineLife {
  readonly #options: EngineLifeOptions;
  readonly #log: Log;
  #state: LifeState = "loading";
  #settings: EngineSettings;
  /** The first start has opened these libraries for a GPU, and could do without. */
  #gpuBuild: string | undefined;
  #gpuFault: string | undefined;
  #launch: Launch | undefined;
  /** Settles when the process that is being started has been, or cannot be. */
  #launching: Promise<void> = Promise.resolve();
  readonly #closing = new AbortController();
  #watchdog: Watchdog | undefined;
  /** Settles when the process that is being started serves, or cannot. */
  #serving = new Deferred<void>();
  #restarts = 0;
  #pauseMs = firstPauseMs;
  #lastEnd: string | undefined;
  #readyAt = 0;
  #restartTimer: NodeJS.Timeout | undefined;

  constructor(options: EngineLifeOptions) {
    this.#options = options;
    this.#settings = options.launch.settings;
    this.#log = options.log;
  }

  get state(): LifeState {
    return this.#state;
  }

  /** It serves, but shows no sign of life. */
  get isSilent(): boolean {
    return this.#state === "serving" && this.#watchdog?.isSilent === true;
  }

  /** Resolves when requests can be sent; rejects when the start that is under way has failed. */
  get serving(): Promise<void> {
    return this.#serving.promise;
  }

  /** Times the process was started again. */
  get restarts(): number {
    return this.#restarts;
  }

  get pid(): number | undefined {
    return this.#launch?.pid;
  }

  /** Starts the process. */
  begin(): void {
    this.#follow(this.#chooseAndStart());
  }

  async #chooseAndStart(): Promise<Launch> {
    const { signal } = this.#closing;
    this.#settings = await chooseGpu({ ...this.#options.probe, settings: this.#settings, signal, log: this.#log });
    for (const line of withoutEffect(this.#settings)) this.#log.warn(line);
    return this.#start();
  }

  #start(): Promise<Launch> {
    return Launch.start({
      ...this.#options.launch,
      settings: this.#settings,
      signal: this.#closing.signal,
      log: this.#log,
      onMessage: (message) => this.#receive(message),
      onExit: (how) => this.#exited(`the engine process is gone: ${how}`),
    });
  }

  #follow(launching: Promise<Launch>): void {
    this.#launching = launching.then(
      (launch) => this.#launched(launch),
      (error: unknown) => this.#notStarted(error),
    );
  }

  send(message: ToEngine): void {
    this.#launch?.send(message);
  }

  /** Stops the decode that runs, if it is for this request alone; a cancellation must be sent right after. */
  raiseAbort(request: number): void {
    this.#launch?.raiseAbort(request);
  }

  /** No process serves, and none will. */
  giveUp(error: unknown): void {
    if (this.#state === "closed") return;
    this.#end("failed", error);
    this.#options.onLost(error);
    void this.#launch?.kill();
  }

  async close(error: RepriseError): Promise<void> {
    this.#end("closed", error);
    this.#closing.abort();
    await this.#launching;
    await this.#launch?.kill();
  }

  #end(state: "failed" | "closed", error: unknown): void {
    this.#state = state;
    this.#watchdog?.stop();
    clearTimeout(this.#restartTimer);
    this.#serving.reject(error);
  }

  #launched(launch: Launch): void {
    this.#launch = launch;
    if (this.#state === "closed" || this.#state === "failed") {
      void launch.kill(); // nobody wants it any more
      return;
    }
    this.#watch(launch, loadLimits);
    this.#options.onLaunched(launch.files);
  }

  /** There is no process: at first that is final, later the model may be back in its place, or a descriptor free. */
  #notStarted(error: unknown): void {
    if (this.#state === "loading") this.giveUp(error);
    else this.#exited(`the engine process cannot be started: ${describe(error)}`);
  }

  #receive(message: FromEngine): void {
    this.#watchdog?.heard();
    if (message.kind === "gpu") this.#usesGpu(message.build);
    else if (message.kind === "ready") void this.#loaded(message.model);
    else if (message.kind === "refused") this.#refused(new RepriseError(message.code, message.message));
    else if (message.kind !== "pong") this.#options.onMessage(message);
  }

  /** What must be used is not done without. */
  #usesGpu(build: string): void {
    if (this.#state === "loading" && this.#settings.gpu !== "on") this.#gpuBuild = build;
  }

  async #loaded(model: LoadedModel): Promise<void> {
    const launch = this.#launch;
    if (launch === undefined || this.#state === "closed" || this.#state === "failed") return;
    this.#watch(launch, this.#options.limits);
    try {
      await this.#options.onLoaded(model);
    } catch (error) {
      if (this.#state === "loading") this.giveUp(error);
      else void launch.kill();
      return;
    }
    // A first request shall find what is stored, where that is soon known: always after a restart.
    const isSoon = launch.isIdentified || this.#state === "restarting";
    if (isSoon && model.info.reuse === true) await within(launch.cacheSettled, connectWaitMs);
    if (this.#launch !== launch || (this.#state !== "loading" && this.#state !== "restarting")) return;
    this.#state = "serving";
    this.#gpuBuild = undefined;
    this.#lastEnd = undefined;
    this.#readyAt = performance.now();
    this.#serving.resolve();
  }

  #watch(launch: Launch, limits: WatchLimits): void {
    this.#watchdog?.stop();
    this.#watchdog = new Watchdog({
      limits,
      pid: launch.pid,
      ping: () => launch.send({ kind: "ping" }),
      onHung: (how) => {
        this.#log.error(`the engine process hangs and is ended: ${how}`);
        void launch.kill();
      },
    });
  }

  /** The first load decides: what a restart meets may pass. */
  #refused(error: RepriseError): void {
    if (this.#gpuBuild !== undefined && ofGpus.has(error.code)) this.#gpuFault = error.message;
    else if (this.#state === "loading") this.giveUp(error);
    else this.#log.error(`the model cannot be loaded again: ${error.message}`);
  }

  #exited(what: string): void {
    this.#watchdog?.stop();
    if (this.#state === "closed" || this.#state === "failed") return;
    const error = new RepriseError("ENGINE_FAILED", `The request cannot be served: ${what}`);
    if (this.#state === "loading") {
      if (this.#gpuBuild === undefined) this.giveUp(error);
      else this.#leaveGpu(this.#gpuFault ?? what);
      return;
    }
    const pauseMs = this.#nextPause();
    // What keeps a process from starting is told once, not with every attempt.
    this.#log[what === this.#lastEnd ? "debug" : "error"](`starting the engine again in ${pauseMs} ms: ${what}`);
    this.#lastEnd = what;
    this.#serving.reject(error); // a restart that failed; the first time this has long been resolved
    this.#options.onLost(error);
    this.#state = "restarting";
    this.#serving = new Deferred<void>();
    this.#restartTimer = setTimeout(() => {
      this.#restarts += 1;
      this.#follow(this.#start());
    }, pauseMs);
    this.#pauseMs = Math.min(2 * pauseMs, longestPauseMs);
  }

  #leaveGpu(why: string): void {
    this.#log.warn(notUsed(why));
    this.#gpuBuild = undefined;
    this.#settings = { ...this.#settings, gpu: "off", gpuBuild: undefined };
    this.#follow(this.#start());
  }

  #nextPause(): number {
    if (this.#state === "serving" && performance.now() - this.#readyAt > servedWellMs) this.#pauseMs = firstPauseMs;
    return this.#pauseMs;
  }
}
