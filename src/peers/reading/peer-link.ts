/**
 * One connection to another host: requests in their order, and payloads straight from the socket into the memory that they are for.
 *
 *     connecting ──welcome──► standing ──broken, silent for stallMs, an abort in a payload──► over
 *
 *     bytes     │ frame │ payload ……………………………… │ frame │
 *     read into  scratch  the slot, hashed as it comes   scratch
 *
 * Memory is given to the socket piece by piece, never more than the payload lacks. When a fetch is aborted whose bytes may be on
 * their way, the connection ends; and a fetch ends when what has come is unpacked. So nothing touches the memory afterwards.
 */
import { setMaxListeners } from "node:events";
import { connect as connectTcp, isIP, type Socket } from "node:net";
import { connect as connectTls, type TLSSocket } from "node:tls";
import { describe, RepriseError } from "../../errors.ts";
import { FrameReader, lendFrame } from "../../wire/frames.ts";
import {
  maxAnswerBytes,
  maxWaiting,
  parsePeerAnswer,
  type PeerAnswer,
  type PeerAnswerOf,
  type PeerRequest,
  peerRequestMap,
  type PeerRequestOf,
  peerVersion,
} from "../protocol.ts";
import type { PayloadPacker } from "../../tiers/shared/packing.ts";
import type { PeerAddress } from "./address.ts";
import { PackedSink } from "./packed-sink.ts";
import { PayloadSink, type Sink } from "./payload-sink.ts";

export interface PeerLinkOptions {
  readonly address: PeerAddress;
  /** Undefined: payloads are to come as they are. */
  readonly packer: PayloadPacker | undefined;
  /** How long a host may be silent that owes an answer. */
  readonly stallMs: number;
  /** A connection on which nothing was asked for so long is asked for a sign of life. */
  readonly pingMs: number;
  /** Once, when the connection is over. */
  readonly onOver: (reason: Error) => void;
}

/** A part that is wanted, and its memory. */
export interface WantedPart {
  readonly part: number;
  readonly view: Uint8Array;
}

export type Fetched =
  | { readonly outcome: "read" | "corrupt"; /** What has travelled. */ readonly storedBytes: number }
  | { readonly outcome: "gone" };

interface Waiting {
  readonly request: PeerRequest;
  /** Of a fetch. */
  readonly wanted: readonly WantedPart[];
  readonly resolve: (answer: PeerAnswer) => void;
  readonly reject: (error: Error) => void;
  /** Of the payloads that have been announced. */
  readonly sinks: Sink[];
}

/** For frames, and for what follows them in one read. */
const scratchBytes = 16 * 1024;

export class PeerLink {
  readonly #options: PeerLinkOptions;
  readonly #socket: Socket;
  readonly #reader = new FrameReader();
  readonly #scratch = Buffer.allocUnsafeSlow(scratchBytes);
  /** What was asked and is not answered, in order. */
  readonly #asked: Waiting[] = [];
  /** What has still to be asked. */
  readonly #queue: Waiting[] = [];
  readonly #watch: NodeJS.Timeout;
  #sink: Sink | undefined;
  #lastId = 0;
  #heardAt = performance.now();
  #reason: Error | undefined;
  #over = false;
  /** Bytes that were asked for, here or in the queue. */
  wantedBytes = 0;

  private constructor(options: PeerLinkOptions) {
    this.#options = options;
    this.#reader.limitBytes = maxAnswerBytes;
    this.#socket = this.#connect();
    this.#socket.on("error", (error) => (this.#reason ??= error));
    this.#socket.on("end", () => this.#socket.destroy());
    this.#socket.on("close", () => this.#ended(this.#reason ?? new Error("it closed the connection")));
    const everyMs = Math.min(options.stallMs, options.pingMs) / 4;
    // What has arrived meanwhile is read before it is judged (deadline.ts).
    this.#watch = setInterval(() => setImmediate(() => this.#look()), everyMs).unref();
  }

  /** Connects and says hello. @throws RepriseError TIER_UNAVAILABLE */
  static async open(options: PeerLinkOptions): Promise<PeerLink> {
    const link = new PeerLink(options);
    try {
      await link.#secured();
      const { token } = options.address;
      const answer = await link.#ask({ type: "hello", id: link.#nextId(), version: peerVersion, token });
      if (answer.type !== "welcome") throw unexpected(answer);
      return link;
    } catch (error) {
      link.destroy(error instanceof Error ? error : new Error(String(error)));
      throw error;
    }
  }

  get isOver(): boolean {
    return this.#over;
  }

  /** What the host has of the leading ones of these keys. @throws RepriseError TIER_UNAVAILABLE */
  async find(
    question: Omit<Extract<PeerRequest, { type: "find" }>, "type" | "id">,
  ): Promise<PeerAnswerOf<"found">["chunks"]> {
    const answer = await this.#ask({ type: "find", id: this.#nextId(), ...question });
    if (answer.type !== "found" || answer.chunks.length > question.keys.length) throw this.#broken(unexpected(answer));
    return answer.chunks;
  }

