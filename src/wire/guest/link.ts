/**
 * A guest's side of the wire: a CacheSession over a unix socket.
 *
 * It never stands in the way: while the cache is gone, slow or full, every verb answers "miss" at once or at its
 * deadline, and the connection is made again in the background. An answer that comes after its deadline is not used, and
 * the leases in it are given back. A cache that answers nothing at all is disconnected.
 *
 *     connecting ──welcome──► connected ──broken, silent──► waiting ──backoff──► connecting …
 *          └──refused──► waiting                                close() ends it from everywhere
 */
import { connect } from "node:net";
import type { Root } from "../../identity/keys.ts";
import type { Tokens } from "../../identity/tokens.ts";
import { within } from "../../deadline.ts";
import {
  lookupOf,
  type BringOptions,
  type CacheSession,
  type LeaseId,
  type LoadedPart,
  type LoadOptions,
  type Lookup,
  type LookupOptions,
  type Reservation,
  type SessionOptions,
  type WaitOptions,
  type WrittenPart,
} from "../../session.ts";
import { spaceId, type SpaceId } from "../../identity/space.ts";
import { describe, RepriseError } from "../../errors.ts";
import { silentLog, type Log } from "../../log.ts";
import { defaultChannelLimits, type ChannelLimits } from "../channel.ts";
import { Connection, type PoolPlace } from "./connection.ts";
import { checkSocket } from "../socket-place.ts";

export interface ConnectOptions extends SessionOptions {
  readonly socketPath: string;
  readonly token?: string;
  readonly log?: Log;
  /** How long the first connection may take; 5 s unless given. */
  readonly connectMs?: number;
  /** Pause before the second try to connect again; doubled up to 16 times as long. 100 ms unless given. */
  readonly reconnectMs?: number;
  /** A silent cache is asked for a sign of life this often, and disconnected when it gives none; 5 s unless given. */
  readonly pingMs?: number;
  readonly limits?: Partial<ChannelLimits>;
  /**
   * The cache is back, with another pool. Called before any slot in it is named: whoever maps the pool maps this one
   * from now on.
   */
  readonly onPoolChanged?: (pool: PoolPlace) => void;
}

/**
 * Connects to the cache at `socketPath`.
 *
 * @throws RepriseError CACHE_UNAVAILABLE when nobody answers in time; the refusal's own code when the cache refuses.
 */
export async function connectCache(options: ConnectOptions): Promise<CacheLink> {
  const session = new CacheLink(options);
  try {
    await session.connect();
  } catch (error) {
    await session.close();
    throw error;
  }
  return session;
}

