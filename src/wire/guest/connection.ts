/**
 * One connection of a guest to the cache: requests out, answers in, and which leases came over it.
 *
 * Leases are renumbered so that those of an earlier connection can never be mistaken for this one's:
 *
 *     lease seen by the guest = epoch × 2^36 + lease of the cache
 */
import type { Socket } from "node:net";
import type { Cleared } from "../../session.ts";
import { keyedRoot, type Root } from "../../identity/keys.ts";
import type { Tokens } from "../../identity/tokens.ts";
import { atDeadline } from "../../deadline.ts";
import {
  type BringOptions,
  lookupOf,
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
import { assert, RepriseError } from "../../errors.ts";
import type { Compacted } from "../../tier.ts";
import { Channel, type ChannelLimits } from "../channel.ts";
import {
  maxDeadlineMs,
  maxPendingRequests,
  maxRequestTokens,
  parseAnswer,
  protocolVersion,
  requestMap,
  type Answer,
  type AnswerOf,
  type Request,
} from "../protocol.ts";
import { costField, listsOf, mustFit, wholeNumber } from "./within-limits.ts";

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
  readonly slotBytes: readonly [];
  readonly model?: undefined;
}

export interface ConnectionOptions {
  readonly epoch: number;
  readonly limits: ChannelLimits;
  readonly pingMs: number;
  readonly onEnd: (reason: Error | undefined) => void;
}

/** A request that waits: gets every answer with its number; undefined stands for "too late" and "connection lost". */
interface Waiter {
  /** True for a load, which has several answers. */
  readonly streams: boolean;
  /** Of a lookup: hears that others are asked. */
  readonly onAsk?: ((answer: AnswerOf<"found">) => void) | undefined;
  receive(answer: Answer | undefined): void;
}

const epochStep = 2 ** 36;

/** A request before it has its number and its deadline. */
type Asked<One = Request> = One extends { readonly id: number } ? Omit<One, "id" | "deadlineMs"> : never;

export class Connection {
  readonly #channel: Channel;
  readonly #options: ConnectionOptions;
  readonly #waiting = new Map<number, Waiter>();
  /** Requests nobody waits for any more whose answer has not come: bounded like those that wait. */
  readonly #late = new Map<number, Waiter>();
  readonly #held = new Set<LeaseId>();
  readonly #heartbeat: NodeJS.Timeout;
  #space: SpaceId | undefined;
  #poolBytes = 0;
  #groups = 0;
  #lastNumber = 0;
  #heard = true;
  #whenOver: (() => void)[] = [];

