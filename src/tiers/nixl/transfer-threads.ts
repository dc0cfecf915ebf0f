/**
 * Some transfer threads, one job each (transfer-thread.ts). Jobs that wait are few, and first come, first served.
 *
 * Whoever leaves gives its memory back at once, or after the copy that is just being made: what a thread still does is its own affair.
 * A thread whose transfer hangs is busy until NIXL gives up; when all of them are, jobs wait, each until its own signal.
 */
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import { describe } from "../../errors.ts";
import { addressOf } from "../../ffi/posix.ts";
import {
  type Answer,
  type Job,
  type Place,
  states,
  stateWord,
  stopWord,
  type ThreadOptions,
} from "./transfer-thread.ts";

interface Waiting {
  readonly job: Job;
  /** What the job's place is in; referenced until the job has ended or was abandoned. */
  readonly memory: Uint8Array | undefined;
  readonly signal: AbortSignal;
  settle(outcome: Answer | Error): void;
}

interface Thread {
  readonly worker: Worker;
  readonly words: Int32Array;
  current: Waiting | undefined;
}

/** Names of a long text, and pieces of many chunks. */
const mostWaiting = 4096;
/** For what is under way when all ends. */
const closeMs = 2000;

export class TransferThreads {
  readonly #options: ThreadOptions;
  readonly #most: number;
  readonly #waiting = new Set<Waiting>();
  readonly #threads = new Set<Thread>();
  readonly #idle: Thread[] = [];
  #isStarting = false;
  #isClosed = false;

  constructor(options: ThreadOptions, most: number) {
    this.#options = options;
    this.#most = most;
  }

  /**
   * Does a job when a thread is free. However it ends, nothing touches the memory any more.
   *
   * @throws Error in words: the store failed, it was too late, or too many wait
   */
  run(job: Job, signal: AbortSignal, memory?: Uint8Array): Promise<Answer> {
    return new Promise((resolve, reject) => {
      if (this.#isClosed) return reject(new Error("it is closed"));
      if (signal.aborted) return reject(tooLate());
      if (this.#waiting.size >= mostWaiting) return reject(new Error(`${mostWaiting} transfers wait already`));
      let isSettled = false;
      const leave = () => {
        if (isSettled) return;
        if (this.#waiting.delete(each)) return each.settle(tooLate());
        for (const thread of this.#threads) if (thread.current === each && !abandoned(thread)) setImmediate(leave);
        return undefined;
      };
      const each: Waiting = {
        job,
        memory,
        signal,
        settle(outcome) {
          if (isSettled) return;
          isSettled = true;
          signal.removeEventListener("abort", leave);
          if (outcome instanceof Error) reject(outcome);
          else if (outcome.kind === "failed") reject(new Error(outcome.message));
          else resolve(outcome);
        },
      };
      signal.addEventListener("abort", leave);
      this.#waiting.add(each);
      this.#next();
    });
  }

  /** Ends all threads. One that is still busy after a moment ends by itself, or with the process. */
  async close(): Promise<void> {
    this.#isClosed = true;
    for (const each of this.#waiting) each.settle(new Error("it is closed"));
    this.#waiting.clear();
    await Promise.all(Array.from(this.#threads, closeThread));
  }

  #next(): void {
    for (const each of this.#waiting) {
      const thread = this.#idle.pop();
      if (thread === undefined) {
        this.#start();
        return;
      }
      this.#waiting.delete(each);
      thread.current = each;
      Atomics.store(thread.words, stateWord, states.running);
      thread.worker.ref();
      thread.worker.postMessage(each.job);
    }
  }

  #start(): void {
    if (this.#isStarting || this.#isClosed || this.#threads.size >= this.#most) return;
    const words = new Int32Array(new SharedArrayBuffer(8));
    const workerData = { options: this.#options, words };
    let worker: Worker;
    try {
      worker = new Worker(entryPoint(), { workerData, stdout: false, execArgv: [], name: "reprise-nixl" });
    } catch (error) {
      this.#failIfAlone(new Error(`no thread can be started (${describe(error)})`, { cause: error })); // the system has no more
      return;
    }
    this.#isStarting = true;
    const thread: Thread = { worker, words, current: undefined };
    this.#threads.add(thread);
    worker.on("message", (answer: Answer) => {
      if (answer.kind === "ready") this.#isStarting = false;
      thread.current?.settle(answer);
      thread.current = undefined;
      worker.unref();
      this.#idle.push(thread);
      this.#next();
    });
    worker.on("error", (error: Error) => this.#lose(thread, error));
    worker.on("exit", () => this.#lose(thread, new Error("its thread ended")));
  }

  #lose(thread: Thread, error: Error): void {
    if (!this.#threads.delete(thread)) return;
    const at = this.#idle.indexOf(thread);
    if (at === -1) this.#isStarting = false;
    else this.#idle.splice(at, 1);
    thread.current?.settle(error);
    this.#failIfAlone(error);
  }

  #failIfAlone(error: Error): void {
    if (this.#threads.size > 0) return; // those that run do the work
    for (const each of this.#waiting) each.settle(error);
    this.#waiting.clear();
  }
}

/** Takes the job's memory from a thread, which may be copying just now: then not yet. */
function abandoned({ worker, words, current }: Thread): boolean {
  if (Atomics.compareExchange(words, stateWord, states.running, states.abandoned) === states.held) return false;
  worker.unref();
  current?.settle(tooLate());
  return true;
}

async function closeThread({ worker, words }: Thread): Promise<void> {
  const exit = new Promise((ended) => worker.once("exit", ended));
  const wait = (ms: number) => {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise((over) => (timer = setTimeout(over, ms, "late")));
    return Promise.race([exit, late]).finally(() => clearTimeout(timer));
  };
  worker.ref();
  worker.postMessage("close");
  if ((await wait(closeMs / 2)) === "late") {
    // Whatever is under way is left as it is.
    Atomics.store(words, stopWord, 1);
    Atomics.notify(words, stopWord);
    await wait(closeMs / 2);
  }
  worker.unref();
}

function tooLate(): Error {
  return new Error("it did not answer in time");
}

export function placeOf({ buffer, byteOffset, length }: Uint8Array): Place {
  return { address: addressOf(buffer) + BigInt(byteOffset), bytes: length };
}

/** The thread's program: beside this file, or from sources the build of it, since Node 20 runs no TypeScript. */
function entryPoint(): string {
  const built = import.meta.url.endsWith(".ts")
    ? "../../../dist/tiers/nixl/transfer-thread.js"
    : "./transfer-thread.js";
  return fileURLToPath(new URL(built, import.meta.url));
}