export class CacheLink implements CacheSession {
  readonly spaceId: SpaceId;
  readonly #options: ConnectOptions;
  readonly #log: Log;
  #connection: Connection | undefined;
  #pool: PoolPlace = { path: "", bytes: 0 };
  /** Grows with each connection: leases of an earlier one are told apart by it. */
  #epoch = 0;
  #retries = 0;
  #retry: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(options: ConnectOptions) {
    this.#options = options;
    this.spaceId = spaceId(options.space);
    this.#log = options.log ?? silentLog;
  }

  get chunkTokens(): number {
    return this.#options.space.chunkTokens;
  }

  /** The pool of the present connection, or of the last one. */
  get pool(): PoolPlace {
    return this.#pool;
  }

  get isConnected(): boolean {
    return this.#connection !== undefined;
  }

  /** One attempt to connect. {@link connectCache} makes the first; later ones happen by themselves. */
  async connect(): Promise<void> {
    const { socketPath, connectMs = 5000, pingMs = 5000, limits } = this.#options;
    try {
      await checkSocket(socketPath);
    } catch (error) {
      if (!this.#closed && this.#pool.path !== "") this.#connectLater();
      throw error;
    }
    const connection = new Connection(connect(socketPath), {
      epoch: (this.#epoch += 1),
      limits: { ...defaultChannelLimits, ...limits },
      pingMs,
      onEnd: (reason) => this.#lost(connection, reason),
    });
    try {
      const welcome = await within(connection.handshake(this.#options), connectMs);
      if (welcome === "late")
        throw new RepriseError("CACHE_UNAVAILABLE", `no answer within ${connectMs} ms from ${socketPath}`);
      if (welcome.spaceId !== this.spaceId)
        throw new RepriseError("PROTOCOL", "the cache computes another identity for this space");
      if (this.#closed) throw new RepriseError("CANCELLED", "the session was closed while it connected");
      this.#use(connection, welcome.pool);
    } catch (error) {
      connection.destroy(error instanceof Error ? error : new Error(String(error)));
      throw error;
    }
  }

  async lookup(root: Root, tokens: Tokens, options: LookupOptions): Promise<Lookup> {
    return (await this.#connection?.lookup(root, tokens, options)) ?? lookupOf([], 0);
  }

  async *load(
    root: Root,
    tokens: Tokens,
    from: number,
    options: LoadOptions,
  ): AsyncGenerator<readonly LoadedPart[], void, void> {
    if (this.#connection !== undefined) yield* this.#connection.load(root, tokens, from, options);
  }

  holds(lease: LeaseId): boolean {
    return this.#connection?.holds(lease) ?? false;
  }

  release(leases: readonly LeaseId[]): void {
    this.#connection?.giveBack("release", leases);
  }

  async touch(root: Root, tokens: Tokens, wait: WaitOptions): Promise<number> {
    return (await this.#connection?.touch(root, tokens, wait)) ?? 0;
  }

  async pin(root: Root, tokens: Tokens, seconds: number, options: BringOptions): Promise<number> {
    return (await this.#connection?.pin(root, tokens, seconds, options)) ?? 0;
  }

  async prefetch(root: Root, tokens: Tokens, options: BringOptions): Promise<number> {
    return (await this.#connection?.prefetch(root, tokens, options)) ?? 0;
  }

  async reserve(root: Root, tokens: Tokens, wait: WaitOptions): Promise<Reservation> {
    return (await this.#connection?.reserve(root, tokens, wait)) ?? { parts: [], full: true };
  }

  async commit(chunks: readonly WrittenPart[], wait: WaitOptions): Promise<void> {
    await this.#connection?.commit(chunks, wait);
  }

  abandon(leases: readonly LeaseId[]): void {
    this.#connection?.giveBack("abandon", leases);
  }

  /** The cache's figures ({@link ../cache/counters.ts} CacheStats), or undefined when it does not answer in time. */
  async stats(wait: WaitOptions): Promise<{ readonly [key: string]: unknown } | undefined> {
    return this.#connection?.stats(wait);
  }

  /** True when the cache answers within the deadline. */
  async ping(wait: WaitOptions): Promise<boolean> {
    return (await this.#connection?.ping(wait)) ?? false;
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#retry);
    const connection = this.#connection;
    this.#connection = undefined;
    await connection?.bye();
  }

  #use(connection: Connection, pool: PoolPlace): void {
    const changed = this.#pool.path !== "" && this.#pool.path !== pool.path;
    this.#pool = pool;
    if (changed) this.#options.onPoolChanged?.(pool);
    this.#connection = connection;
    this.#retries = 0;
  }

  #lost(connection: Connection, reason: Error | undefined): void {
    if (this.#closed) return;
    const wasConnected = this.#connection === connection;
    if (wasConnected) {
      this.#connection = undefined;
      this.#log.warn(
        `lost the cache at ${this.#options.socketPath}: ${reason === undefined ? "it closed the connection" : describe(reason)}`,
      );
    }
    // A first connection that fails is the caller's to handle.
    if (wasConnected || this.#pool.path !== "") this.#connectLater();
  }

  #connectLater(): void {
    clearTimeout(this.#retry);
    const pause = (this.#options.reconnectMs ?? 100) * 2 ** Math.min(this.#retries, 4);
    this.#retries += 1;
    this.#retry = setTimeout(() => {
      this.connect().then(
        () => this.#log.info(`the cache at ${this.#options.socketPath} is back`),
        // Whatever it was, the connection's end has set the next try.
        (error: unknown) => this.#log.debug(`no cache at ${this.#options.socketPath}: ${describe(error)}`),
      );
    }, pause);
    this.#retry.unref();
  }
}
