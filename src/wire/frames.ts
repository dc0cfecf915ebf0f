/**
 * Frames: how messages are cut out of a stream of bytes.
 *
 *     ┌───────────────┬──────────────────────┐
 *     │ u32 LE length │ one MessagePack map  │  length counts the map alone
 *     └───────────────┴──────────────────────┘
 */
import { RepriseError } from "../errors.ts";
import { encodeShared, keepEncoded } from "./msgpack.ts";
import { giveBack } from "./give-back.ts";

/** Until the handshake is done a peer needs no more. */
export const maxHelloBytes = 64 * 1024;
/** Tokens of the longest request, with room. */
export const maxFrameBytes = 16 * 1024 * 1024;
/** The buffers in which frames are made, and put together from pieces, are kept up to this length: 256,000 tokens. */
const keptBytes = 1024 * 1024;

export function encodeFrame(message: object): Buffer {
  return Buffer.from(lendFrame(message));
}

/**
 * A frame in memory that the next one uses again, unless {@link keepFrame} is called before: a text of 32,000 tokens was
 * copied three times, into memory that was new each time.
 */
export function lendFrame(message: object): Buffer {
  const frame = encodeShared(message, 4);
  frame.writeUInt32LE(frame.length - 4, 0);
  if (frame.length > keptBytes) keepEncoded();
  return frame;
}

/** The frame lent last is still needed. */
export function keepFrame(): void {
  keepEncoded();
}

/**
 * Cuts frames out of what arrives. A body lies in the piece that it came in or, when it came in several, in a buffer that
 * is used again for the next such frame: a request of 32,000 tokens makes no garbage here.
 */
export class FrameReader {
  /** The longest frame accepted from now on. */
  limitBytes = maxHelloBytes;
  /** What was not given out yet, from `start` to `end`. */
  #bytes: Buffer = Buffer.alloc(0);
  #start = 0;
  #end = 0;
  #own: Buffer = Buffer.alloc(0);
  #wanted: number | undefined;

  /** Bytes of a frame that is not whole yet. */
  get pendingBytes(): number {
    return this.#end - this.#start + (this.#wanted === undefined ? 0 : 4);
  }

  /** Takes what has arrived; the piece is the reader's, who may empty it. Bodies that were given out before are valid no longer. */
  push(piece: Buffer): void {
    if (this.#start === this.#end) {
      if (this.#own.length > keptBytes) this.#own = Buffer.alloc(0);
      this.#bytes = piece;
      this.#start = 0;
      this.#end = piece.length;
      return;
    }
    if (this.#bytes !== this.#own || this.#end + piece.length > this.#own.length) this.#makeRoom(piece.length);
    this.#own.set(piece, this.#end);
    this.#end += piece.length;
    giveBack(piece);
  }

  /** What follows the last frame and is in none: as much as there is, up to `most`. Valid until more is pushed. */
  takeBytes(most: number): Buffer {
    return this.#take(Math.min(most, this.#end - this.#start));
  }

  /** The next whole frame's body, valid until more is pushed. @throws RepriseError PROTOCOL when a frame is empty or longer than allowed */
  next(): Buffer | undefined {
    if (this.#wanted === undefined) {
      if (this.#end - this.#start < 4) return undefined;
      this.#wanted = this.#take(4).readUInt32LE();
      if (this.#wanted === 0 || this.#wanted > this.limitBytes)
        throw new RepriseError(
          "PROTOCOL",
          `a peer sent a frame of ${this.#wanted} bytes; ${this.limitBytes} are allowed`,
        );
    }
    if (this.#end - this.#start < this.#wanted) return undefined;
    const body = this.#take(this.#wanted);
    this.#wanted = undefined;
    return body;
  }

  /** Moves what waits to the front of the own buffer, or of a longer one: never more than twice what has arrived. */
  #makeRoom(more: number): void {
    const waiting = this.#end - this.#start;
    const needed = waiting + more;
    const from = this.#bytes;
    if (this.#own.length < needed)
      this.#own = Buffer.allocUnsafeSlow(Math.max(needed, Math.min(2 * needed, this.#wanted ?? 0)));
    from.copy(this.#own, 0, this.#start, this.#end);
    // Bodies that lie in it have been given out unless all of it was waiting.
    if (from !== this.#own && this.#start <= 4) giveBack(from);
    this.#bytes = this.#own;
    this.#start = 0;
    this.#end = waiting;
  }

  #take(length: number): Buffer {
    const taken = this.#bytes.subarray(this.#start, this.#start + length);
    this.#start += length;
    return taken;
  }
}
