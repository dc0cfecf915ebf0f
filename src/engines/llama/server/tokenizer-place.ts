/**
 * One place in the tokenizer's row: a process, and the next one when it ends.
 *
 *     starting ──ready──► idle ──run──► busy ──► idle
 *        ▲                  └──── died ───┘
 *        └──────────────────────────┘      at once; after a pause where starting fails
 */
import { RepriseError } from "../../../errors.ts";
import type { Log } from "../../../log.ts";
import { Child, firstInherited } from "./child.ts";
import type { GpuUse } from "../model/library-places.ts";
import type { InheritedFiles } from "../model/model-files.ts";
import { errorOf } from "../server-channel.ts";
import type { FromTokenizer, TextResult, TextTask, ToTokenizer } from "../tokenizer-messages.ts";
import { processorMs, Watchdog } from "./watchdog.ts";
import type { WatchLimits } from "./watchdog.ts";

export type TaskEnd =
  | { readonly kind: "done"; readonly result: TextResult }
  /** The task's answer is a refusal. */
  | { readonly kind: "refused"; readonly error: RepriseError }
  /** The process ended, or was ended when it had worked for as long as it may, and the task is why. */
  | { readonly kind: "fatal"; readonly how: string }
  /** The process was gone before the task began, or stopped under it: another may have it. */
  | { readonly kind: "not its doing"; readonly how: string };

export interface TokenizerPlaceOptions {
  /** The model's files, open, as they are wanted when a process starts. */
  readonly model: () => InheritedFiles;
  readonly gpu: GpuUse;
  readonly llamaLib?: string | undefined;
  readonly chatTemplate: string | undefined;
  readonly program: string;
  readonly limits: WatchLimits;
  readonly log: Log;
  /** A process is ready for a task. */
  readonly onIdle: (vocabulary: {
    readonly identity: string;
    readonly longestPieceBytes: number;
    readonly templateFault: string | undefined;
  }) => void;
  /** A process could not be started, or refused the model. Another one is tried after a pause. */
  readonly onFault: (error: RepriseError) => void;
}

/** A process that loads may wait for its disk. */
const loadLimits: WatchLimits = { silentMs: 60_000, hungMs: 60_000, busyMs: 600_000, tickMs: 1000 };
/** How often a task that should have ended is looked at, at the most. */
const shortestLookMs = 50;
const firstPauseMs = 100;
const longestPauseMs = 5000;

export class TokenizerPlace {
  readonly #options: TokenizerPlaceOptions;
  #child: Child<ToTokenizer, FromTokenizer> | undefined;
  #watchdog: Watchdog | undefined;
  /** Of the files that the process has. */
  #identity = "";
  #isReady = false;
  #task: { readonly limitMs: number; readonly end: (end: TaskEnd) => void; timer?: NodeJS.Timeout } | undefined;
  /** Why the process is being ended by us, and whether its task is to blame. */
  #ending: { readonly how: string; readonly isTasksDoing: boolean } | undefined;
  #refusal: RepriseError | undefined;
  #pauseMs = firstPauseMs;
  #restartTimer: NodeJS.Timeout | undefined;
  #isClosed = false;

  constructor(options: TokenizerPlaceOptions) {
    this.#options = options;
    this.#launch();
  }

  get isIdle(): boolean {
    return this.#isReady && this.#task === undefined && this.#ending === undefined;
  }

  get pid(): number | undefined {
    return this.#child?.pid;
  }

  /**
   * Runs a task in this process, which must be idle. The time limit is one of processor time, from when the process has begun: a
   * process that was stopped, or had to wait for the processor, is not its task's doing.
   */
  run(task: TextTask, salt: string | undefined, limitMs: number): Promise<TaskEnd> {
    return new Promise((resolve) => {
      this.#task = { limitMs, end: resolve };
      this.#child?.send({ kind: "work", task, salt });
    });
  }

