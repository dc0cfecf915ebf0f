/**
 * From token bytes to text that may be sent: whole characters only, and nothing that could be the start of a stop text.
 *
 *     released │ held: may begin a stop text │ bytes of an unfinished character
 *
 * Tokens travel with their text: a token is released with the last character it has a part in.
 */
import { type Piece, decodeText, unfinishedBytes } from "../model/piece.ts";

export interface Released<T> {
  readonly text: string;
  /** What was pushed with the bytes of this text. */
  readonly tokens: T[];
  /** A stop text was found: this is the last text. */
  readonly stopped: boolean;
}

interface Pending<T> {
  readonly token: T;
  /** Where the token's text begins and ends, in characters (UTF-16 units) from the start of the answer. */
  readonly start: number;
  readonly end: number;
}

export class TextStream<T> {
  readonly #stops: readonly string[];
  #unfinished: Uint8Array = new Uint8Array(0);
  #held = "";
  #releasedLength = 0;
  #pending: Pending<T>[] = [];
  /** Tokens that are still to come before stop texts are looked for. */
  #unstopped: number;

  /** @param options.from so many tokens go out before stop texts count; those within their text do not */
  constructor(stops: readonly string[], options: { from?: number } = {}) {
    this.#stops = stops.filter((stop) => stop !== "");
    this.#unstopped = options.from ?? 0;
  }

  /** Adds a token. */
  push(token: T, { bytes, text }: Piece): Released<T> {
    const isNothingHeld = this.#pending.length === 0 && this.#held === "";
    if (text !== undefined && isNothingHeld && this.#stops.length === 0) {
      this.#releasedLength += text.length;
      return { text, tokens: [token], stopped: false };
    }
    const start = this.#releasedLength + this.#held.length;
    const all = concatenated(this.#unfinished, bytes);
    const whole = all.length - unfinishedBytes(all);
    this.#held += decodeText(all.subarray(0, whole));
    this.#unfinished = all.subarray(whole);
    // A token that ends within a character ends with that character, which is at least one unit longer.
    const end = this.#releasedLength + this.#held.length + (this.#unfinished.length > 0 ? 1 : 0);
    this.#pending.push({ token, start, end });

    if (this.#unstopped > 0) {
      this.#unstopped -= 1;
      return this.#release(this.#held.length, false);
    }
    const stop = this.#firstStop();
    if (stop !== undefined) return this.#release(stop, true);
    return this.#release(this.#held.length - this.#possibleStop(), false);
  }

  /** The rest, when the answer ends by itself. An unfinished character becomes U+FFFD. */
  finish(): Released<T> {
    this.#held += decodeText(this.#unfinished);
    this.#unfinished = new Uint8Array(0);
    const released = this.#release(this.#held.length, false);
    released.tokens.push(...this.#pending.map((pending) => pending.token));
    this.#pending = [];
    return released;
  }

  #release(length: number, stopped: boolean): Released<T> {
    const text = this.#held.slice(0, length);
    this.#held = this.#held.slice(length);
    this.#releasedLength += length;
    const upTo = this.#releasedLength;
    // At a stop, a token that gave the text its last characters goes along even if the stop text begins within it.
    const due = (pending: Pending<T>) => (stopped ? pending.start < upTo : pending.end <= upTo);
    const count = this.#pending.findIndex((pending) => !due(pending));
    const tokens = this.#pending.splice(0, count === -1 ? this.#pending.length : count);
    return { text, tokens: tokens.map((pending) => pending.token), stopped };
  }

  /** Where the first stop text begins in what is held. */
  #firstStop(): number | undefined {
    const places = this.#stops.map((stop) => this.#held.indexOf(stop)).filter((place) => place !== -1);
    return places.length === 0 ? undefined : Math.min(...places);
  }

  /** Length of the longest end of what is held that a stop text begins with. */
  #possibleStop(): number {
    let longest = 0;
    for (const stop of this.#stops) {
      for (let length = Math.min(stop.length - 1, this.#held.length); length > longest; length -= 1) {
        if (this.#held.endsWith(stop.slice(0, length))) longest = length;
      }
    }
    return longest;
  }
}

function concatenated(first: Uint8Array, second: Uint8Array): Uint8Array {
  if (first.length === 0) return second;
  const all = new Uint8Array(first.length + second.length);
  all.set(first);
  all.set(second, first.length);
  return all;
}
