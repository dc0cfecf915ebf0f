/**
 * Values where NIXL keeps them: files of a shared folder, or objects of a bucket.
 *
 *     heads ──────► 2 threads          each does one transfer at a time (transfer-threads.ts), so that a lookup waits behind no
 *     payloads ───► `transfers`        payload, and a load behind no write
 *     writes ─────► as many
 *     tidying ────► 1, files only      at the start and then each ten minutes: what has ended its time, and what is too much
 *
 * A bucket is tidied by its own lifecycle rules: NIXL can neither list nor delete.
 */
import { setMaxListeners } from "node:events";
import { stat } from "node:fs/promises";
import { codeOf, describe, RepriseError } from "../../errors.ts";
import type { Log } from "../../log.ts";
import { checkPrivateDirectory } from "../../private-directory.ts";
import type { TierQuota } from "../../tier.ts";
import type { NamedValue, ValueStore } from "../shared/value-store.ts";
import type { FileAddress, NixlAddress } from "./address.ts";
import { mostValueBytes } from "./medium.ts";
import { placeOf, TransferThreads } from "./transfer-threads.ts";
import type { Answer, ThreadOptions } from "./transfer-thread.ts";

export interface NixlStoreOptions {
  readonly address: NixlAddress;
  /** As library.ts found it. */
  readonly library: string;
  readonly log: Log;
}

interface Threads {
  readonly heads: TransferThreads;
  readonly reads: TransferThreads;
  readonly writes: TransferThreads;
  readonly tidying: TransferThreads;
}

const headThreads = 2;
/** Names that one job looks up: enough for the first question of a lookup. */
const namesPerJob = 64;
/** How long a store that was full is left alone. */
const fullMs = 5000;
const tidyMs = 600_000;
/** Room is made at most so often. */
const leastTidyMs = 30_000;

export class NixlStore implements ValueStore {
  readonly tier = "nixl";
  readonly #options: NixlStoreOptions;
  readonly #closing = new AbortController();
  #threads: Promise<Threads> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #fullUntil = 0;
  /** Of all hosts when the folder was looked at last, and what this one has written since; undefined: not yet known. */
  #usedBytes: number | undefined;
  #tidiedAt = Number.NEGATIVE_INFINITY;
  #isTidying = false;

