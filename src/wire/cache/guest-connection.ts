/** One guest at the cache's door: its connection, its session, and the requests it waits for. */
import type { Socket } from "node:net";
import type { Cache } from "../../cache/cache.ts";
import type { LocalSession } from "../../cache/sessions/local-session.ts";
import { atDeadline } from "../../deadline.ts";
import type { KeyedRoot } from "../../identity/keys.ts";
import type { Found, Lookup, ReadOptions, Slot } from "../../session.ts";
import { RepriseError } from "../../errors.ts";
import { Channel, type ChannelLimits } from "../channel.ts";
import { enter, type Entered, type HandshakeOptions } from "./handshake.ts";
import { Grace, type Holder } from "./lease-expiry.ts";
import {
  answerMap,
  maxMessageCharacters,
  maxPendingRequests,
  maxPendingTokens,
  parseRequest,
  type Answer,
  type Request,
  type RequestOf,
} from "../protocol.ts";

export interface GuestConnectionOptions extends HandshakeOptions {
  readonly cache: Pick<Cache, "openSession" | "stats" | "clear" | "compact">;
  readonly graceMs: number;
  readonly helloMs: number;
  readonly limits: ChannelLimits;
  /** The connection is over and its leases have fallen. */
  readonly onOver: (reason: Error | undefined) => void;
}

type Numbered = Exclude<Request, { type: "hello" | "cancel" | "release" | "abandon" | "bye" }>;
/** What a guest without a session may ask. */
type Unbound = RequestOf<"stats" | "clear" | "compact" | "ping">;

/** How long a guest that has said bye may take to close its end. */
const goodbyeMs = 1000;

