/**
 * Threads that do the disk's I/O, in two groups, so that a read never waits behind a write or a flush.
 *
 *     reads  ──► queue ──► 4 to 8 threads        a thread does one call at a time: the depth the drive sees;
 *                                                reads that wait and follow one another in a file become one call
 *                                                (chunks of 64 KiB: 0.86 GB/s instead of 0.69, 1.4 s of processor time a GiB instead of 2.0)
 *     writes ──► queue ──► up to 6 threads       also flushes and reservations
 *
 * libuv's own pool would do the same with four threads that everything in the process shares (a flush of some hundred
 * milliseconds would hold up name lookups), and whose number must be set before the process starts. Reads at depth 8 with
 * the checksum in the same thread: 1.6 GB/s on a drive where fio had 1.3, at 0.27 s of processor time per GiB.
 * Threads start one after another while there is more to do than those that run can take, and keep no process alive. A
 * start takes tens of milliseconds, so what waits goes to whoever is free first, not to the thread that was started for it.
 */
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import { addressOf } from "../../ffi/posix.ts";
import type { IoAnswer, IoRequest, Place } from "./io-thread.ts";

/** A request with the memory it names, which stays referenced until it is done. */
interface Job {
  readonly request: IoRequest;
  readonly memory: readonly Uint8Array[];
  readonly resolve: (answer: IoAnswer) => void;
  readonly reject: (error: Error) => void;
  /** It failed together with others: now it is to fail or succeed alone. */
  isAlone: boolean;
}

/** A call of several reads: no larger than a read of one large record. */
const mergedBytes = 2 * 1024 * 1024;

export class IoThreads {
  readonly #most: number;
  readonly #queue: Job[] = [];
  readonly #idle: Worker[] = [];
  #started = 0;
  #isStarting = false;

  constructor(options: { readonly most: number }) {
    this.#most = options.most;
  }

  /** Does what is asked, when a thread is free; first come, first served. `memory` is what the request's places name. */
  run(request: IoRequest, memory: readonly Uint8Array[] = []): Promise<IoAnswer> {
    return new Promise((resolve, reject) => {
      this.#queue.push({ request, memory, resolve, reject, isAlone: false });
      this.#next();
    });
  }

  /** Starts a thread before anything is to be done, so that the first read does not wait for one. */
  prepare(): void {
    if (this.#started === 0) this.#start();
  }

  #next(): void {
    while (this.#queue.length > 0) {
      const thread = this.#idle.pop();
      if (thread === undefined) {
        this.#start();
        return;
      }
      this.#hand(thread, this.#take());
    }
  }

  #hand(thread: Worker, jobs: readonly [Job, ...Job[]]): void {
    const settle = (finish: () => void) => {
      thread.removeAllListeners("message");
      thread.removeAllListeners("error");
      finish();
      this.#next();
    };
    thread.on("message", (answer: IoAnswer) =>
      settle(() => {
        thread.unref();
        this.#idle.push(thread);
        this.#answer(jobs, answer);
      }),
    );
    thread.on("error", (error: Error) =>
      settle(() => {
        this.#started -= 1;
        for (const job of jobs) job.reject(error);
      }),
    );
    thread.ref();
    thread.postMessage(merged(jobs));
  }

  /** What is done next with one call: the job that waits longest, and the reads behind it that go on where it ends. */
  #take(): [Job, ...Job[]] {
    const first = this.#queue.shift()!; // the caller looked
    const jobs: [Job, ...Job[]] = [first];
    let bytes = bytesOf(first);
    for (let next = this.#queue[0]; next !== undefined; next = this.#queue[0]) {
      if (!follows(next, first, bytes) || bytes + bytesOf(next) > mergedBytes) break;
      jobs.push(next);
      bytes += bytesOf(next);
      this.#queue.shift();
    }
    return jobs;
  }

  #answer(jobs: readonly [Job, ...Job[]], answer: IoAnswer): void {
    if (answer.error !== undefined) {
      if (jobs.length > 1) {
        for (const job of jobs) job.isAlone = true;
        this.#queue.unshift(...jobs);
      } else jobs[0].reject(Object.assign(new Error(answer.error.message), { code: answer.error.code }));
      return;
    }
    if (jobs.length === 1) {
      jobs[0].resolve(answer);
      return;
    }
    let [at, place] = [0, 0];
    for (const job of jobs) {
      const bytes = Math.max(0, Math.min(bytesOf(job), answer.bytes - at));
      job.resolve({ ...answer, bytes, leaves: answer.leaves.slice(place, place + job.memory.length) });
      at += bytesOf(job);
      place += job.memory.length;
    }
  }

  #start(): void {
    if (this.#isStarting || this.#started >= this.#most) return;
    this.#isStarting = true;
    this.#started += 1;
    const thread = new Worker(entryPoint(), { stdout: false, execArgv: [], name: "reprise-disk" });
    thread.once("message", () => {
      thread.removeAllListeners("error");
      thread.unref();
      this.#isStarting = false;
      this.#idle.push(thread);
      this.#next();
    });
    thread.once("error", (error: Error) => {
      this.#isStarting = false;
      this.#started -= 1;
      if (this.#started > 0) return; // those that run do the work
      for (const job of this.#queue.splice(0)) job.reject(error);
    });
  }
}

/** True for a read that begins where `first`, and the `bytes` taken with it, end. */
function follows({ request, isAlone }: Job, first: Job, bytes: number): boolean {
  const before = first.request;
  return (
    request.kind === "read" &&
    before.kind === "read" &&
    request.file === before.file &&
    request.direct === before.direct &&
    request.position === before.position + bytes &&
    !isAlone &&
    !first.isAlone
  );
}

function merged(jobs: readonly [Job, ...Job[]]): IoRequest {
  const { request } = jobs[0];
  if (jobs.length === 1 || request.kind !== "read") return request;
  return { ...request, places: jobs.flatMap((job) => (job.request.kind === "read" ? job.request.places : [])) };
}

function bytesOf({ memory }: Job): number {
  return memory.reduce((sum, { length }) => sum + length, 0);
}

/** Names memory for a thread. */
export function placesOf(memory: readonly Uint8Array[]): Place[] {
  return memory.map(({ buffer, byteOffset, length }) => ({
    address: addressOf(buffer),
    bufferBytes: buffer.byteLength,
    offset: byteOffset,
    bytes: length,
  }));
}

/** The thread's program: beside this file, or from sources the build of it, since Node 20 runs no TypeScript. */
function entryPoint(): string {
  const built = import.meta.url.endsWith(".ts") ? "../../../dist/tiers/disk/io-thread.js" : "./io-thread.js";
  return fileURLToPath(new URL(built, import.meta.url));
}
