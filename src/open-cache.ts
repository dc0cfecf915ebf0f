/**
 * The library: a cache inside your own process, for an engine of your own.
 *
 *     const cache = await openCache({ name: "my-engine-v1 my-model", directory, memoryBytes, diskBytes, bytesPerToken });
 *     using known = await cache.load(tokens);                            // grab what was read before
 *     await cache.save(tokens, (firstToken, tokenCount, into) => …);     // keep what was read now
 *
 * Payloads are yours: the cache never looks inside. docs/library.md tells the rest.
 */
import { createHash } from "node:crypto";
import { bareRoot, type Root } from "./identity/keys.ts";
import { type Tokens } from "./identity/tokens.ts";
import { Cache } from "./cache/cache.ts";
import type { CacheStats } from "./cache/cache-stats.ts";
import type { SubscribeOptions, Subscription } from "./cache/subscription.ts";
import type { CacheSession, LoadedPart, Lookup, ReadOptions, ReservedPart, WrittenPart } from "./session.ts";
import { groupsOf, opaqueSpace, type SpaceDescription } from "./identity/space.ts";
import { RepriseError } from "./errors.ts";
import { silentLog, type Log } from "./log.ts";
import { DiskTier } from "./tiers/disk/disk-tier.ts";
import { MemoryPool } from "./tiers/memory.ts";

export interface OpenCacheOptions {
  /**
   * Whose payloads these are: a name for everything that changes their bytes (engine, model, precision, layout). Another
   * name finds nothing of this one. Give a whole {@link SpaceDescription} instead to share chunks with other processes.
   */
  readonly name: string | SpaceDescription;
  /** The most payload bytes one token takes. */
  readonly bytesPerToken: number;
  /** Memory for payloads; rounded down to 64 MiB, and at least that. */
  readonly memoryBytes: number;
  /** Where payloads are kept across restarts; memory only when undefined. */
  readonly directory?: string;
  /** What may lie in `directory`; at least 1 MiB. 16 GiB unless given. */
  readonly diskBytes?: number;
  /** Tokens per chunk, the unit of storing; 256 unless given (a SpaceDescription says it itself). */
  readonly chunkTokens?: number;
  /** Says when a disk fails; silent unless given. */
  readonly log?: Log;
}

export interface TextOptions {
  /** Texts of one salt and adapter are invisible to every other. */
  readonly root?: Partial<Root>;
  /** What is not there by then counts as a miss; 10 s unless given. */
  readonly deadlineMs?: number;
  /** What computing a token costs; given, only what loads faster than it is computed is loaded. */
  readonly computeMsPerToken?: number;
}

export interface PrefetchOptions extends Pick<TextOptions, "root" | "deadlineMs"> {
  /** Fires when nobody waits for the text any more: no more of it is read then. */
  readonly signal?: AbortSignal;
}

/**
 * One chunk of a loaded text: `skip` and `take` say which of its tokens are the text's, `target` where they stand in it.
 * `bytes` is the pool's own memory: read it before the {@link LoadedText} is released.
 */
export interface LoadedPayload extends Omit<LoadedPart, "lease" | "group" | "slot"> {
  readonly bytes: Uint8Array;
}

/** What is known of a text. Holds its chunks in place until it is released, by hand or by `using`. */
export interface LoadedText extends Disposable {
  /** Tokens of the text that need not be read again: those of all chunks. */
  readonly hitTokens: number;
  readonly chunks: readonly LoadedPayload[];
  /** Lets the chunks go; `bytes` must not be touched any more. Without effect the second time. */
  release(): void;
}

/** Writes the payload of `tokenCount` tokens from `firstToken` into `into`. @returns the bytes written, at least 1 */
export type WritePayload = (firstToken: number, tokenCount: number, into: Uint8Array) => number | Promise<number>;

/**
 * Opens a cache.
 *
 * @throws RepriseError DATA_DIRECTORY_IN_USE, BAD_REQUEST (with the field), BAD_CONFIG, TIER_UNAVAILABLE.
 */