export class GuestConnection implements Holder {
  readonly #options: GuestConnectionOptions;
  readonly #channel: Channel;
  readonly #helloDeadline: { cancel(): void };
  #goodbyeDeadline: { cancel(): void } | undefined;
  /** Requests not answered yet, with what calls off those that bring something into memory. */
  readonly #pending = new Map<number, AbortController | undefined>();
  #pendingTokens = 0;
  readonly #grace = new Grace();
  #entered: Entered | undefined;
  #saidBye = false;
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
    this.#helloDeadline = atDeadline(options.helloMs, () =>
      this.#channel.destroy(new RepriseError("PROTOCOL", "a peer connected and did not say hello")),
    );
  }

  /** The guest's device may read and write the pool's pages as they are now. */
  get hasRegisteredPool(): boolean {
    return this.#entered?.hasRegisteredPool ?? false;
  }

  /** Disconnects the guest and ends its session without grace: the cache itself is going. */
  async close(): Promise<void> {
    this.#saidBye = true;
    this.#channel.destroy(new RepriseError("CANCELLED", "the cache is closing"));
    this.#grace.cancel();
    await this.#finish();
  }

  get leaseAgeMs(): number | undefined {
    return this.#channel.isOver ? undefined : this.#entered?.session?.leaseAgeMs;
  }

  /** The guest may go on copying for the grace of a broken connection. */
  disconnect(reason: RepriseError): void {
    this.#channel.destroy(reason);
  }

  #disconnected(reason: Error | undefined): void {
    this.#helloDeadline.cancel();
    this.#goodbyeDeadline?.cancel();
    this.#gone.abort();
    for (const calledOff of this.#pending.values()) calledOff?.abort();
    this.#reason = reason;
    const holds = !this.#saidBye && this.#entered?.session?.leaseAgeMs !== undefined;
    this.#grace.begin(this.#options.graceMs, { holds, onOver: () => void this.#finish() });
  }

  async #finish(): Promise<void> {
    if (this.#over) return;
    this.#over = true;
    await this.#entered?.session?.close();
    this.#options.onOver(this.#reason);
  }

  #received(request: Request): void {
    if (request.type === "hello") {
      this.#handshake(request);
      return;
    }
    if (this.#entered === undefined) throw new RepriseError("PROTOCOL", "a peer did not begin with hello");
    switch (request.type) {
      case "release":
        this.#mustHaveSession().release(request.leases);
        return;
      case "abandon":
        this.#mustHaveSession().abandon(request.leases);
        return;
      case "cancel":
        this.#pending.get(request.id)?.abort();
        return;
      case "bye":
        this.#saidBye = true;
        void this.#finish().then(() => this.#channel.end());
        this.#goodbyeDeadline = atDeadline(goodbyeMs, () =>
          this.#channel.destroy(new RepriseError("PROTOCOL", "a peer said bye and did not leave")),
        );
        return;
      default:
        void this.#answer(request, isUnbound(request) ? undefined : this.#mustHaveSession());
    }
  }

  #mustHaveSession(): LocalSession {
    const session = this.#entered?.session;
    if (session === undefined) throw new RepriseError("PROTOCOL", "a peer without a session asked for more");
    return session;
  }

  #handshake(hello: RequestOf<"hello">): void {
    if (this.#entered !== undefined) throw new RepriseError("PROTOCOL", "a peer said hello twice");
    const entered = enter(hello, this.#options);
    if (entered instanceof RepriseError) {
      this.#send({ type: "error", id: hello.id, code: entered.code, message: entered.message });
      this.#channel.end();
      return;
    }
    this.#entered = entered;
    this.#helloDeadline.cancel();
    this.#channel.handshakeDone();
    this.#send(entered.welcome);
  }

  async #answer(request: Numbered, session: LocalSession | undefined): Promise<void> {
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
    const calledOff = bringsText(request) ? new AbortController() : undefined;
    // A session reads the tokens before its first await: they lie in the connection's buffer and are gone after that.
    this.#pending.set(id, calledOff);
    this.#pendingTokens += tokens;
    try {
      if (isUnbound(request)) this.#send(await this.#answerUnbound(request));
      else if (request.type === "load") await this.#load(session!, request, calledOff!.signal); // #received asked for it
      else this.#send(await this.#answerTo(session!, request, calledOff?.signal)); // likewise
    } catch (error) {
      if (!(error instanceof RepriseError)) throw error;
      this.#send({ type: "error", id, code: error.code, message: error.message.slice(0, maxMessageCharacters) });
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

  async #answerTo(
    session: LocalSession,
    request: Exclude<Numbered, { type: "load" } | Unbound>,
    signal: AbortSignal | undefined,
  ): Promise<Answer> {
    const { id } = request;
    switch (request.type) {
      case "lookup": {
        const found = ({ segments, worthTokens }: Lookup, more: boolean) =>
          ({ type: "found", id, segments, worthTokens, more }) as const;
        const onAsk = (known: Lookup) => this.#send(found(known, true));
        const options = { ...readOptions(request), awaited: request.awaited, onAsk };
        return found(await session.lookup(rootOf(request), request.tokens, options), false);
      }
      case "reserve": {
        const { parts, full } = await session.reserve(rootOf(request), request.tokens, request);
        return { type: "reserved", id, full, parts: parts.map(onWire) };
      }
      case "touch":
        return { type: "touched", id, hitTokens: await session.touch(rootOf(request), request.tokens, request) };
      case "pin": {
        const { tokens, seconds, deadlineMs } = request;
        const pinnedTokens = await session.pin(rootOf(request), tokens, seconds, { deadlineMs, signal });
        return { type: "pinned", id, pinnedTokens };
      }
      case "prefetch": {
        const { tokens, deadlineMs } = request;
        const readyTokens = await session.prefetch(rootOf(request), tokens, { deadlineMs, signal });
        return { type: "prefetched", id, readyTokens };
      }
      case "commit":
        await session.commit(request.parts, request);
        return { type: "committed", id };
      default:
        throw new Error(`Bug: an unknown request ${JSON.stringify(request satisfies never)}`);
    }
  }

  async #load(session: LocalSession, request: RequestOf<"load">, signal: AbortSignal): Promise<void> {
    const { id, tokens, from, onlyReady } = request;
    const onFound = ({ segments, worthTokens, more }: Found) =>
      this.#send({ type: "found", id, segments, worthTokens, more });
    const options = { ...readOptions(request), onlyReady, onFound, signal };
    for await (const batch of session.load(rootOf(request), tokens, from, options)) {
      if (signal.aborted) {
        session.release(batch.map(({ lease }) => lease));
        break;
      }
      this.#send({ type: "parts", id, parts: batch.map(onWire) });
    }
    this.#send({ type: "loaded", id });
  }

  #send(answer: Answer): void {
    this.#channel.send(answerMap(answer));
  }
}

/** A part as its row has it. */
function onWire<Part extends { readonly slot: Slot }>({ slot, ...part }: Part): Omit<Part, "slot"> & Slot {
  return { ...part, ...slot };
}

function bringsText({ type }: Numbered): boolean {
  return type === "load" || type === "prefetch" || type === "pin";
}

function isUnbound(request: Numbered): request is Unbound {
  return ["stats", "clear", "compact", "ping"].includes(request.type);
}

function rootOf({ root, tenant }: RequestOf<"lookup" | "load" | "reserve" | "touch" | "pin" | "prefetch">): KeyedRoot {
  return { key: root, tenant };
}

function readOptions({ deadlineMs, computeNs }: RequestOf<"lookup" | "load">): ReadOptions {
  return { deadlineMs, computeMsPerToken: computeNs === 0 ? undefined : computeNs / 1e6 };
}
