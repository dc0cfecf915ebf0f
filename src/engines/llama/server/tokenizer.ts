/**
 * The tokenizer as the server holds it: texts wait here, and are worked on in processes of their own.
 *
 *     short texts ──► tenants take turns ──► two at a time ┐
 *     long texts  ──► tenants take turns ──► one at a time ┴─► three processes, each started again at once when it ends
 *
 * A tenant has one text of each length under way. So a short text waits for no long one, and whatever a tenant's texts do to
 * their process, another is there for the next tenant. A text that ended its process is refused, and so is the same text
 * when it comes again; the tenant's next one waits a moment, so that starting processes stays cheap.
 */
import { createHash } from "node:crypto";
import { atDeadline } from "../../../deadline.ts";
import { RepriseError, assert } from "../../../errors.ts";
import type { Log } from "../../../log.ts";
import { Deferred } from "./deferred.ts";
import type { GpuUse } from "../model/library-places.ts";
import type { InheritedFiles, ModelFiles } from "../model/model-files.ts";
import type { TextResult, TextTask } from "../tokenizer-messages.ts";
import { TokenizerPlace } from "./tokenizer-place.ts";
import { TurnQueue, makeRoom } from "../turn-queue.ts";
import type { WatchLimits } from "./watchdog.ts";

export interface TokenizerOptions {
  readonly gpu: GpuUse;
  readonly llamaLib?: string | undefined;
  /** In place of the model's own. */
  readonly chatTemplate?: string | undefined;
  /** Texts that may wait; more are refused. */
  readonly maxWaiting: number;
  /** How long after one process the next is started; {@link spareAfterMs} unless given. */
  readonly spareAfterMs?: number;
  /** The machine is wanted for other work now: a process that no text waits for is better started later. */
  readonly isBusy?: () => boolean;
  /** The processes' program: ours unless given. */
  readonly program?: string | undefined;
  readonly log: Log;
}

/** Whose text it is, for turns, and until when its tokens are wanted. */
export interface TextOwner {
  readonly tenant: string;
  /** Under which the text's tokens are remembered, and looked for; undefined: they are not. */
  readonly salt?: string | undefined;
  readonly signal: AbortSignal;
}

/** Processes: two for short texts, one for a long one. */
const processes = 3;
/**
 * A process takes a third of a second of processor time to start. Beside a prompt that is being computed, whose threads wait
 * for each other on every core, that costs the first token a fifth more: so it waits for a pause, though not for ever.
 */
const spareAfterMs = 3000;
const looks = { everyMs: 500, mostBusy: 120 };
/** From this size on a text is long: some 60 ms on one core. */
const longBytes = 64 * 1024;
/** From this size on the text of a client that left costs more than another process. */
const interruptBytes = 256 * 1024;
/** A text's time: a floor, and some twenty times what a byte takes on one core. */
const floorMs = 2000;
const msPerByte = 0.02;
/** Beyond this a text waits for processes that cannot be started. */
const waitMs = 60_000;
/** Processes that were gone before a text had begun, or stopped under it, until the text is given up: all may have stopped at once. */
const mostTries = processes + 2;
/** A tenant's pause after a text that ended its process. */
const firstPauseMs = 100;
const longestPauseMs = 1000;
/** Texts that ended their process are remembered for a while; the oldest go first. */
const fatalTexts = 256;
const fatalMs = 600_000;

const limits: WatchLimits = { silentMs: 5000, hungMs: 5000, busyMs: 600_000, tickMs: 1000 };

/** Texts of some length, and how many of the places they may have at a time. */
interface Share {
  readonly queue: TurnQueue<Entry>;
  readonly most: number;
  /** By tenant. */
  readonly running: Map<string, Entry>;
}

interface Entry {
  readonly tenant: string;
  readonly salt: string | undefined;
  readonly task: TextTask;
  readonly bytes: number;
  readonly share: Share;
  readonly result: Deferred<TextResult>;
  place: TokenizerPlace | undefined;
  tries: number;
  isCancelled: boolean;
}

