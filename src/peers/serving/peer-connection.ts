/**
 * One host that reads from this one: its requests in their order, one after the other.
 *
 *     hello ──► the token? ──► requests ──► nothing asked for idleMs, a piece not taken for stallMs: ended
 *
 * What it can hold here is bounded, whatever it does: some waiting requests, one chunk in its place, and two pieces on their way.
 * All of it falls with the connection.
 */
import type { Socket } from "node:net";
import type { ChunkInReading, ReadsByKey } from "../../cache/sessions/reads-by-key.ts";
import { atDeadline } from "../../deadline.ts";
import { codeOf, describe, RepriseError } from "../../errors.ts";
import type { Log } from "../../log.ts";
import { leafBytes, leavesOf, rootOf } from "../../tiers/payload-checksum.ts";
import { Channel } from "../../wire/channel.ts";
import {
  maxRequestBytes,
  maxWaiting,
  parsePeerRequest,
  type PeerAnswer,
  peerAnswerMap,
  type PeerRequest,
  type PeerRequestOf,
  peerVersion,
} from "../protocol.ts";
import { isSame } from "../../wire/same-secret.ts";
import type { ReadRoom } from "./read-room.ts";

/** What other hosts see of the cache. */
export interface ReadCache {
  reads(): Pick<ReadsByKey, "find" | "read" | "close">;
}
type Reads = ReturnType<ReadCache["reads"]>;

export interface PeerTimes {
  /** How long it may take to say hello, TLS included. */
  readonly helloMs: number;
  /** How long it may ask for nothing. */
  readonly idleMs: number;
  /** How long a piece may take to be taken. */
  readonly stallMs: number;
}

export interface PeerConnectionOptions extends PeerTimes {
  readonly cache: ReadCache;
  /** undefined: none is asked for. */
  readonly token: string | undefined;
  readonly room: ReadRoom;
  readonly log: Log;
  /** A chunk was sent whole. */
  readonly onServed: (bytes: number) => void;
  readonly onOver: (reason: Error | undefined) => void;
}

/** Sent at a time: hashed while it is in the processor's caches. A whole number of leaves. */
const pieceBytes = 2 * leafBytes;
/** Pieces after which other work is let in. */
const piecesPerTurn = 4;
const pageBytes = 4096;
const nothing = new Uint8Array();
/** Some pieces, and the longest answer. */
const maxOutgoingBytes = 8 * pieceBytes;
/** Lengths of parts in one answer: more than a MiB of them is a question from nobody. */
const maxLengths = 2 ** 18;

export class PeerConnection {
  readonly #options: PeerConnectionOptions;
  readonly #channel: Channel;
  readonly #gone = new AbortController();
  readonly #waiting: Exclude<PeerRequest, { type: "hello" }>[] = [];
  #deadline: { cancel(): void };
  #reads: Reads | undefined;
  #working = false;