  constructor(socket: Socket, options: ConnectionOptions) {
    this.#options = options;
    this.#channel = new Channel(socket, options.limits, {
      onFrame: (body) => this.#received(parseAnswer(body)),
      onEnd: (reason) => this.#ended(reason),
    });
    this.#heartbeat = setInterval(() => setImmediate(() => this.#beat()), options.pingMs);
    this.#heartbeat.unref();
  }

  /** The handshake. @throws RepriseError CACHE_UNAVAILABLE, or the refusal's own code */
  async handshake(options: (SessionOptions | NoSession) & { readonly token?: string }): Promise<Welcome> {
    const { space, rank, slotBytes, token = "", model = "" } = options;
    mustFit(options);
    this.#space = space === null ? undefined : spaceId(space);
    this.#groups = slotBytes.length;
    const answer = await this.#ask({
      type: "hello",
      version: protocolVersion,
      features: [],
      space: space === null ? undefined : { ...space, groups: space.groups },
      rank,
      slotBytes,
      token,
      model,
    });
    if (answer?.type === "error") {
      throw new RepriseError(answer.code, `the cache refused: ${answer.message}`);
    }
    if (answer?.type !== "welcome") throw new RepriseError("CACHE_UNAVAILABLE", "no cache answered the handshake");
    if (answer.version !== protocolVersion)
      throw new RepriseError("PROTOCOL", `the cache speaks protocol version ${answer.version}, not ${protocolVersion}`);
    this.#channel.handshakeDone();
    this.#poolBytes = answer.poolBytes;
    return { spaceId: answer.spaceId, pool: { path: answer.poolPath, bytes: answer.poolBytes } };
  }

  async lookup(root: Root, tokens: Tokens, options: LookupOptions): Promise<Lookup | undefined> {
    const answer = await this.#ask(
      {
        type: "lookup",
        ...this.#textFields(root, tokens),
        ...costField(options),
        awaited: options.awaited ?? false,
      },
      options,
      (answer) => options.onAsk?.(lookupOf(answer.segments, answer.worthTokens)),
    );
    return answer?.type === "found" ? lookupOf(answer.segments, answer.worthTokens) : undefined;
  }

  async *load(
    root: Root,
    tokens: Tokens,
    from: number,
    options: LoadOptions,
  ): AsyncGenerator<readonly LoadedPart[], void, void> {
    const { deadlineMs, onlyReady = false, onFound, signal } = options;
    if (signal?.aborted === true) return;
    let arrived: LoadedPart[] = [];
    let over = false;
    let wake = () => {};
    const receive = (answer: Answer | undefined) => {
      if (answer?.type === "found") onFound?.({ ...lookupOf(answer.segments, answer.worthTokens), more: answer.more });
      else if (answer?.type === "parts") for (const part of answer.parts) arrived.push(this.#local(part));
      else over = true;
      wake();
    };
    const text = this.#textFields(root, tokens);
    const request = { type: "load", ...text, ...costField(options), from: wholeNumber(from), onlyReady } as const;
    const number = this.#send(request, { deadlineMs }, { streams: true, receive });
    if (number === undefined) return;
    const deadline = atDeadline(deadlineMs, () => this.#giveUp(number), signal);
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
    const answer = await this.#ask({ type: "reserve", ...this.#textFields(root, tokens) }, wait);
    if (answer?.type !== "reserved") return undefined;
    return { parts: answer.parts.map((part) => this.#local(part)), full: answer.full };
  }

  async touch(root: Root, tokens: Tokens, wait: WaitOptions): Promise<number | undefined> {
    const answer = await this.#ask({ type: "touch", ...this.#textFields(root, tokens) }, wait);
    return answer?.type === "touched" ? answer.hitTokens : undefined;
  }

  async pin(root: Root, tokens: Tokens, seconds: number, options: BringOptions): Promise<number | undefined> {
    const answer = await this.#ask(
      { type: "pin", ...this.#textFields(root, tokens), seconds: wholeNumber(seconds) },
      options,
    );
    return answer?.type === "pinned" ? answer.pinnedTokens : undefined;
  }

  async prefetch(root: Root, tokens: Tokens, options: BringOptions): Promise<number | undefined> {
    const answer = await this.#ask({ type: "prefetch", ...this.#textFields(root, tokens) }, options);
    return answer?.type === "prefetched" ? answer.readyTokens : undefined;
  }

  async commit(parts: readonly WrittenPart[], wait: WaitOptions): Promise<void> {
    const isWritten = ({ bytes }: WrittenPart) => Number.isSafeInteger(bytes) && bytes > 0;
    this.giveBack(
      "abandon",
      parts.filter((part) => !isWritten(part)).map(({ lease }) => lease),
    ); // as the cache would
    const held = parts.filter((part) => isWritten(part) && this.#held.delete(part.lease));
    const written = held.map(({ lease, bytes }) => ({ lease: this.#cacheLease(lease), bytes }));
    await Promise.all(
      listsOf(written).map(async (list) => {
        const answer = await this.#ask({ type: "commit", parts: list }, wait);
        if (answer?.type === "committed") return;
        // Not sent, refused or late: what was not stored is given back, and a commit that has arrived all the same stands.
        this.#channel.send(requestMap({ type: "abandon", leases: list.map(({ lease }) => lease) }));
      }),
    );
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
    const held = leases.filter((lease) => this.#held.delete(lease)).map((lease) => this.#cacheLease(lease));
    for (const list of listsOf(held)) this.#channel.send(requestMap({ type, leases: list }));
  }

  /** Ends the session; resolves when the cache has closed the connection. */
  async bye(): Promise<void> {
    if (this.#channel.isOver) return;
    const over = new Promise<void>((resolve) => this.#whenOver.push(resolve));
    this.#channel.send(requestMap({ type: "bye" }));
    this.#channel.end();
    const timer = setTimeout(() => this.destroy(new RepriseError("CANCELLED", "closed")), 1000);
    await over;
    clearTimeout(timer);
  }

  destroy(reason: Error): void {
    this.#channel.destroy(reason);
  }

  /** Sends a request and waits for its one answer; undefined: none within the deadline or before the signal, or none possible. */
  #ask(request: Asked, wait?: BringOptions, onAsk?: Waiter["onAsk"]): Promise<Answer | undefined> {
    if (wait?.signal?.aborted === true) return Promise.resolve(undefined);
    return new Promise((resolve) => {
      let deadline: { cancel(): void } | undefined;
      const receive = (answer: Answer | undefined) => {
        deadline?.cancel();
        resolve(answer);
      };
      const number = this.#send(request, wait, { streams: false, receive, onAsk });
      if (number === undefined) resolve(undefined);
      else if (wait !== undefined) deadline = atDeadline(wait.deadlineMs, () => this.#giveUp(number), wait.signal);
    });
  }

  /** @returns the request's number; undefined when it was not sent, since the cache would refuse it or reads too slowly */
  #send(request: Asked, wait: WaitOptions | undefined, waiter: Waiter): number | undefined {
    if (this.#channel.isOver || this.#waiting.size + this.#late.size >= maxPendingRequests) return undefined;
    if (!this.#channel.hasRoom("tokens" in request ? request.tokens.byteLength : 0)) return undefined;
    const id = (this.#lastNumber += 1);
    const deadline = wait === undefined ? {} : { deadlineMs: wholeNumber(wait.deadlineMs, maxDeadlineMs) };
    const message = requestMap({ ...request, id, ...deadline } as Request); // only a hello has no deadline
    this.#waiting.set(id, waiter);
    this.#channel.send(message);
    return id;
  }

  /** Stops waiting for a request: what still comes is given back. */
  #giveUp(number: number): void {
    const waiter = this.#waiting.get(number);
    if (waiter === undefined) return;
    this.#waiting.delete(number);
    this.#late.set(number, waiter);
    this.#channel.send(requestMap({ type: "cancel", id: number }));
    waiter.receive(undefined);
  }

  #received(answer: Answer): void {
    this.#heard = true;
    this.#takeLeases(answer);
    const waiter = this.#waiting.get(answer.id);
    const asked = waiter ?? this.#late.get(answer.id);
    if (asked === undefined) throw new RepriseError("PROTOCOL", "the cache answered what was not asked");
    if (waiter === undefined) this.#returnLeases(answer);
    if (asked.onAsk !== undefined && answer.type === "found" && answer.more) {
      waiter?.onAsk?.(answer);
      return; // its answer follows
    }
    if (!asked.streams || (answer.type !== "found" && answer.type !== "parts")) {
      this.#waiting.delete(answer.id);
      this.#late.delete(answer.id);
    }
    waiter?.receive(answer);
  }

  #takeLeases(answer: Answer): void {
    if (answer.type !== "parts" && answer.type !== "reserved") return;
    for (const { lease, group, offset, bytes } of answer.parts) {
      if (lease >= epochStep || offset + bytes > this.#poolBytes)
        throw new RepriseError("PROTOCOL", "the cache named a slot that is not in its pool");
      if (group >= this.#groups) throw new RepriseError("PROTOCOL", "the cache named a group that the space has not");
      this.#held.add(this.#localLease(lease));
    }
  }

  /** Gives back what came in an answer that nobody waits for. */
  #returnLeases(answer: Answer): void {
    if (answer.type !== "parts" && answer.type !== "reserved") return;
    const leases = answer.parts.map(({ lease }) => this.#localLease(lease));
    this.giveBack(answer.type === "parts" ? "release" : "abandon", leases);
  }

  /** A part of an answer as the guest sees it. */
  #local<Part extends { lease: LeaseId; offset: number; bytes: number }>({ lease, offset, bytes, ...rest }: Part) {
    return { ...rest, lease: this.#localLease(lease), slot: { offset, bytes } };
  }

  /** A connection that has been silent since the last beat, though it was asked, is given up. */
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

  #textFields(root: Root, tokens: Tokens) {
    assert(this.#space !== undefined, "a text was named before the session's space was");
    const { key, tenant } = keyedRoot(this.#space, root);
    return { root: key, tenant, tokens: tokens.subarray(0, maxRequestTokens) };
  }

  #localLease(lease: LeaseId): LeaseId {
    return (this.#options.epoch * epochStep + lease) as LeaseId;
  }

  #cacheLease(lease: LeaseId): LeaseId {
    return (lease - this.#options.epoch * epochStep) as LeaseId;
  }
}