  /** Reads parts of a chunk into their memory. @throws RepriseError TIER_UNAVAILABLE */
  async fetch(
    key: Extract<PeerRequest, { type: "fetch" }>["key"],
    wanted: readonly WantedPart[],
    signal: AbortSignal,
  ): Promise<Fetched> {
    const parts = wanted.map(({ part, view }) => ({ part, roomBytes: view.length }));
    const compress = this.#options.packer === undefined ? "none" : "lossless";
    const request = { type: "fetch", id: this.#nextId(), key, parts, compress } as const;
    const sinks: Sink[] = [];
    try {
      const answer = await this.#fetched(request, { wanted, sinks }, signal);
      if (answer.type === "gone") return { outcome: "gone" };
      if (answer.type !== "sent") throw this.#broken(unexpected(answer));
      const isWhole = answer.checksums.length === wanted.length && sinks.length === wanted.length;
      const checksums = isWhole ? await Promise.all(sinks.map((sink) => sink.checksum())) : [];
      const isRight = isWhole && answer.checksums.every((each, i) => each === checksums[i]);
      const storedBytes = sinks.reduce((sum, sink) => sum + sink.storedBytes, 0);
      return { outcome: isRight ? "read" : "corrupt", storedBytes };
    } finally {
      await Promise.all(sinks.map((sink) => sink.ended()));
    }
  }

  /** The last answer to a fetch. */
  async #fetched(
    request: PeerRequestOf<"fetch">,
    into: { readonly wanted: readonly WantedPart[]; readonly sinks: Sink[] },
    signal: AbortSignal,
  ): Promise<PeerAnswer> {
    const bytes = into.wanted.reduce((sum, { view }) => sum + view.length, 0);
    const abort = () => this.#abort(request.id);
    setMaxListeners(0, signal); // one for each that is under way
    signal.addEventListener("abort", abort);
    this.wantedBytes += bytes;
    try {
      if (signal.aborted) throw new RepriseError("TIER_UNAVAILABLE", `${this.#where} was not asked in time`);
      return await this.#ask(request, into);
    } finally {
      this.wantedBytes -= bytes;
      signal.removeEventListener("abort", abort);
    }
  }

  destroy(reason: Error): void {
    this.#reason ??= reason;
    this.#socket.destroy();
    this.#ended(reason);
  }

