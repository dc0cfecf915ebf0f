/**
 * One connection of a guest to the cache: requests out, answers in, and which leases came over it.
 *
 * Leases are renumbered so that those of an earlier connection can never be mistaken for this one's:
 *
 *     lease seen by the guest = epoch × 2^36 + lease of the cache
 */
import type { Socket } from "node:net";
import type { Cleared } from "../cache/cache.ts";
import { tokenBytes, type Root, type Tokens } from "../cache/chunk.ts";
import { atDeadline } from "../cache/deadline.ts";
import type {
  LeaseId,
  LoadedChunk,
  LoadOptions,
  Lookup,
  ReadOptions,
  Reservation,
  SessionOptions,
  WaitOptions,
  WrittenChunk,
} from "../cache/session.ts";
import { RepriseError } from "../errors.ts";
import type { Compacted, TierName } from "../tier.ts";
import { Channel, type ChannelLimits } from "./channel.ts";
import {
  maxPendingRequests,
  maxRequestTokens,
  parseAnswer,
  protocolVersion,
  tierNumbers,
  type Answer,
  type LoadedTuple,
} from "./protocol.ts";

/** Where the pool's file lies and how long it is. */
export interface PoolPlace {
  readonly path: string;
  readonly bytes: number;
}

export interface Welcome {
  readonly spaceId: string;
  readonly pool: PoolPlace;
}

/** What a guest says of itself that wants no session. */
export interface NoSession {
  readonly space: null;
  readonly rank: 0;
  readonly slotBytes: 0;
}

export interface CacheLinkOptions {
  readonly epoch: number;
  readonly limits: ChannelLimits;
  readonly pingMs: number;
  readonly onEnd: (reason: Error | undefined) => void;
}

/** A request that waits: gets every answer with its number; undefined stands for "too late" and "connection lost". */
interface Waiter {
  /** True for a load, which has several answers. */
  readonly streams: boolean;
  receive(answer: Answer | undefined): void;
}

const epochStep = 2 ** 36;
const tierNames: readonly (TierName | undefined)[] = Object.entries(tierNumbers).reduce<TierName[]>(
  (names, [name, number]) => Object.assign(names, { [number]: name }),
  [],
);

export class CacheLink {
  readonly #channel: Channel;
  readonly #options: CacheLinkOptions;
  readonly #waiting = new Map<number, Waiter>();
  /** Requests nobody waits for any more whose answer has not come: bounded like those that wait. */
  readonly #late = new Map<number, Waiter>();
  readonly #held = new Set<LeaseId>();
  readonly #heartbeat: NodeJS.Timeout;
  #poolBytes = 0;
  #lastNumber = 0;
  #heard = true;
  #whenOver: (() => void)[] = [];

