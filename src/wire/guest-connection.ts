/** One guest at the cache's door: its connection, its session, and the requests it waits for. */
import type { Socket } from "node:net";
import type { Cache } from "../cache/cache.ts";
import type { CacheSession, LoadedChunk, Lookup, ReadOptions } from "../cache/session.ts";
import { RepriseError } from "../errors.ts";
import { Channel, type ChannelLimits } from "./channel.ts";
import {
  maxPendingRequests,
  maxPendingTokens,
  parseRequest,
  pinnedPool,
  protocolVersion,
  tierNumbers,
  type Answer,
  type Hello,
  type LoadedTuple,
  type Request,
} from "./protocol.ts";

export interface GuestConnectionOptions {
  readonly cache: Pick<Cache, "openSession" | "stats" | "clear" | "compact">;
  readonly mayEnter: (token: string) => boolean;
  readonly graceMs: number;
  readonly helloMs: number;
  readonly limits: ChannelLimits;
  /** The connection is over and its leases have fallen. */
  readonly onOver: (reason: Error | undefined) => void;
}

type Numbered = Exclude<Request, { type: "hello" | "cancel" | "release" | "abandon" | "bye" }>;
/** What a guest without a session may ask. */
type Unbound = Extract<Numbered, { type: "stats" | "clear" | "compact" | "ping" }>;

export class GuestConnection {
  readonly #options: GuestConnectionOptions;
  readonly #channel: Channel;
  readonly #helloTimer: NodeJS.Timeout;
  /** Requests not answered yet; a load's entry says whether it was called off. */
  readonly #pending = new Map<number, { cancelled: boolean }>();
  #pendingTokens = 0;
  #greeted = false;
  #session: CacheSession | undefined;
  #saidBye = false;
  #hasPinnedPool = false;
  #grace: NodeJS.Timeout | undefined;
  #reason: Error | undefined;
  /** Fires when the connection is over: what takes long and is for this guest alone ends then. */
  readonly #gone = new AbortController();
  #over = false;