  constructor(socket: Socket, options: PeerConnectionOptions) {
    this.#options = options;
    const limits = { maxOutgoingBytes, stallMs: options.stallMs };
    this.#deadline = this.#endIn(options.helloMs, "said no hello");
    this.#channel = new Channel(socket, limits, {
      onFrame: (body) => this.#received(parsePeerRequest(body)),
      onEnd: (reason) => this.#ended(reason),
    });
  }

  close(): void {
    this.#channel.destroy(new RepriseError("CANCELLED", "the cache is closing"));
  }

  #ended(reason: Error | undefined): void {
    this.#deadline.cancel();
    this.#gone.abort();
    this.#reads?.close();
    this.#options.onOver(reason);
  }

  #received(request: PeerRequest): void {
    if (request.type === "hello") return this.#greet(request);
    if (this.#reads === undefined) throw new RepriseError("PROTOCOL", "a host did not begin with hello");
    if (this.#waiting.length >= maxWaiting) throw new RepriseError("PROTOCOL", "a host asked for too much at once");
    this.#waiting.push(request);
    if (!this.#working) void this.#work(this.#reads);
  }

  #greet({ id, version, token }: PeerRequestOf<"hello">): void {
    const { cache, token: wanted } = this.#options;
    if (this.#reads !== undefined) throw new RepriseError("PROTOCOL", "a host said hello twice");
    const refusal =
      version !== peerVersion
        ? `version ${version} of the protocol was asked for; this host speaks ${peerVersion}`
        : wanted !== undefined && !isSame(token, wanted)
          ? "the token is not this host's"
          : undefined;
    if (refusal !== undefined) {
      this.#send({ type: "error", id, code: "PROTOCOL", message: refusal });
      this.#channel.end();
      return;
    }
    this.#reads = cache.reads();
    this.#channel.handshakeDone(maxRequestBytes);
    this.#send({ type: "welcome", id, version: peerVersion });
    this.#restIn();
  }

  async #work(reads: Reads): Promise<void> {
    this.#working = true;
    this.#deadline.cancel();
    try {
      for (let next = this.#waiting.shift(); next !== undefined; next = this.#waiting.shift()) {
        if (this.#channel.isOver) return;
        await this.#answer(reads, next);
      }
    } catch (error) {
      if (!(error instanceof RepriseError)) throw error;
      this.#channel.destroy(error);
    } finally {
      this.#working = false;
    }
    if (!this.#channel.isOver) this.#restIn();
  }

  async #answer(reads: Reads, request: Exclude<PeerRequest, { type: "hello" }>): Promise<void> {
    const { id } = request;
    if (request.type === "ping") return this.#send({ type: "pong", id });
    if (request.type === "find") {
      const found = reads.find(request.space, request.root, request.keys);
      return this.#send({ type: "found", id, chunks: within(maxLengths, found) });
    }
    const chunk = reads.read(request.key);
    if (chunk === undefined) return this.#send({ type: "gone", id });
    try {
      await this.#sendChunk(chunk, request);
    } finally {
      chunk.release();
    }
  }

  async #sendChunk(chunk: ChunkInReading, { id, parts }: PeerRequestOf<"fetch">): Promise<void> {
    const checksums: bigint[] = [];
    let sent = 0;
    using room = this.#options.room.holder();
    for (const { part, roomBytes } of parts) {
      const length = chunk.payloadBytes[part] ?? 0;
      const fits = roomBytes === length || roomBytes === Math.ceil(length / pageBytes) * pageBytes;
      const payload = fits ? await this.#payloadOf(chunk, part, room) : undefined;
      if (this.#channel.isOver) return;
      if (payload === undefined) return this.#send({ type: "gone", id });
      this.#send({ type: "payload", id, part, length });
      const known = chunk.checksum(part);
      const checksum = await this.#sendPayload(payload, known);
      if (checksum === undefined) return;
      if (known === undefined) chunk.noteChecksum(part, checksum);
      checksums.push(checksum);
      sent += length;
    }
    this.#send({ type: "sent", id, checksums });
    this.#options.onServed(sent);
  }

  async #payloadOf(
    chunk: ChunkInReading,
    part: number,
    room: ReturnType<ReadRoom["holder"]>,
  ): Promise<Uint8Array | undefined> {
    if (chunk.payloadBytes[part] === 0) return nothing;
    if (!chunk.isInPool(part)) await room.turn();
    if (this.#channel.isOver) return undefined;
    try {
      return await chunk.payload(part, (bytes) => room.take(bytes), this.#gone.signal);
    } catch (error) {
      if (codeOf(error) !== "TIER_UNAVAILABLE") throw error;
      this.#options.log.debug(`a chunk could not be read for another host: ${describe(error)}`);
      return undefined;
    }
  }

  /** @returns its checksum (payload-checksum.ts), computed unless it is known; undefined when the connection has ended */
  async #sendPayload(payload: Uint8Array, known: bigint | undefined): Promise<bigint | undefined> {
    const leaves: bigint[] = [];
    let before: Promise<boolean> = Promise.resolve(true);
    for (let at = 0, pieces = 1; at < payload.length; at += pieceBytes, pieces += 1) {
      const piece = payload.subarray(at, at + pieceBytes);
      if (known === undefined) leaves.push(...leavesOf(piece.length === pieceBytes ? piece : paddedCopy(piece)));
      const taken = this.#taken(piece);
      if (!(await before)) return undefined;
      before = taken;
      if (pieces % piecesPerTurn === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    return (await before) ? (known ?? rootOf(leaves)) : undefined;
  }

  async #taken(piece: Uint8Array): Promise<boolean> {
    const deadline = this.#endIn(this.#options.stallMs, "does not read what it asked for");
    const isTaken = await this.#channel.sendBytes(piece);
    deadline.cancel();
    return isTaken;
  }

  #restIn(): void {
    this.#deadline.cancel();
    this.#deadline = this.#endIn(this.#options.idleMs, "asked for nothing");
  }

  #endIn(milliseconds: number, why: string): { cancel(): void } {
    return atDeadline(milliseconds, () =>
      this.#channel.destroy(new RepriseError("PROTOCOL", `a host ${why} for ${milliseconds} ms`)),
    );
  }

  #send(answer: PeerAnswer): void {
    this.#channel.send(peerAnswerMap(answer));
  }
}

/** As many of them as have so many lengths together: what does not fit an answer is not found. */
function within(most: number, found: readonly (readonly number[])[]): { readonly payloadBytes: readonly number[] }[] {
  const chunks = Math.floor(most / (found[0]?.length ?? 1)); // a text's chunks have as many parts
  return found.slice(0, chunks).map((payloadBytes) => ({ payloadBytes }));
}

/** The end of a payload, as it is hashed: with zeros up to a whole page. */
function paddedCopy(piece: Uint8Array): Uint8Array {
  const padded = Buffer.alloc(Math.ceil(piece.length / pageBytes) * pageBytes);
  padded.set(piece);
  return padded;
}