export class Tokenizer implements AsyncDisposable {
  readonly #options: TokenizerOptions;
  /** Open for as long as processes are started over them. */
  #files: ModelFiles | undefined;
  #identity = "";
  #ready = new Deferred<{ readonly longestPieceBytes: number }>();
  readonly #places: TokenizerPlace[] = [];
  readonly #short: Share = { queue: new TurnQueue(), most: 2, running: new Map() };
  readonly #long: Share = { queue: new TurnQueue(), most: 1, running: new Map() };
  /** In the order of arrival. */
  readonly #waiting = new Set<Entry>();
  /** Tenants whose texts ended processes: until when they wait. */
  readonly #pauses = new Map<string, { pauseMs: number; until: number }>();
  /** Digests of texts that ended their process, whoever sent them, with when that is forgotten. */
  readonly #fatal = new Map<string, number>();
  /** No process could be started lately. */
  #isFaulty = false;
  #lastFault: string | undefined;
  #templateFault: string | undefined;
  #isClosed = false;
  /** Another process is about to be started. */
  #isAdding = false;

  constructor(options: TokenizerOptions) {
    this.#options = options;
  }

  /** Reads texts with the model in these files from now on; what is under way begins again. */
  use(files: ModelFiles): void {
    if (this.#isClosed) return;
    const { identity } = files;
    if (this.#identity === identity) return;
    void this.#files?.[Symbol.asyncDispose]();
    this.#files = files.share();
    this.#identity = identity;
    this.#ready.reject(new RepriseError("ENGINE_LOADING", "The model was replaced by another one"));
    this.#ready = new Deferred();
    this.#isFaulty = false;
    if (this.#places.length === 0) this.#addPlace();
    else for (const place of this.#places) place.restart("the model was replaced by another one");
  }

  /** Of the model whose tokens are given: tokens of another identity are of another vocabulary. */
  get identity(): string {
    return this.#identity;
  }

  /** What the vocabulary says of texts. @throws RepriseError when the first process cannot load it. */
  get ready(): Promise<{ readonly longestPieceBytes: number }> {
    return this.#ready.promise;
  }

  /** Process ids, for whoever watches them. */
  get pids(): readonly number[] {
    return this.#places.flatMap(({ pid }) => (pid === undefined ? [] : [pid]));
  }

  /** Processes that a text could be given to now. */
  get idleProcesses(): number {
    return this.#places.filter(({ isIdle }) => isIdle).length;
  }

  /**
   * The tokens of a text, or the text of tokens.
   *
   * @throws RepriseError TEXT_NOT_TOKENIZABLE, QUEUE_FULL, ENGINE_FAILED, CANCELLED, and what the task's answer is
   */
  async run(task: TextTask, options: TextOwner): Promise<TextResult> {
    const { tenant, salt, signal } = options;
    if (signal.aborted || this.#isClosed) throw cancelled();
    if (this.#isKnownFatal(task)) throw notTokenizable();
    this.#makeRoom(tenant);
    const bytes = bytesOf(task);
    const share = bytes >= longBytes ? this.#long : this.#short;
    const result = new Deferred<TextResult>();
    const entry: Entry = { tenant, salt, task, bytes, share, result, place: undefined, tries: 0, isCancelled: false };
    this.#waiting.add(entry);
    share.queue.add(tenant, entry);
    const leave = () => this.#cancel(entry);
    signal.addEventListener("abort", leave, { once: true });
    const deadline = atDeadline(waitMs, () => this.#late(entry));
    this.#dispatch();
    try {
      return await result.promise;
    } finally {
      deadline.cancel();
      signal.removeEventListener("abort", leave);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    this.#ready.reject(cancelled());
    for (const entry of this.#waiting) this.#giveUp(entry, cancelled());
    for (const { running } of [this.#short, this.#long])
      for (const entry of running.values()) entry.result.reject(cancelled());
    await Promise.all(this.#places.map((place) => place.close()));
    await this.#files?.[Symbol.asyncDispose]();
  }

  /** One after the other, and not in the moments after a start, when a first request wants the processor. */
  #addPlaceLater(): void {
    this.#isAdding = true;
    const { isBusy = () => false } = this.#options;
    let wasBusy = false;
    let busyLooks = 0;
    const look = () => {
      const isWanted = this.#waiting.size > 0 || busyLooks >= looks.mostBusy;
      const isPause = !isBusy() && !wasBusy; // twice in a row: not between two requests that follow each other
      if (isWanted || isPause || this.#isClosed) {
        this.#isAdding = false;
        if (!this.#isClosed) this.#addPlace();
        return;
      }
      wasBusy = isBusy();
      busyLooks += 1;
      setTimeout(look, looks.everyMs).unref();
    };
    wasBusy = isBusy();
    setTimeout(look, this.#options.spareAfterMs ?? spareAfterMs).unref();
  }

  #addPlace(): void {
    const { gpu, llamaLib, chatTemplate, log, program = "tokenizer/tokenizer-process.js" } = this.#options;
    const place: TokenizerPlace = new TokenizerPlace({
      model: () => this.#inherited(),
      gpu,
      llamaLib,
      chatTemplate,
      program,
      limits,
      log,
      onIdle: (vocabulary) => {
        if (vocabulary.identity === this.#identity) this.#isReady(vocabulary);
        this.#warn(vocabulary.templateFault);
        this.#lastFault = undefined;
        if (this.#places.length < processes && !this.#isAdding) this.#addPlaceLater();
        this.#dispatch();
      },
      onFault: (error) => {
        this.#isFaulty = true;
        this.#ready.reject(error);
        this.#log(error.message);
      },
    });
    this.#places.push(place);
  }

  /** A fault may pass: who asks after it has passed is not told of it. */
  #isReady(vocabulary: { readonly longestPieceBytes: number }): void {
    if (this.#isFaulty) this.#ready = new Deferred();
    this.#isFaulty = false;
    this.#ready.resolve(vocabulary);
  }

  #inherited(): InheritedFiles {
    assert(this.#files !== undefined, "processes are started over open files");
    return { path: this.#files.path, identity: this.#identity, descriptors: this.#files.descriptors };
  }

  /** Why chats are refused, which every process finds out, is told once. */
  #warn(templateFault: string | undefined): void {
    if (templateFault !== undefined && templateFault !== this.#templateFault)
      this.#options.log.warn(`${templateFault}; chats are refused, unless one is given by --chat-template FILE`);
    this.#templateFault = templateFault;
  }

  /** What keeps processes from starting is told once. */
  #log(fault: string): void {
    this.#options.log[fault === this.#lastFault ? "debug" : "error"](fault);
    this.#lastFault = fault;
  }

  /** @throws RepriseError QUEUE_FULL when neither this tenant nor one with more in the queue can make room. */
  #makeRoom(tenant: string): void {
    const { maxWaiting } = this.#options;
    if (this.#waiting.size < maxWaiting) return;
    const full = `${maxWaiting} texts wait to be tokenized already; try again later`;
    makeRoom([...this.#waiting], tenant, full, (leaving, error) => this.#giveUp(leaving, error));
  }

  #dispatch(): void {
    for (const share of [this.#short, this.#long]) {
      while (share.running.size < share.most) {
        const place = this.#places.find(({ isIdle }) => isIdle);
        const next = share.queue.next((tenant) => (this.#mayBegin(share, tenant) ? 0 : Infinity));
        if (place === undefined || next === undefined) break;
        share.queue.take(next.tenant, next.value);
        this.#waiting.delete(next.value);
        void this.#work(next.value, place);
      }
    }
  }

  #mayBegin(share: Share, tenant: string): boolean {
    return !share.running.has(tenant) && performance.now() >= (this.#pauses.get(tenant)?.until ?? 0);
  }

  async #work(entry: Entry, place: TokenizerPlace): Promise<void> {
    const { share, tenant, salt, task, bytes, result } = entry;
    share.running.set(tenant, entry);
    entry.place = place;
    const end = await place.run(task, salt, floorMs + bytes * msPerByte);
    entry.place = undefined;
    share.running.delete(tenant);
    if (end.kind === "done") result.resolve(end.result);
    else if (end.kind === "refused") result.reject(end.error);
    else if (end.kind === "fatal") this.#wasFatal(entry, end.how);
    else this.#tryAgain(entry, end.how);
    if (end.kind === "done" || end.kind === "refused") this.#pauses.delete(tenant);
    this.#dispatch();
  }

  #wasFatal({ task, tenant, bytes, result }: Entry, how: string): void {
    this.#options.log.warn(`a tokenizer process ended on a text of ${bytes} bytes, which is refused: ${how}`);
    result.reject(notTokenizable());
    const oldest = this.#fatal.keys().next().value;
    if (this.#fatal.size >= fatalTexts && oldest !== undefined) this.#fatal.delete(oldest);
    this.#fatal.set(digestOf(task), performance.now() + fatalMs);
    const pauseMs = Math.min(longestPauseMs, 2 * (this.#pauses.get(tenant)?.pauseMs ?? firstPauseMs / 2));
    this.#pauses.set(tenant, { pauseMs, until: performance.now() + pauseMs });
    setTimeout(() => this.#dispatch(), pauseMs + 1).unref();
  }

  #tryAgain(entry: Entry, how: string): void {
    entry.tries += 1;
    if (entry.isCancelled || this.#isClosed) return;
    if (entry.tries >= mostTries) {
      entry.result.reject(new RepriseError("ENGINE_FAILED", `The text could not be tokenized: ${how}`));
      return;
    }
    this.#waiting.add(entry);
    entry.share.queue.putBack(entry.tenant, entry);
  }

  #isKnownFatal(task: TextTask): boolean {
    if (this.#fatal.size === 0) return false;
    const digest = digestOf(task);
    const until = this.#fatal.get(digest);
    if (until === undefined) return false;
    if (until > performance.now()) return true;
    this.#fatal.delete(digest);
    return false;
  }

  #cancel(entry: Entry): void {
    entry.isCancelled = true;
    if (this.#waiting.has(entry)) this.#giveUp(entry, cancelled());
    else entry.result.reject(cancelled());
    if (entry.bytes >= interruptBytes) entry.place?.restart("nobody waits for its text");
  }

  #late(entry: Entry): void {
    if (!this.#waiting.has(entry)) return; // it is being worked on, which has a limit of its own
    this.#giveUp(
      entry,
      new RepriseError("ENGINE_FAILED", `The text waited ${waitMs / 1000} s for a tokenizer process; try again later`),
    );
  }

  /** Takes one out of the queue. */
  #giveUp(entry: Entry, error: RepriseError): void {
    this.#waiting.delete(entry);
    entry.share.queue.remove((each) => each === entry);
    entry.result.reject(error);
  }
}

/** How long a task's work is: bytes of text, about. */
function bytesOf(task: TextTask): number {
  if ("tokens" in task) return task.tokens.byteLength;
  return textBytes(task.kind === "tokenize" ? task.text : task.prompt);
}

/** Bytes of all texts in a value that came as JSON. */
function textBytes(value: unknown): number {
  if (typeof value === "string") return Buffer.byteLength(value);
  if (typeof value !== "object" || value === null) return 8;
  return Object.entries(value).reduce((sum, [name, part]) => sum + name.length + textBytes(part), 0);
}

function digestOf(task: TextTask): string {
  const text = "tokens" in task ? task.tokens : JSON.stringify(task);
  return createHash("sha256").update(text).digest("base64");
}

function cancelled(): RepriseError {
  return new RepriseError("CANCELLED", "The client left, or the server is shutting down");
}

function notTokenizable(): RepriseError {
  return new RepriseError(
    "TEXT_NOT_TOKENIZABLE",
    "The tokenizer ended, or ran out of time, on this text, and would again: send another text",
  );
}
