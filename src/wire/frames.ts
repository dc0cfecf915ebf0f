/**
 * Frames: how messages are cut out of a stream of bytes.
 *
 *     ┌───────────────┬──────────────────────┐
 *     │ u32 LE length │ one MessagePack map  │  length counts the map alone
 *     └───────────────┴──────────────────────┘
 */
import { RepriseError } from "../errors.ts";
import { encodeValue } from "./msgpack.ts";

/** Until the handshake is done a peer needs no more. */
export const maxHelloBytes = 64 * 1024;
/** Tokens of the longest request, with room. */
export const maxFrameBytes = 16 * 1024 * 1024;

export function encodeFrame(message: object): Buffer {
  const body = encodeValue(message);
  const frame = Buffer.allocUnsafe(4 + body.length);
  frame.writeUInt32LE(body.length, 0);
  frame.set(body, 4);
  return frame;
}

export class FrameReader {
  /** The longest frame accepted from now on. */
  limitBytes = maxHelloBytes;
  readonly #pieces: Buffer[] = [];
  #bytes = 0;
  #wanted: number | undefined;

  /** Bytes of a frame that is not whole yet. */
  get pendingBytes(): number {
    return this.#bytes;
  }

  push(piece: Buffer): void {
    this.#pieces.push(piece);
    this.#bytes += piece.length;
  }

  /** The next whole frame's body. @throws RepriseError PROTOCOL when a frame is empty or longer than allowed */
  next(): Buffer | undefined {
    if (this.#wanted === undefined) {
      if (this.#bytes < 4) return undefined;
      this.#wanted = this.#take(4).readUInt32LE();
      if (this.#wanted === 0 || this.#wanted > this.limitBytes)
        throw new RepriseError(
          "PROTOCOL",
          `a peer sent a frame of ${this.#wanted} bytes; ${this.limitBytes} are allowed`,
        );
    }
    if (this.#bytes < this.#wanted) return undefined;
    const body = this.#take(this.#wanted);
    this.#wanted = undefined;
    return body;
  }

  #take(length: number): Buffer {
    let first = this.#pieces[0]!; // `length` bytes are there
    if (first.length < length) {
      // Joined once per frame: a frame in many pieces costs one copy, not one per piece.
      first = Buffer.concat(this.#pieces);
      this.#pieces.length = 0;
      this.#pieces.push(first);
    }
    if (first.length === length) this.#pieces.shift();
    else this.#pieces[0] = first.subarray(length);
    this.#bytes -= length;
    return first.subarray(0, length);
  }
}