export async function openCache(options: OpenCacheOptions): Promise<LibraryCache> {
  checkOptions(options);
  const { directory, diskBytes = 16 * 2 ** 30, memoryBytes, bytesPerToken, log = silentLog } = options;
  const space = typeof options.name === "string" ? namedSpace(options.name, options.chunkTokens ?? 256) : options.name;
  const tier =
    directory === undefined
      ? undefined
      : await DiskTier.open({ drives: [{ directory, capacityBytes: diskBytes }], log });
  let cache: Cache | undefined;
  try {
    const pool = MemoryPool.open({
      capacityBytes: memoryBytes,
      log,
      ...(directory === undefined ? {} : { dataDirectory: directory }),
    });
    // The engine was in the process that died: nobody is copying any more.
    cache = await Cache.open({ pool, tiers: tier === undefined ? [] : [tier], log, graceMs: 0 });
    const session = cache.openSession({ space, rank: 0, slotBytes: [bytesPerToken * space.chunkTokens] });
    await cache.recovered(1000);
    return new LibraryCache(cache, session, pool);
  } catch (error) {
    // The cache owns the tier from the moment it is open.
    await (cache ?? tier)?.[Symbol.asyncDispose]();
    throw error;
  }
}

export class LibraryCache implements AsyncDisposable {
  readonly #cache: Cache;
  readonly #session: CacheSession;
  readonly #pool: MemoryPool;
  /** Loads and saves, which have the pool's memory in their hands. */
  readonly #underWay = new Set<Promise<unknown>>();
  #closed: Promise<void> | undefined;

  /** Made by {@link openCache}. */
  constructor(cache: Cache, session: CacheSession, pool: MemoryPool) {
    this.#cache = cache;
    this.#session = session;
    this.#pool = pool;
  }

  get chunkTokens(): number {
    return this.#session.chunkTokens;
  }

  /** How many tokens of a text are known, and in which tier they are. Moves nothing. */
  async lookup(tokens: Tokens, options: TextOptions = {}): Promise<Lookup> {
    checkTokens(tokens);
    return this.#session.lookup(rootOf(options), tokens, waitOf(options));
  }

  /** Fetches what is known of a text, as far as it is there in time. Never throws for what is slow, corrupt or gone. */
  async load(tokens: Tokens, options: TextOptions = {}): Promise<LoadedText> {
    checkTokens(tokens);
    return this.#during(this.#load(tokens, options));
  }

  /**
   * Brings what is known of a text into memory, for a load that will come.
   *
   * @returns tokens that are in memory, from the text's start; fewer than are known when the time or the signal ended it.
   */
  async prefetch(tokens: Tokens, options: PrefetchOptions = {}): Promise<number> {
    checkTokens(tokens);
    const { deadlineMs } = waitOf(options);
    return this.#during(this.#session.prefetch(rootOf(options), tokens, { deadlineMs, signal: options.signal }));
  }

  /**
   * Stores what is not stored yet of a text: calls `write` for each such chunk, in order.
   *
   * @returns the tokens stored by this call; fewer than were missing when the memory is full of chunks in use.
   * @throws what `write` throws; the chunks before it are stored.
   */
  async save(
    tokens: Tokens,
    write: WritePayload,
    options: TextOptions = {},
  ): Promise<{ readonly savedTokens: number }> {
    checkTokens(tokens);
    return this.#during(this.#save(tokens, write, options));
  }

  stats(): CacheStats {
    return this.#cache.stats();
  }

  /** Tells what comes into memory and disk and leaves them, from now on: see {@link Subscription}. @throws RepriseError BAD_REQUEST, CACHE_UNAVAILABLE */
  subscribe(options?: SubscribeOptions): Subscription {
    return this.#cache.subscribe(options);
  }

  /** Resolves when all that was saved survives a power cut. */
  flush(): Promise<void> {
    return this.#cache.flush();
  }

