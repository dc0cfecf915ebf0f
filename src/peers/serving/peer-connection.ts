/**
 * One host that reads from this one: its requests in their order, one after the other.
 *
 *     hello ──► the token? ──► requests ──► nothing asked for idleMs, a piece not taken for stallMs: ended
 *
 * What it can hold here is bounded, whatever it does: some waiting requests, one chunk in its place, and two pieces on their way, or two
 * packed blocks (pack-room.ts). All of it falls with the connection.
 */
import type { Socket } from "node:net";
import { setImmediate as turn } from "node:timers/promises";
import type { ChunkInReading, ReadsByKey } from "../../cache/sessions/reads-by-key.ts";
import { atDeadline } from "../../deadline.ts";
import { codeOf, describe, RepriseError } from "../../errors.ts";
import type { Log } from "../../log.ts";
import { leafBytes, leavesToEnd, rootOf } from "../../tiers/payload-checksum.ts";
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
import { blocksOf } from "../../tiers/shared/packing.ts";
import type { PackRoom } from "./pack-room.ts";
import type { ReadRoom } from "./read-room.ts";
import { padded } from "../../pages.ts";

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
  /** Undefined: all is sent as it is, also to those who ask for it packed. */
  readonly packRoom: PackRoom | undefined;
  readonly log: Log;
  /** A chunk was sent whole. */
  readonly onServed: (served: Served) => void;
  /** It was not let in. */
  readonly onRefused: (why: string) => void;
  readonly onOver: (reason: Error | undefined) => void;
}

export interface Served {
  /** Of its payloads. */
  readonly bytes: number;
  /** That went their way: less than those where they were packed. */
  readonly storedBytes: number;
}

/** A payload that is with its reader. */
interface Sent {
  readonly checksum: bigint;
  readonly storedBytes: number;
}

/** Sent at a time: hashed while it is in the processor's caches. A whole number of leaves. */
const pieceBytes = 2 * leafBytes;
/** Pieces after which other work is let in. */
const piecesPerTurn = 4;
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
      this.#options.onRefused(refusal);
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

  async #sendChunk(chunk: ChunkInReading, { id, parts, compress }: PeerRequestOf<"fetch">): Promise<void> {
    const packRoom = compress === "none" ? undefined : this.#options.packRoom;
    const checksums: bigint[] = [];
    let [bytes, storedBytes] = [0, 0];
    using room = this.#options.room.holder();
    for (const { part, roomBytes } of parts) {
      const length = chunk.payloadBytes[part] ?? 0;
      const fits = roomBytes === length || roomBytes === padded(length);
      const payload = fits ? await this.#payloadOf(chunk, part, room) : undefined;
      if (this.#channel.isOver) return;
      if (payload === undefined) return this.#send({ type: "gone", id });
      this.#send({ type: "payload", id, part, length, isPacked: packRoom !== undefined });
      const known = chunk.checksum(part);
      const sent = await (packRoom === undefined
        ? this.#sendPayload(payload, known)
        : this.#sendBlocks(id, payload, known, packRoom.payload()));
      if (sent === undefined) return;
      if (known === undefined) chunk.noteChecksum(part, sent.checksum);
      checksums.push(sent.checksum);
      bytes += length;
      storedBytes += sent.storedBytes;
    }
    this.#send({ type: "sent", id, checksums });
    this.#options.onServed({ bytes, storedBytes });
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

  /**
   * @param known its checksum (payload-checksum.ts), which is computed unless it is known
   * @returns undefined when the connection has ended
   */
  async #sendPayload(payload: Uint8Array, known: bigint | undefined): Promise<Sent | undefined> {
    const leaves: bigint[] = [];
    let before: Promise<boolean> = Promise.resolve(true);
    for (let at = 0, pieces = 1; at < payload.length; at += pieceBytes, pieces += 1) {
      const piece = payload.subarray(at, at + pieceBytes);
      if (known === undefined) leaves.push(...leavesToEnd(piece));
      const taken = this.#taken(piece);
      if (!(await before)) return undefined;
      before = taken;
      if (pieces % piecesPerTurn === 0) await turn();
    }
    return (await before) ? { checksum: known ?? rootOf(leaves), storedBytes: payload.length } : undefined;
  }

  /** The same, packed: a block while the one before is on its way. */
  async #sendBlocks(
    id: number,
    payload: Uint8Array,
    known: bigint | undefined,
    pack: ReturnType<PackRoom["payload"]>,
  ): Promise<Sent | undefined> {
    const leaves: bigint[] = [];
    let storedBytes = 0;
    let before: Promise<boolean> = Promise.resolve(true);
    for (const block of blocksOf(payload)) {
      if (known === undefined) leaves.push(...leavesToEnd(block));
      const { row, bytes, free } = await pack(block);
      if (!(await before) || this.#channel.isOver) {
        free();
        return undefined;
      }
      this.#send({ type: "block", id, bytes: row });
      before = this.#allTaken(bytes).finally(free);
      storedBytes += bytes.length;
      await turn();
    }
    return (await before) ? { checksum: known ?? rootOf(leaves), storedBytes } : undefined;
  }

  async #allTaken(bytes: Uint8Array): Promise<boolean> {
    const pieces: Promise<boolean>[] = [];
    for (let at = 0; at < bytes.length; at += pieceBytes) pieces.push(this.#taken(bytes.subarray(at, at + pieceBytes)));
    return (await Promise.all(pieces)).every(Boolean);
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
