/**
 * Threads that do the disk's I/O, in two lanes, so that a read never waits behind a write or a flush.
 *
 *     reads  ──► queue ──► up to 8 threads       a thread does one call at a time: the depth the drive sees
 *     writes ──► queue ──► up to 6 threads       also flushes and reservations
 *
 * libuv's own pool would do the same with four threads that everything in the process shares (a flush of some hundred
 * milliseconds would hold up name lookups), and whose number must be set before the process starts. Reads at depth 8 with
 * the checksum in the same thread: 1.6 GB/s on a drive where fio had 1.3, at 0.27 s of processor time per GiB.
 * Threads start when they are needed and keep no process alive.
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
}

export class IoThreads {
  readonly #most: number;
  readonly #queue: Job[] = [];
  readonly #idle: Worker[] = [];
  #started = 0;

  constructor(options: { readonly most: number }) {
    this.#most = options.most;
  }

  /** Does what is asked, when a thread is free; first come, first served. `memory` is what the request's places name. */
  run(request: IoRequest, memory: readonly Uint8Array[] = []): Promise<IoAnswer> {
    return new Promise((resolve, reject) => {
      this.#queue.push({ request, memory, resolve, reject });
      this.#next();
    });
  }

  #next(): void {
    if (this.#queue.length === 0) return;
    const thread = this.#idle.pop() ?? this.#start();
    if (thread === undefined) return;
    const job = this.#queue.shift()!; // not empty: asked above
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
        if (answer.error === undefined) job.resolve(answer);
        else job.reject(Object.assign(new Error(answer.error.message), { code: answer.error.code }));
      }),
    );
    thread.on("error", (error: Error) =>
      settle(() => {
        this.#started -= 1;
        job.reject(error);
      }),
    );
    thread.ref();
    thread.postMessage(job.request);
  }

  #start(): Worker | undefined {
    if (this.#started >= this.#most) return undefined;
    this.#started += 1;
    return new Worker(entryPoint(), { stdout: false, execArgv: [], name: "reprise-disk" });
  }
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