  /** Ends the process, and another one starts: nobody waits for its task any more, or the model is another one. */
  restart(how: string): void {
    this.#kill({ how, isTasksDoing: false });
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#watchdog?.stop();
    clearTimeout(this.#restartTimer);
    await this.#child?.kill();
  }

  #launch(): void {
    const { path, identity, descriptors } = this.#options.model();
    const child: Child<ToTokenizer, FromTokenizer> = new Child({
      program: this.#options.program,
      inherits: descriptors,
      log: this.#options.log,
      onMessage: (message) => this.#receive(message),
      onExit: (how) => this.#exited(how),
    });
    this.#child = child;
    this.#identity = identity;
    this.#isReady = false;
    this.#ending = undefined;
    this.#refusal = undefined;
    this.#watch(loadLimits);
    const { gpu, llamaLib, chatTemplate } = this.#options;
    // The process has what it inherits under numbers of its own.
    const model = { path, identity, descriptors: descriptors.map((_, part) => firstInherited + part) };
    child.send({ kind: "start", options: { model, gpu, llamaLib, chatTemplate } });
  }

  #watch(limits: WatchLimits): void {
    this.#watchdog?.stop();
    this.#watchdog = new Watchdog({
      limits,
      pid: this.#child?.pid,
      ping: () => this.#child?.send({ kind: "ping" }),
      onHung: (how) => this.#kill({ how, isTasksDoing: false }),
    });
  }

  #receive(message: FromTokenizer): void {
    this.#watchdog?.heard();
    switch (message.kind) {
      case "pong":
        return;
      case "ready":
        this.#isReady = true;
        this.#pauseMs = firstPauseMs;
        this.#watch(this.#options.limits);
        this.#options.onIdle({
          identity: this.#identity,
          longestPieceBytes: message.longestPieceBytes,
          templateFault: message.templateFault,
        });
        return;
      case "refused":
        this.#refusal = new RepriseError(message.code, message.message);
        return;
      case "begun":
        this.#begun();
        return;
      case "done":
        this.#finish({ kind: "done", result: message.result });
        return;
      case "failed":
        this.#finish({ kind: "refused", error: errorOf(message) });
    }
  }

  #begun(): void {
    const task = this.#task;
    if (task === undefined) return;
    const { limitMs } = task;
    const before = processorMs(this.#child?.pid);
    const look = () => {
      const now = processorMs(this.#child?.pid);
      const leftMs = before === undefined || now === undefined ? 0 : limitMs - (now - before);
      if (leftMs > 0) task.timer = setTimeout(look, Math.max(shortestLookMs, leftMs));
      else this.#kill({ how: `it took longer than ${(limitMs / 1000).toFixed(1)} s`, isTasksDoing: true });
    };
    task.timer = setTimeout(look, limitMs);
  }

  #finish(end: TaskEnd): void {
    const task = this.#task;
    if (task === undefined) return;
    clearTimeout(task.timer);
    this.#task = undefined;
    task.end(end);
  }

  #kill(ending: { readonly how: string; readonly isTasksDoing: boolean }): void {
    if (this.#ending !== undefined) return;
    this.#ending = ending;
    void this.#child?.kill();
  }

  #exited(how: string): void {
    this.#watchdog?.stop();
    if (this.#isClosed) return;
    const hasBegun = this.#task?.timer !== undefined;
    const isTasksDoing = this.#ending === undefined ? hasBegun : this.#ending.isTasksDoing;
    const reason = this.#ending?.how ?? how;
    const isTimely = this.#isReady || this.#ending !== undefined;
    this.#isReady = false;
    if (isTimely) {
      this.#options.log.debug(`a tokenizer process ended: ${reason}`);
      this.#launch();
    } else {
      this.#options.onFault(
        this.#refusal ?? new RepriseError("ENGINE_FAILED", `A tokenizer process cannot be started: ${reason}`),
      );
      this.#restartTimer = setTimeout(() => this.#launch(), this.#pauseMs);
      this.#pauseMs = Math.min(2 * this.#pauseMs, longestPauseMs);
    }
    this.#finish({ kind: isTasksDoing ? "fatal" : "not its doing", how: reason });
  }
}
