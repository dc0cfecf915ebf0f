/**
 * A transfer thread: one agent of NIXL, some memory of its own, and one job at a time (transfer-threads.ts has the other end).
 *
 * NIXL moves bytes between a file or an object and this memory, and nowhere else. The job's own memory is touched only while the
 * thread holds the job (`held`), which it is not given any more once the job was abandoned. So a transfer that ends late, or never,
 * writes to nobody.
 *
 *     state    running ──► held ──► running ──► …        the thread copies from or to the job's memory meanwhile
 *                 └──────► abandoned                     whoever waited has left; the thread goes on to its end, and forgets
 */
import { parentPort, workerData } from "node:worker_threads";
import { describe } from "../../errors.ts";
import { Nixl } from "../../ffi/nixl.ts";
import { copyMemory, mapMemory, unmap, type Pointer } from "../../ffi/posix.ts";
import { NixlAgent } from "./agent.ts";
import { collect, type Collected } from "./collector.ts";
import { Files } from "./files.ts";
import { memoryBytes, Stopped, type Medium } from "./medium.ts";
import { Objects } from "./objects.ts";

/** Memory that its owner keeps in place while the job is not abandoned. */
export interface Place {
  readonly address: Pointer;
  readonly bytes: number;
}

export type Job =
  | { readonly kind: "getAll"; readonly names: readonly string[]; readonly maxBytes: number }
  | { readonly kind: "read" | "write"; readonly name: string; readonly place: Place }
  | { readonly kind: "collect" };

export type Answer =
  | { readonly kind: "ready" | "abandoned" | "read" | "gone" | "written" | "full" | "blocked" }
  | { readonly kind: "values"; readonly values: readonly (Uint8Array | undefined)[] }
  | { readonly kind: "collected"; readonly collected: Collected }
  | { readonly kind: "failed"; readonly message: string };

export type ThreadOptions = {
  readonly library: string;
  readonly parameters: Readonly<Record<string, string>>;
} & (
  | {
      readonly plugin: "POSIX";
      readonly folder: string;
      readonly ttlSeconds: number;
      readonly maxBytes: number | undefined;
    }
  | { readonly plugin: "OBJ"; readonly prefix: string }
);

/** Words that both ends share: the job's state, and whether the thread is to end. */
export const [stateWord, stopWord] = [0, 1];
export const states = { running: 0, held: 1, abandoned: 2 } as const;

/** Looks at a transfer that is under way: soon at first, then once in a millisecond. */
const [busyLooks, leastPauseMs, mostPauseMs] = [64, 0.05, 1];

if (parentPort !== null) serve(workerData as { options: ThreadOptions; words: Int32Array }); // as its starter gave it

function serve({ options, words }: { options: ThreadOptions; words: Int32Array }): void {
  const port = parentPort!; // the caller looked
  const memory = { address: mapMemory(memoryBytes), bytes: memoryBytes };
  // Only what moves bytes loads NIXL.
  let medium: Medium | undefined;
  const open = () => (medium ??= mediumOf(options, memory, words));
  port.on("message", (message: Job | "close") => {
    if (message === "close") {
      medium?.close();
      unmap(memory.address, memory.bytes);
      port.close();
      return;
    }
    try {
      const answer = message.kind === "collect" ? tidy(options, words) : move(message, open(), memory.address, words);
      port.postMessage(answer satisfies Answer);
    } catch (error) {
      // A transfer is under way: its memory, its file and its agent stay as they are.
      if (error instanceof Stopped) process.exit();
      port.postMessage({ kind: "failed", message: describe(error) } satisfies Answer);
    }
  });
  port.postMessage({ kind: "ready" } satisfies Answer);
}

function move(job: Exclude<Job, { kind: "collect" }>, medium: Medium, memory: Pointer, words: Int32Array): Answer {
  if (job.kind === "getAll") {
    const isWanted = () => Atomics.load(words, stateWord) !== states.abandoned;
    const values = medium.getAll(job.names, { maxBytes: job.maxBytes, isWanted });
    return isWanted() ? { kind: "values", values } : { kind: "abandoned" };
  }
  const { name, place, kind } = job;
  const value = memory + BigInt(medium.valueOffset);
  const withPlace = (copy: () => void) => {
    if (Atomics.compareExchange(words, stateWord, states.running, states.held) !== states.running) return false;
    copy();
    Atomics.store(words, stateWord, states.running);
    return true;
  };
  if (kind === "write") {
    if (!withPlace(() => copyMemory(value, place.address, place.bytes))) return { kind: "abandoned" };
    return { kind: medium.write(name, place.bytes) };
  }
  if (medium.read(name, place.bytes) === "gone") return { kind: "gone" };
  return { kind: withPlace(() => copyMemory(place.address, value, place.bytes)) ? "read" : "abandoned" };
}

function tidy(options: ThreadOptions, words: Int32Array): Answer {
  if (options.plugin !== "POSIX") return { kind: "failed", message: "Bug: a bucket is not tidied from here" };
  const { folder, ttlSeconds, maxBytes } = options;
  const pause = () => mustGoOn(words);
  return { kind: "collected", collected: collect({ folder, ttlSeconds, maxBytes, now: Date.now, pause }) };
}

function mediumOf(options: ThreadOptions, memory: Place, words: Int32Array): Medium {
  const { plugin, parameters, library } = options;
  const nixl = new Nixl(library);
  const openAgent = () => new NixlAgent({ nixl, plugin, parameters, memory });
  const wait = (poll: () => "running" | "done" | "failed") => waitFor(poll, words);
  if (options.plugin === "OBJ") return new Objects({ prefix: options.prefix, memory, openAgent, wait });
  const { folder, ttlSeconds } = options;
  return new Files({ folder, ttlSeconds, memory, openAgent, wait });
}

function waitFor(poll: () => "running" | "done" | "failed", words: Int32Array): "done" | "failed" {
  for (let looks = 0; ; looks += 1) {
    const state = poll();
    if (state !== "running") return state;
    mustGoOn(words);
    if (looks < busyLooks) continue;
    const pauseMs = Math.min(mostPauseMs, leastPauseMs * 2 ** (looks - busyLooks));
    Atomics.wait(words, stopWord, 0, pauseMs);
  }
}

function mustGoOn(words: Int32Array): void {
  if (Atomics.load(words, stopWord) !== 0) throw new Stopped();
}