  constructor(socket: Socket, options: GuestConnectionOptions) {
    this.#options = options;
    this.#channel = new Channel(socket, options.limits, {
      onFrame: (body) => this.#received(parseRequest(body)),
      onEnd: (reason) => this.#disconnected(reason),
    });
    this.#helloTimer = setTimeout(
      () => this.#channel.destroy(new RepriseError("PROTOCOL", "a peer connected and did not say hello")),
      options.helloMs,
    );
  }

  /** The guest's device may read and write the pool's pages as they are now. */
  get hasPinnedPool(): boolean {
    return this.#hasPinnedPool;
  }

  /** Disconnects the guest and ends its session without grace: the cache itself is going. */
  async close(): Promise<void> {
    this.#saidBye = true;
    this.#channel.destroy(new RepriseError("CANCELLED", "the cache is closing"));
    clearTimeout(this.#grace);
    await this.#finish();
  }

  #disconnected(reason: Error | undefined): void {
    clearTimeout(this.#helloTimer);
    this.#gone.abort();
    this.#reason = reason;
    if (this.#session === undefined || this.#saidBye) void this.#finish();
    else this.#grace = setTimeout(() => void this.#finish(), this.#options.graceMs);
  }

  async #finish(): Promise<void> {
    if (this.#over) return;
    this.#over = true;
    await this.#session?.close();
    this.#options.onOver(this.#reason);
  }

  #received(request: Request): void {
    if (request.type === "hello") {
      this.#greet(request);
      return;
    }
    if (!this.#greeted) throw new RepriseError("PROTOCOL", "a peer did not begin with hello");
    switch (request.type) {
      case "release":
        this.#mustHaveSession().release(request.leases);
        return;
      case "abandon":
        this.#mustHaveSession().abandon(request.leases);
        return;
      case "cancel": {
        const load = this.#pending.get(request.id);
        if (load !== undefined) load.cancelled = true;
        return;
      }
      case "bye":
        this.#saidBye = true;
        void this.#finish().then(() => this.#channel.end());
        return;
      default:
        void this.#answer(request, isUnbound(request) ? undefined : this.#mustHaveSession());
    }
  }

  #mustHaveSession(): CacheSession {
    if (this.#session === undefined) throw new RepriseError("PROTOCOL", "a peer without a session asked for more");
    return this.#session;
  }

  #greet(hello: Hello): void {
    if (this.#greeted) throw new RepriseError("PROTOCOL", "a peer said hello twice");
    const refusal = this.#enter(hello);
    if (refusal === undefined) return;
    this.#send({ type: "error", id: hello.id, code: refusal.code, message: refusal.message });
    this.#channel.end();
  }

  #enter(hello: Hello): RepriseError | undefined {
    if (hello.version !== protocolVersion)
      return new RepriseError(
        "PROTOCOL",
        `protocol version ${hello.version} was asked for; this cache speaks ${protocolVersion}`,
      );
    if (!this.#options.mayEnter(hello.token)) return new RepriseError("PROTOCOL", "the token is not this cache's");
    const { memory } = this.#options.cache.stats();
    if (hello.features.includes(pinnedPool) && memory.leavingBytes > 0)
      return new RepriseError("QUEUE_FULL", "the memory pool is being shrunk: connect when it has been");
    try {
      const { space, rank, slotBytes } = hello;
      if (space !== undefined) this.#session = this.#options.cache.openSession({ space, rank, slotBytes });
    } catch (error) {
      if (error instanceof RepriseError) return error;
      throw error;
    }
    this.#hasPinnedPool = hello.features.includes(pinnedPool);
    clearTimeout(this.#helloTimer);
    this.#greeted = true;
    this.#channel.greeted();
    this.#send({
      type: "welcome",
      id: hello.id,
      version: protocolVersion,
      features: hello.features.filter((name) => name === pinnedPool),
      spaceId: this.#session?.spaceId ?? "",
      poolPath: this.#session?.pool.path ?? "",
      poolBytes: this.#session?.pool.bytes ?? 0,
      poolCapacityBytes: this.#session === undefined ? 0 : memory.capacityBytes,
    });
    return undefined;
  }

  async #answer(request: Numbered, session: CacheSession | undefined): Promise<void> {
    const { id } = request;
    if (this.#pending.has(id)) {
      this.#channel.destroy(new RepriseError("PROTOCOL", "a peer used a number twice"));
      return;
    }
    const tokens = "tokens" in request ? request.tokens.length : 0;
    if (this.#pending.size >= maxPendingRequests || this.#pendingTokens + tokens > maxPendingTokens) {
      this.#send({ type: "error", id, code: "QUEUE_FULL", message: `${this.#pending.size} requests wait already` });
      return;
    }
    const state = { cancelled: false };
    // A session reads the tokens before its first await: they lie in the connection's buffer and are gone after that.
    this.#pending.set(id, state);
    this.#pendingTokens += tokens;
    try {
      if (isUnbound(request)) this.#send(await this.#answerUnbound(request));
      else if (request.type === "load") await this.#load(session!, request, state); // #received asked for it
      else this.#send(await this.#answerTo(session!, request)); // likewise
    } finally {
      this.#pending.delete(id);
      this.#pendingTokens -= tokens;
    }
  }

  async #answerUnbound(request: Unbound): Promise<Answer> {
    const { id, type } = request;
    const { cache } = this.#options;
    if (type === "ping") return { type: "pong", id };
    if (type === "stats") return { type: "figures", id, stats: JSON.parse(JSON.stringify(cache.stats())) };
    if (type === "compact") return { type: "compacted", id, ...(await cache.compact(this.#gone.signal)) };
    return { type: "cleared", id, ...(await cache.clear()) };
  }

  async #answerTo(session: CacheSession, request: Exclude<Numbered, { type: "load" } | Unbound>): Promise<Answer> {
    const { id } = request;
    switch (request.type) {
      case "lookup": {
        const found = await session.lookup(rootOf(request), request.tokens, readOptions(request));
        return { type: "found", id, ...found };
      }
      case "reserve": {
        const { chunks, full } = await session.reserve(rootOf(request), request.tokens, request);
        const tuples = chunks.map(
          ({ lease, firstToken, tokenCount, slot }) =>
            [lease, firstToken, tokenCount, slot.offset, slot.bytes] as const,
        );
        return { type: "reserved", id, full, chunks: tuples };
      }
      case "touch":
        return { type: "touched", id, hitTokens: await session.touch(rootOf(request), request.tokens, request) };
      case "pin": {
        const { tokens, seconds } = request;
        return { type: "pinned", id, pinnedTokens: await session.pin(rootOf(request), tokens, seconds, request) };
      }
      case "commit":
        await session.commit(request.chunks, request);
        return { type: "committed", id };
      default:
        throw new Error(`Bug: an unknown request ${JSON.stringify(request satisfies never)}`);
    }
  }

  async #load(
    session: CacheSession,
    request: Extract<Request, { type: "load" }>,
    state: { cancelled: boolean },
  ): Promise<void> {
    const { id, tokens, from, onlyReady } = request;
    const onFound = (found: Lookup) => this.#send({ type: "found", id, ...found });
    const options = { ...readOptions(request), onlyReady, onFound };
    for await (const batch of session.load(rootOf(request), tokens, from, options)) {
      if (state.cancelled || this.#channel.isOver) {
        session.release(batch.map(({ lease }) => lease));
        break;
      }
      this.#send({ type: "chunks", id, chunks: batch.map(loadedTuple) });
    }
    this.#send({ type: "loaded", id });
  }

  #send(answer: Answer): void {
    this.#channel.send(answer);
  }
}

function isUnbound(request: Numbered): request is Unbound {
  return ["stats", "clear", "compact", "ping"].includes(request.type);
}

function loadedTuple({ lease, firstToken, tokenCount, matchedTokens, tier, slot }: LoadedChunk): LoadedTuple {
  return [lease, firstToken, tokenCount, matchedTokens, tierNumbers[tier], slot.offset, slot.bytes];
}

function readOptions({
  deadlineMs,
  computeNs,
}: {
  readonly deadlineMs: number;
  readonly computeNs: number;
}): ReadOptions {
  return { deadlineMs, computeMsPerToken: computeNs === 0 ? undefined : computeNs / 1e6 };
}

function rootOf({ salt, adapter }: { readonly salt: string; readonly adapter: string }): {
  salt: string;
  adapter: string;
} {
  return { salt, adapter };
}
