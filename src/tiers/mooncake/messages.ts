/**
 * What we and the process of Mooncake's client say to each other (python/reprise_mooncake/messages.py draws it): frames of JSON behind
 * their length, checked field by field.
 */
import type { MooncakeAddress } from "./address.ts";

export type Request =
  | {
      readonly do: "get" | "put";
      readonly names: readonly string[];
      readonly at: readonly number[];
      readonly bytes: readonly number[];
    }
  | {
      readonly do: "gather";
      readonly names: readonly string[];
      readonly at: number;
      readonly bytes: number;
      readonly most: number;
    };

export type Said =
  | { readonly state: "absent" | "away" | "connecting" | "ready"; readonly why: string }
  | { readonly id: number; readonly results: readonly number[] };

/** The longest frame in either direction. */
const mostFrameBytes = 256 * 1024;
const lengthBytes = 4;
const states: readonly unknown[] = ["absent", "away", "connecting", "ready"];

export function openingFrame(address: MooncakeAddress): Buffer {
  const { master, host, protocol, device, metadata, segmentBytes } = address;
  return frameOf({ master, host, protocol, device, metadata, segment: segmentBytes });
}

export function requestFrame(id: number, request: Request): Buffer {
  return frameOf({ id, ...request });
}

function frameOf(message: object): Buffer {
  const text = Buffer.from(JSON.stringify(message));
  const length = Buffer.alloc(lengthBytes);
  length.writeUInt32LE(text.length);
  return Buffer.concat([length, text]);
}

/** Takes the stream apart. */
export class FrameReader {
  #rest: Buffer = Buffer.alloc(0);

  /** What is whole now. @throws Error when it is not of this protocol */
  take(bytes: Buffer): Said[] {
    this.#rest = Buffer.concat([this.#rest, bytes]);
    const said: Said[] = [];
    while (this.#rest.length >= lengthBytes) {
      const length = this.#rest.readUInt32LE();
      if (length > mostFrameBytes) throw new Error(`a frame of ${length} bytes`);
      if (this.#rest.length < lengthBytes + length) break;
      said.push(saidIn(this.#rest.toString("utf8", lengthBytes, lengthBytes + length)));
      this.#rest = this.#rest.subarray(lengthBytes + length);
    }
    return said;
  }
}

function saidIn(text: string): Said {
  const value: unknown = JSON.parse(text);
  if (typeof value === "object" && value !== null) {
    const { state, why, id, results } = value as Record<string, unknown>; // any object's fields
    if (states.includes(state) && typeof why === "string") return { state, why: why.slice(0, 500) } as Said; // asked before it
    if (Number.isSafeInteger(id) && Array.isArray(results) && results.every(Number.isSafeInteger))
      return { id, results } as Said; // asked above
  }
  throw new Error("a message of an unknown kind");
}