  #connect(): Socket {
    const { host, port, tls } = this.#options.address;
    const onread = {
      buffer: () => this.#room(),
      callback: (bytes: number, into: Uint8Array) => this.#received(bytes, into),
    };
    if (tls === undefined) return connectTcp({ host, port, noDelay: true, onread });
    const name = isIP(host) === 0 ? { servername: host } : {};
    const trust = "ca" in tls ? { ca: tls.ca } : { rejectUnauthorized: false }; // the pin is compared before anything is said
    const options = { host, port, ...name, ...trust, minVersion: "TLSv1.2" as const, onread }; // which the types do not know
    return connectTls(options);
  }

  /** Resolves when the connection stands and the host has shown that it is the right one. */
  #secured(): Promise<void> {
    const { tls } = this.#options.address;
    return new Promise((resolve, reject) => {
      this.#socket.once("close", () => reject(this.#unavailable(this.#reason)));
      this.#socket.once(tls === undefined ? "connect" : "secureConnect", () => {
        this.#socket.setNoDelay(true);
        if (tls === undefined || "ca" in tls) return resolve();
        const shown = (this.#socket as TLSSocket).getPeerX509Certificate()?.fingerprint256; // connected by TLS
        if (shown?.replaceAll(":", "").toLowerCase() === tls.pin) return resolve();
        this.destroy(
          new RepriseError("TIER_UNAVAILABLE", `it shows another certificate than the pinned one: ${shown}`),
        );
      });
    });
  }

  #nextId(): number {
    return (this.#lastId += 1);
  }

  #ask(
    request: PeerRequest,
    { wanted = [], sinks = [] }: { wanted?: readonly WantedPart[]; sinks?: Sink[] } = {},
  ): Promise<PeerAnswer> {
    if (this.#over) return Promise.reject(this.#unavailable(this.#reason));
    return new Promise((resolve, reject) => {
      this.#queue.push({ request, wanted, sinks, resolve, reject });
      this.#send();
    });
  }

  #send(): void {
    while (this.#asked.length < maxWaiting) {
      const next = this.#queue.shift();
      if (next === undefined) return;
      if (this.#asked.length === 0) this.#heardAt = performance.now(); // it owed nothing until now
      this.#asked.push(next);
      this.#socket.write(Buffer.from(lendFrame(peerRequestMap(next.request))));
    }
  }

  /** One that was not sent is forgotten; of another bytes may be coming. */
  #abort(id: number): void {
    const reason = new RepriseError("TIER_UNAVAILABLE", `${this.#where} did not send a chunk in time`);
    const i = this.#queue.findIndex(({ request }) => request.id === id);
    if (i === -1) this.destroy(reason);
    else this.#queue.splice(i, 1)[0]!.reject(reason); // found
  }

  /** Where the next bytes go. */
  #room(): Uint8Array {
    return this.#sink?.room() ?? this.#scratch;
  }

  #received(bytes: number, into: Uint8Array): boolean {
    if (this.#over) return false;
    this.#heardAt = performance.now();
    try {
      if (into.buffer !== this.#scratch.buffer) this.#sink!.took(bytes); // only a sink gives other memory
      else {
        this.#reader.push(Buffer.from(into.subarray(0, bytes))); // a copy: what is not a whole frame waits
        this.#readFrames();
      }
      if (this.#sink?.isFull === true) this.#sink = undefined;
    } catch (error) {
      if (!(error instanceof RepriseError)) throw error;
      this.destroy(error);
    }
    return !this.#over;
  }

  #readFrames(): void {
    for (;;) {
      if (this.#sink !== undefined) {
        this.#sink.put(this.#reader.takeBytes(this.#sink.missingBytes));
        if (this.#sink.missingBytes > 0) return;
        if (this.#sink.isFull) this.#sink = undefined;
      }
      const body = this.#reader.next();
      if (body === undefined || this.#over) return;
      this.#answered(parsePeerAnswer(body));
    }
  }

  #answered(answer: PeerAnswer): void {
    const first = this.#asked[0];
    if (first === undefined || first.request.id !== answer.id)
      throw new RepriseError("PROTOCOL", `${this.#where} answered out of turn`);
    if (answer.type === "payload") return this.#announced(answer, first);
    if (answer.type === "block") return this.#blockComes(answer);
    this.#sink = undefined; // of a packed payload that has not come whole
    this.#asked.shift();
    first.resolve(answer);
    this.#send();
  }

  #announced({ part, length, isPacked }: PeerAnswerOf<"payload">, { wanted, sinks }: Waiting): void {
    const next = wanted[sinks.length];
    const isNext = this.#sink === undefined && next?.part === part && PayloadSink.fits(next.view, length);
    const { packer } = this.#options;
    if (!isNext || (isPacked && packer === undefined))
      throw new RepriseError("PROTOCOL", `${this.#where} sent a payload that was not asked for`);
    this.#sink =
      isPacked && packer !== undefined ? new PackedSink(next.view, length, packer) : new PayloadSink(next.view, length);
    sinks.push(this.#sink);
  }

  #blockComes({ bytes }: PeerAnswerOf<"block">): void {
    if (!(this.#sink instanceof PackedSink) || !this.#sink.begin(bytes))
      throw new RepriseError("PROTOCOL", `${this.#where} sent a block that belongs nowhere`);
  }

  #look(): void {
    if (this.#over) return;
    const silentMs = performance.now() - this.#heardAt;
    const { stallMs, pingMs } = this.#options;
    if (this.#asked.length > 0 && silentMs > stallMs)
      this.destroy(new RepriseError("TIER_UNAVAILABLE", `${this.#where} gave no sign of life for ${stallMs} ms`));
    else if (this.#asked.length === 0 && silentMs > pingMs)
      void this.#ask({ type: "ping", id: this.#nextId() }).catch(() => {}); // whoever asks next is told
  }

  /** The host has said what it should not have: the connection ends. */
  #broken(error: RepriseError): RepriseError {
    this.destroy(error);
    return error;
  }

  #ended(reason: Error): void {
    if (this.#over) return;
    this.#over = true;
    clearInterval(this.#watch);
    this.#sink = undefined;
    for (const { reject } of [...this.#asked.splice(0), ...this.#queue.splice(0)]) reject(this.#unavailable(reason));
    this.#options.onOver(this.#unavailable(reason));
  }

  #unavailable(reason: Error | undefined): RepriseError {
    if (reason instanceof RepriseError && reason.code === "TIER_UNAVAILABLE") return reason;
    const why = reason === undefined ? "the connection has ended" : describe(reason);
    return new RepriseError("TIER_UNAVAILABLE", `${this.#where}: ${why}`, { cause: reason });
  }

  get #where(): string {
    const { host, port } = this.#options.address;
    return `the host at ${host}:${port}`;
  }
}

function unexpected(answer: PeerAnswer): RepriseError {
  return new RepriseError(
    "TIER_UNAVAILABLE",
    answer.type === "error" ? answer.message : `an answer was ${answer.type}`,
  );
}
