/**
 * One launch of the engine process: the model's files as they were opened for it, the process, and what its weights are.
 *
 *     files opened ──► process started, told the files ──► loads … ready
 *          └─► digested ──► told the digest: the cache may be used ──► "changed": digested again, in the background
 *
 * Every launch opens and digests what the path means by then. While it is not known what the files hold, nothing is
 * stored and nothing found.
 */
import { describe } from "../../../errors.ts";
import type { Log } from "../../../log.ts";
import { Deferred } from "./deferred.ts";
import { EngineChild } from "./engine-child.ts";
import type { EngineSettings } from "../engine-settings.ts";
import type { FromEngine, ToEngine } from "../messages.ts";
import { ModelFiles } from "../model/model-files.ts";
import { weightsDigest } from "./weights-digest.ts";
import type { WeightsDigest } from "../model/model-files.ts";

export interface LaunchOptions {
  readonly modelPath: string;
  readonly settings: EngineSettings;
  /** The process's program: ours unless given. */
  readonly program: string | undefined;
  /** Where the digest of the weights is remembered. */
  readonly dataDirectory: string;
  readonly signal: AbortSignal;
  readonly onMessage: (message: FromEngine) => void;
  /** The process is gone. `how` is for people. */
  readonly onExit: (how: string) => void;
  readonly log: Log;
}

export class Launch {
  readonly #options: LaunchOptions;
  readonly #files: ModelFiles;
  /** The state that the files were in when they were opened. */
  readonly #identity: string;
  readonly #child: EngineChild;
  readonly #over = new AbortController();
  readonly #cache = new Deferred<void>();
  readonly #signal: AbortSignal;
  /** What the process has loaded; undefined while that is not known, or cannot be. */
  #loaded: WeightsDigest | undefined;
  #work: Promise<void> = Promise.resolve();
  #isLookWaiting = false;

  private constructor(files: ModelFiles, options: LaunchOptions) {
    const { path, identity, descriptors } = files;
    const { settings, program, log } = options;
    this.#options = options;
    this.#files = files;
    this.#identity = identity;
    this.#signal = AbortSignal.any([options.signal, this.#over.signal]);
    this.#child = new EngineChild({
      settings,
      program,
      model: { path, identity, descriptors },
      log,
      onMessage: (message) => this.#receive(message),
      onExit: (how) => this.#exited(how),
    });
    if (settings.socketPath === undefined) this.#cache.resolve();
    else this.#do(() => this.#identify());
  }

  /** @throws RepriseError MODEL_NOT_FOUND or MODEL_INVALID, or the signal's reason. */
  static async start(options: LaunchOptions): Promise<Launch> {
    return new Launch(await ModelFiles.open(options.modelPath, options.signal), options);
  }

  /** The files that this launch serves. Whoever wants them for longer than it lasts must share them. */
  get files(): ModelFiles {
    return this.#files;
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  /** The digest of what was loaded is known. */
  get isIdentified(): boolean {
    return this.#loaded !== undefined;
  }

  /** Resolves when requests find what is stored, or it is known that they will not. */
  get cacheSettled(): Promise<void> {
    return this.#cache.promise;
  }

  send(message: ToEngine): void {
    this.#child.send(message);
  }

  /** Stops the decode that runs, if it is for this request alone; a cancellation must be sent right after. */
  raiseAbort(request: number): void {
    this.#child.raiseAbort(request);
  }

  /** Ends the process and waits until it is gone and the files are closed. */
  async kill(): Promise<void> {
    await this.#child.kill();
    await this.#work;
  }

  #receive(message: FromEngine): void {
    if (message.kind === "connected") this.#cache.resolve();
    else if (message.kind === "changed") this.#lookAgain();
    else this.#options.onMessage(message);
  }

  #exited(how: string): void {
    this.#over.abort();
    this.#do(() => this.#files[Symbol.asyncDispose]());
    this.#options.onExit(how);
  }

  /** One after the other. */
  #do(work: () => Promise<void>): void {
    this.#work = this.#work.then(work).catch((error: unknown) => this.#options.log.debug(describe(error)));
  }

  async #identify(): Promise<void> {
    const { dataDirectory, log } = this.#options;
    const { path } = this.#files;
    try {
      const weights = await weightsDigest(this.#files, { dataDirectory, signal: this.#signal, log });
      if (weights.identity !== this.#identity) throw new Error(`${path} changed while it was loaded`);
      this.#loaded = weights;
      this.#child.send({ kind: "weights", weights });
    } catch (error) {
      this.#cache.resolve();
      if (!this.#signal.aborted) log.error(`the cache is not used: ${describe(error)}`);
    }
  }

  /** Many looks that are asked for during one are one. */
  #lookAgain(): void {
    if (this.#isLookWaiting) return;
    this.#isLookWaiting = true;
    this.#do(() => {
      this.#isLookWaiting = false;
      return this.#compare();
    });
  }

  /** The files were written to, or only touched, moved or linked: do they hold what was loaded? */
  async #compare(): Promise<void> {
    const { dataDirectory, log } = this.#options;
    const { path } = this.#files;
    if (this.#loaded === undefined) return; // what was loaded is not known, and never will be
    await this.#files.untilUnchanging(this.#signal);
    const weights = await weightsDigest(this.#files, { dataDirectory, signal: this.#signal, log });
    if (weights.digest === this.#loaded.digest) {
      if (weights.identity !== this.#loaded.identity) {
        log.info(`${path} was touched, moved or linked while it is served, and holds the same weights`);
      }
      this.#loaded = weights;
      this.#child.send({ kind: "weights", weights });
      return;
    }
    this.#loaded = undefined;
    log.warn(
      `${path} was overwritten while it is served: the cache is not used; restart the server to serve what is there`,
    );
  }
}