  constructor(socket: Socket, options: CacheLinkOptions) {
    this.#options = options;
    this.#channel = new Channel(socket, options.limits, {
      onFrame: (body) => this.#received(parseAnswer(body)),
      onEnd: (reason) => this.#ended(reason),
    });
    this.#heartbeat = setInterval(() => setImmediate(() => this.#beat()), options.pingMs);
    this.#heartbeat.unref();
  }

  /** The handshake. @throws RepriseError CACHE_UNAVAILABLE, or the refusal's own code */
  async greet(options: (SessionOptions | NoSession) & { readonly token?: string }): Promise<Welcome> {
    const { space, rank, slotBytes, token = "" } = options;
    const answer = await this.#ask({
      type: "hello",
      version: protocolVersion,
      features: [],
      space,
      rank,
      slotBytes,
      token,
    });
    if (answer?.type === "error") {
      throw new RepriseError(answer.code, `the cache refused: ${answer.message}`);
    }
    if (answer?.type !== "welcome") throw new RepriseError("CACHE_UNAVAILABLE", "no cache answered the handshake");
    if (answer.version !== protocolVersion)
      throw new RepriseError("PROTOCOL", `the cache speaks protocol version ${answer.version}, not ${protocolVersion}`);
    this.#channel.greeted();
    this.#poolBytes = answer.poolBytes;
    return { spaceId: answer.spaceId, pool: { path: answer.poolPath, bytes: answer.poolBytes } };
  }

  async lookup(root: Root, tokens: Tokens, options: ReadOptions): Promise<Lookup | undefined> {
    const answer = await this.#ask({ type: "lookup", ...textFields(root, tokens), ...costField(options) }, options);
    return answer?.type === "found" ? lookupOf(answer) : undefined;
  }

  async *load(
    root: Root,
    tokens: Tokens,
    from: number,
    options: LoadOptions,
  ): AsyncGenerator<readonly LoadedChunk[], void, void> {
    const { deadlineMs, onlyReady = false, onFound } = options;
    let arrived: LoadedChunk[] = [];
    let over = false;
    let wake = () => {};
    const receive = (answer: Answer | undefined) => {
      if (answer?.type === "found") onFound?.(lookupOf(answer));
      else if (answer?.type === "chunks") for (const tuple of answer.chunks) arrived.push(this.#loadedChunk(tuple));
      else over = true;
      wake();
    };
    const request = { type: "load", ...textFields(root, tokens), ...costField(options), from, onlyReady };
    const number = this.#send(request, { deadlineMs }, { streams: true, receive });
    if (number === undefined) return;
    const deadline = atDeadline(deadlineMs, () => this.#giveUp(number));
    try {
      for (;;) {
        const batch = arrived.filter(({ lease }) => this.holds(lease));
        arrived = [];
        if (batch.length > 0) yield batch;
        else if (over) return;
        else await new Promise<void>((resolve) => (wake = resolve));
      }
    } finally {
      deadline.cancel();
      this.giveBack(
        "release",
        arrived.map(({ lease }) => lease),
      );
      this.#giveUp(number);
    }
  }

  async reserve(root: Root, tokens: Tokens, wait: WaitOptions): Promise<Reservation | undefined> {
    const answer = await this.#ask({ type: "reserve", ...textFields(root, tokens) }, wait);
    if (answer?.type !== "reserved") return undefined;
    const chunks = answer.chunks.map(([lease, firstToken, tokenCount, offset, bytes]) => ({
      lease: this.#localLease(lease),
      firstToken,
      tokenCount,
      slot: { offset, bytes },
    }));
    return { chunks, full: answer.full };
  }

  async touch(root: Root, tokens: Tokens, wait: WaitOptions): Promise<number | undefined> {
    const answer = await this.#ask({ type: "touch", ...textFields(root, tokens) }, wait);
    return answer?.type === "touched" ? answer.hitTokens : undefined;
  }

  async pin(root: Root, tokens: Tokens, seconds: number, wait: WaitOptions): Promise<number | undefined> {
    const answer = await this.#ask({ type: "pin", ...textFields(root, tokens), seconds: Math.ceil(seconds) }, wait);
    return answer?.type === "pinned" ? answer.pinnedTokens : undefined;
  }

  async commit(chunks: readonly WrittenChunk[], wait: WaitOptions): Promise<void> {
    const held = chunks.filter(({ lease }) => this.#held.delete(lease));
    if (held.length === 0) return;
    const tuples = held.map(({ lease, bytes }) => [this.#cacheLease(lease), bytes]);
    await this.#ask({ type: "commit", chunks: tuples }, wait);
  }

  async stats(wait: WaitOptions): Promise<{ readonly [key: string]: unknown } | undefined> {
    const answer = await this.#ask({ type: "stats" }, wait);
    return answer?.type === "figures" ? answer.stats : undefined;
  }

  /** Makes the cache forget all that it has stored. */
  async clear(wait: WaitOptions): Promise<Cleared | undefined> {
    const answer = await this.#ask({ type: "clear" }, wait);
    if (answer?.type !== "cleared") return undefined;
    return { bytesByTier: answer.bytesByTier, chunksInUse: answer.chunksInUse };
  }

  /** Makes the cache give back the room of what cannot be found any more. */
  async compact(wait: WaitOptions): Promise<Compacted | undefined> {
    const answer = await this.#ask({ type: "compact" }, wait);
    if (answer?.type !== "compacted") return undefined;
    return { freedBytes: answer.freedBytes, movedBytes: answer.movedBytes };
  }

  async ping(wait: WaitOptions): Promise<boolean> {
    return (await this.#ask({ type: "ping" }, wait))?.type === "pong";
  }

  holds(lease: LeaseId): boolean {
    return this.#held.has(lease);
  }

  giveBack(type: "release" | "abandon", leases: readonly LeaseId[]): void {
    const held = leases.filter((lease) => this.#held.delete(lease));
    if (held.length > 0) this.#channel.send({ type, leases: held.map((lease) => this.#cacheLease(lease)) });
  }

  /** Ends the session; resolves when the cache has closed the connection. */
  async bye(): Promise<void> {
    if (this.#channel.isOver) return;
    const over = new Promise<void>((resolve) => this.#whenOver.push(resolve));
    this.#channel.send({ type: "bye" });
    this.#channel.end();
    const timer = setTimeout(() => this.destroy(new RepriseError("CANCELLED", "closed")), 1000);
    await over;
    clearTimeout(timer);
  }

  destroy(reason: Error): void {
    this.#channel.destroy(reason);
  }

  /** Sends a request and waits for its one answer; undefined: none within the deadline, or none possible. */
  #ask(request: object, wait?: WaitOptions): Promise<Answer | undefined> {
    return new Promise((resolve) => {
      let deadline: { cancel(): void } | undefined;
      const receive = (answer: Answer | undefined) => {
        deadline?.cancel();
        resolve(answer);
      };
      const number = this.#send(request, wait, { streams: false, receive });
      if (number === undefined) resolve(undefined);
      else if (wait !== undefined) deadline = atDeadline(wait.deadlineMs, () => this.#giveUp(number));
    });
  }

  #send(request: object, wait: WaitOptions | undefined, waiter: Waiter): number | undefined {
    if (this.#channel.isOver || this.#waiting.size + this.#late.size >= maxPendingRequests) return undefined;
    const id = (this.#lastNumber += 1);
    this.#waiting.set(id, waiter);
    const deadline =
      wait === undefined ? {} : { deadlineMs: Math.min(3_600_000, Math.max(0, Math.ceil(wait.deadlineMs))) };
    this.#channel.send({ ...request, id, ...deadline });
    return id;
  }

  /** Stops waiting for a request: what still comes is given back. */
  #giveUp(number: number): void {
    const waiter = this.#waiting.get(number);
    if (waiter === undefined) return;
    this.#waiting.delete(number);
    this.#late.set(number, waiter);
    this.#channel.send({ type: "cancel", id: number });
    waiter.receive(undefined);
  }

  #received(answer: Answer): void {
    this.#heard = true;
    this.#takeLeases(answer);
    const waiter = this.#waiting.get(answer.id);
    const asked = waiter ?? this.#late.get(answer.id);
    if (asked === undefined) throw new RepriseError("PROTOCOL", "the cache answered what was not asked");
    if (waiter === undefined) this.#returnLeases(answer);
    if (!asked.streams || (answer.type !== "found" && answer.type !== "chunks")) {
      this.#waiting.delete(answer.id);
      this.#late.delete(answer.id);
    }
    waiter?.receive(answer);
  }

  #takeLeases(answer: Answer): void {
    if (answer.type === "chunks")
      for (const [lease, , , , tier, offset, bytes] of answer.chunks) {
        if (tierNames[tier] === undefined) throw new RepriseError("PROTOCOL", "the cache named a tier that is unknown");
        this.#take(lease, offset, bytes);
      }
    if (answer.type === "reserved")
      for (const [lease, , , offset, bytes] of answer.chunks) this.#take(lease, offset, bytes);
  }

  #take(lease: number, offset: number, bytes: number): void {
    if (lease >= epochStep || offset + bytes > this.#poolBytes)
      throw new RepriseError("PROTOCOL", "the cache named a slot that is not in its pool");
    this.#held.add(this.#localLease(lease));
  }

  /** Gives back what came in an answer that nobody waits for. */
  #returnLeases(answer: Answer): void {
    if (answer.type === "chunks")
      this.giveBack(
        "release",
        answer.chunks.map(([lease]) => this.#localLease(lease)),
      );
    if (answer.type === "reserved")
      this.giveBack(
        "abandon",
        answer.chunks.map(([lease]) => this.#localLease(lease)),
      );
  }

  #loadedChunk([lease, firstToken, tokenCount, matchedTokens, tier, offset, bytes]: LoadedTuple): LoadedChunk {
    const slot = { offset, bytes };
    return { lease: this.#localLease(lease), firstToken, tokenCount, matchedTokens, tier: tierNames[tier]!, slot }; // known: #takeLeases
  }

  /** A link that has been silent since the last beat, though it was asked, is given up. */
  #beat(): void {
    if (this.#channel.isOver) return;
    if (!this.#heard) {
      this.destroy(new RepriseError("CACHE_UNAVAILABLE", "the cache gives no sign of life"));
      return;
    }
    this.#heard = false;
    this.#send({ type: "ping" }, { deadlineMs: this.#options.pingMs }, { streams: false, receive: () => {} });
  }

  #ended(reason: Error | undefined): void {
    clearInterval(this.#heartbeat);
    this.#held.clear();
    const waiters = [...this.#waiting.values()];
    this.#waiting.clear();
    this.#late.clear();
    for (const waiter of waiters) waiter.receive(undefined);
    for (const resolve of this.#whenOver.splice(0)) resolve();
    this.#options.onEnd(reason);
  }

  #localLease(lease: number): LeaseId {
    return (this.#options.epoch * epochStep + lease) as LeaseId;
  }

  #cacheLease(lease: LeaseId): number {
    return lease - this.#options.epoch * epochStep;
  }
}

function textFields(root: Root, tokens: Tokens): object {
  return { salt: root.salt, adapter: root.adapter, tokens: tokenBytes(tokens.subarray(0, maxRequestTokens)) };
}

/** Nanoseconds on the wire; 0 stands for "not known". */
function costField({ computeMsPerToken = 0 }: ReadOptions): object {
  return { computeNs: Math.max(0, Math.round(computeMsPerToken * 1e6)) };
}

function lookupOf({ hitTokens, tokensByTier, worthTokens }: Extract<Answer, { type: "found" }>): Lookup {
  return { hitTokens, tokensByTier, worthTokens };
}