  /** Opens nothing: a folder that is away is away, and the cache starts without it. */
  constructor(options: NixlStoreOptions) {
    this.#options = options;
    setMaxListeners(0, this.#closing.signal);
    if (options.address.plugin !== "POSIX") return;
    this.#timer = setInterval(() => this.#tidy(), tidyMs).unref();
    this.#tidy();
  }

  get where(): string {
    const { address } = this.#options;
    if (address.plugin === "POSIX") return `nixl://posix${address.folder}`;
    return `nixl://obj/${address.parameters["bucket"]}/${address.prefix}`;
  }

  /** Of all hosts when the folder was looked at last, and what this one has written since. */
  quota(): TierQuota | undefined {
    const { address } = this.#options;
    if (address.plugin !== "POSIX" || address.maxBytes === undefined) return undefined;
    return { limitBytes: address.maxBytes, ...(this.#usedBytes !== undefined && { usedBytes: this.#usedBytes }) };
  }

  async getAll(names: readonly string[], maxBytes: number, signal: AbortSignal): Promise<(Buffer | undefined)[]> {
    setMaxListeners(0, signal);
    const { heads } = await this.#ready(signal);
    const count = Math.ceil(names.length / namesPerJob);
    const parts = Array.from({ length: count }, (_, i) => names.slice(i * namesPerJob, (i + 1) * namesPerJob));
    const answers = await this.#all(parts.map((part) => heads.run({ kind: "getAll", names: part, maxBytes }, signal)));
    const values = answers.flatMap((answer) => (answer.kind === "values" ? answer.values : []));
    return values.map((value) => value && Buffer.from(value.buffer, value.byteOffset, value.length));
  }

  async read(name: string, into: Uint8Array, signal: AbortSignal): Promise<"read" | "gone"> {
    setMaxListeners(0, signal); // one for each value of a record
    if (into.length > mostValueBytes) return "gone";
    const { reads } = await this.#ready(signal);
    const [answer] = await this.#all([reads.run({ kind: "read", name, place: placeOf(into) }, signal, into)]);
    return answer!.kind === "read" ? "read" : "gone"; // one for one
  }

  async write(values: readonly NamedValue[], _tenant: string, signal: AbortSignal): Promise<"written" | "full"> {
    setMaxListeners(0, signal);
    const bytes = values.reduce((sum, value) => sum + value.bytes.length, 0);
    if (performance.now() < this.#fullUntil || !this.#takeRoom(bytes)) return "full";
    const { writes } = await this.#ready(signal);
    const write = ({ name, bytes: value }: NamedValue) =>
      writes.run({ kind: "write", name, place: placeOf(value) }, signal, value);
    const answers = await this.#all(values.slice(0, -1).map(write));
    if (answers.every(({ kind }) => kind === "written")) answers.push(...(await this.#all([write(values.at(-1)!)]))); // a head at least
    if (answers.every(({ kind }) => kind === "written")) return "written";
    if (!answers.some(({ kind }) => kind === "full")) return "full"; // for these alone: what is not ours has their place
    this.#fullUntil = performance.now() + fullMs;
    this.#tidy();
    return "full";
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer);
    this.#closing.abort();
    const threads = await this.#threads?.catch(() => undefined); // then there is nothing to close
    if (threads !== undefined) await Promise.all(Object.values(threads).map((each: TransferThreads) => each.close()));
  }

  /** Is there room for so many bytes? They are counted at once: writers on this host do not count on the same room. */
  #takeRoom(bytes: number): boolean {
    const { address } = this.#options;
    if (address.plugin !== "POSIX" || address.maxBytes === undefined) return true;
    if (this.#usedBytes === undefined || this.#usedBytes + bytes > address.maxBytes) {
      this.#tidy();
      return false;
    }
    this.#usedBytes += bytes;
    return true;
  }

  /** In the background. That it failed is no news: the next transfer says so too. */
  #tidy(): void {
    const now = performance.now();
    if (this.#isTidying || now - this.#tidiedAt < leastTidyMs || this.#closing.signal.aborted) return;
    this.#isTidying = true;
    this.#tidiedAt = now;
    const { log } = this.#options;
    const tidied = async () => {
      const { tidying } = await this.#ready(this.#closing.signal);
      const answer = await tidying.run({ kind: "collect" }, this.#closing.signal);
      if (answer.kind !== "collected") return;
      this.#usedBytes = answer.collected.leftBytes;
      const { removedFiles, leftBytes } = answer.collected;
      log.debug(`tidied the shared folder: ${removedFiles} files went, ${leftBytes} bytes are left`);
    };
    tidied()
      .catch((error: unknown) => log.debug(`could not tidy the shared folder: ${describe(error)}`))
      .finally(() => (this.#isTidying = false));
  }

  /** What all gave, when all have ended. @throws RepriseError TIER_UNAVAILABLE */
  async #all(works: readonly Promise<Answer>[]): Promise<Answer[]> {
    const ended = await Promise.allSettled(works);
    return ended.map((each) => {
      if (each.status === "rejected") throw this.#unavailable(each.reason);
      return each.value;
    });
  }

  /** The threads, once the folder was found to be there and ours. @throws RepriseError TIER_UNAVAILABLE */
  async #ready(signal: AbortSignal): Promise<Threads> {
    this.#threads ??= this.#open().catch((error: unknown) => {
      this.#threads = undefined; // it is tried again
      throw error;
    });
    let leave = () => {};
    const late = new Promise<never>((_, reject) => {
      leave = () => reject(new Error("it did not answer in time"));
      if (signal.aborted) leave();
      signal.addEventListener("abort", leave);
    });
    try {
      return await Promise.race([this.#threads, late]);
    } catch (error) {
      throw this.#unavailable(error);
    } finally {
      signal.removeEventListener("abort", leave);
    }
  }

  async #open(): Promise<Threads> {
    const { address } = this.#options;
    const options = await this.#threadOptions();
    const { parameters } = options;
    // Of objects a thread asks for many heads at a time, and moves one payload.
    const many = options.plugin === "OBJ" ? { ...options, parameters: { ...parameters, num_threads: "16" } } : options;
    return {
      heads: new TransferThreads(many, headThreads),
      reads: new TransferThreads(options, address.transfers),
      writes: new TransferThreads(options, address.transfers),
      tidying: new TransferThreads(options, 1),
    };
  }

  async #threadOptions(): Promise<ThreadOptions> {
    const { address, library, log } = this.#options;
    const { parameters } = address;
    if (address.plugin === "OBJ") return { plugin: "OBJ", prefix: address.prefix, library, parameters };
    // Not made here: a file system that is not mounted would be taken for an empty one.
    const isThere = await stat(address.folder).then(() => true, (error: unknown) => codeOf(error) !== "ENOENT"); // prettier-ignore
    if (!isThere)
      throw new Error(`there is no such folder: once its file system is mounted, run mkdir -m 700 ${address.folder}`);
    const { path, warnings } = await checkPrivateDirectory(address.folder, "the folder");
    for (const warning of warnings) log.warn(warning);
    const { ttlSeconds, maxBytes } = address satisfies FileAddress;
    return { plugin: "POSIX", folder: path, ttlSeconds, maxBytes, library, parameters };
  }

  #unavailable(error: unknown): RepriseError {
    if (error instanceof RepriseError && error.code === "TIER_UNAVAILABLE") return error;
    const { address } = this.#options;
    const where = address.plugin === "POSIX" ? address.folder : `bucket ${address.parameters["bucket"]}`;
    return new RepriseError("TIER_UNAVAILABLE", `NIXL at ${where}: ${describe(error)}`, { cause: error });
  }
}