  /**
   * Waits for the loads and saves under way, writes what waits to be written, and closes. The `bytes` of texts that were not
   * released must not be touched any more: their memory is gone.
   */
  close(): Promise<void> {
    return (this.#closed ??= this.#close());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #close(): Promise<void> {
    while (this.#underWay.size > 0) await Promise.allSettled(this.#underWay);
    await this.#session.close(); // in the same step that saw nothing under way: nothing more begins
    await this.#cache.close();
  }

  #during<T>(work: Promise<T>): Promise<T> {
    const noted: Promise<T> = work.finally(() => this.#underWay.delete(noted));
    this.#underWay.add(noted);
    return noted;
  }

  async #load(tokens: Tokens, options: TextOptions): Promise<LoadedText> {
    const loaded: LoadedPart[] = [];
    for await (const batch of this.#session.load(rootOf(options), tokens, 0, waitOf(options))) loaded.push(...batch);
    const release = () => this.#session.release(loaded.map(({ lease }) => lease));
    return {
      hitTokens: loaded.reduce((sum, { take }) => sum + take, 0),
      chunks: loaded.map(({ kind, firstToken, tokenCount, skip, take, target, tier, slot }) => {
        const bytes = this.#pool.view(slot.offset, slot.bytes);
        return { kind, firstToken, tokenCount, skip, take, target, tier, bytes };
      }),
      release,
      [Symbol.dispose]: release,
    };
  }

  async #save(tokens: Tokens, write: WritePayload, options: TextOptions): Promise<{ readonly savedTokens: number }> {
    const { parts } = await this.#session.reserve(rootOf(options), tokens, waitOf(options));
    const written: WrittenPart[] = [];
    let savedTokens = 0;
    try {
      for (const chunk of parts) {
        written.push({ lease: chunk.lease, bytes: await this.#writeOne(chunk, write) });
        savedTokens += chunk.tokenCount;
      }
    } finally {
      await this.#session.commit(written, waitOf(options));
      this.#session.abandon(parts.slice(written.length).map(({ lease }) => lease));
    }
    return { savedTokens };
  }

  async #writeOne({ firstToken, tokenCount, slot }: ReservedPart, write: WritePayload): Promise<number> {
    const bytes = await write(firstToken, tokenCount, this.#pool.view(slot.offset, slot.bytes));
    if (!Number.isSafeInteger(bytes) || bytes < 1 || bytes > slot.bytes)
      throw new RepriseError(
        "BAD_REQUEST",
        `a payload of ${bytes} bytes was reported; a chunk has 1 to ${slot.bytes}`,
        { field: "write" },
      );
    return bytes;
  }
}

const optionNames: readonly (keyof OpenCacheOptions)[] = [
  "name",
  "bytesPerToken",
  "memoryBytes",
  "directory",
  "diskBytes",
  "chunkTokens",
  "log",
];

/** Whoever writes JavaScript has no types to say so. @throws RepriseError BAD_REQUEST (with the field) */
function checkOptions(options: OpenCacheOptions): void {
  const refuse = (field: string, fault: string): never => {
    throw new RepriseError("BAD_REQUEST", `cannot open a cache: ${fault}`, { field });
  };
  for (const name of Object.keys(options))
    if (!(optionNames as readonly string[]).includes(name))
      refuse(name, `there is no option "${name}"; there are: ${optionNames.join(", ")}`);
  const { name, bytesPerToken, memoryBytes, diskBytes } = options;
  const isName = typeof name === "string" ? name !== "" : typeof name === "object" && name !== null;
  if (!isName) refuse("name", "name must be a text that says whose payloads these are, or a SpaceDescription");
  if (typeof name === "object" && groupsOf(name).join() !== "rows")
    refuse("name", "a space of several groups needs a session of its own; here there is one group of rows");
  for (const [field, bytes] of Object.entries({
    bytesPerToken,
    memoryBytes,
    ...(diskBytes !== undefined && { diskBytes }),
  }))
    if (!Number.isSafeInteger(bytes) || bytes < 1) refuse(field, `${field} must be a whole number of bytes, 1 or more`);
}

/** @throws RepriseError BAD_REQUEST */
function checkTokens(tokens: unknown): void {
  if (tokens instanceof Uint32Array) return;
  const fault = "tokens must be a Uint32Array: Uint32Array.from(ids) makes one of a list";
  throw new RepriseError("BAD_REQUEST", fault, { field: "tokens" });
}

/** A space for payloads of which only a name is known: the name takes the place of everything else. */
function namedSpace(name: string, chunkTokens: number): SpaceDescription {
  return opaqueSpace("library", createHash("sha256").update(name, "utf8").digest("hex"), chunkTokens);
}

function rootOf({ root }: TextOptions): Root {
  return { ...bareRoot, ...root };
}

function waitOf({ deadlineMs = 10_000, computeMsPerToken }: TextOptions): ReadOptions {
  return { deadlineMs, computeMsPerToken };
}
