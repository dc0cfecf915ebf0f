/**
 * The strict reader of a message's fields: each is read once, by name, with its type and its limit. Whatever is missing, of
 * another type, too large, or not asked for at all is a broken message, and its sender is disconnected.
 */
import type { Tokens } from "../cache/chunk.ts";
import { RepriseError } from "../errors.ts";
import type { Value } from "./msgpack.ts";

/** The fields of a message, each read once and checked; {@link end} refuses what nobody asked for. */
export class Fields {
  readonly #map: { readonly [key: string]: Value };
  #read = 0;

  constructor(value: Value | undefined) {
    if (!isMap(value)) throw wrong("message", "is not a map");
    this.#map = value;
  }

  integer(name: string, limit = Number.MAX_SAFE_INTEGER): number {
    const value = this.#take(name);
    if (!isCount(value) || value > limit) throw wrong(name, "is not an integer within its limits");
    return value;
  }

  boolean(name: string): boolean {
    const value = this.#take(name);
    if (typeof value !== "boolean") throw wrong(name, "is not true or false");
    return value;
  }

  text(name: string, limit: number): string {
    const value = this.#take(name);
    if (typeof value !== "string" || value.length > limit) throw wrong(name, `is not a text of at most ${limit}`);
    return value;
  }

  texts(name: string): string[] {
    const value = this.#take(name);
    if (!Array.isArray(value) || value.length > 64 || !value.every((text) => typeof text === "string"))
      throw wrong(name, "is not a short list of texts");
    return value;
  }

  integers(name: string, limit: number): number[] {
    const value = this.#take(name);
    if (!Array.isArray(value) || value.length > limit || !value.every(isCount))
      throw wrong(name, "is not a list of integers");
    return value;
  }

  tuples(name: string, width: number, limit: number): number[][] {
    const value = this.#take(name);
    const isTuple = (item: Value) => Array.isArray(item) && item.length === width && item.every(isCount);
    if (!Array.isArray(value) || value.length > limit || !value.every(isTuple))
      throw wrong(name, `is not a list of ${width}s`);
    return value as number[][];
  }

  tokens(name: string): Tokens {
    const value = this.#take(name);
    if (!(value instanceof Uint8Array) || value.length % 4 !== 0) throw wrong(name, "is not a row of u32");
    return alignedTokens(value);
  }

  map(name: string): Fields {
    return new Fields(this.#take(name));
  }

  /** nil is undefined; anything else is read by `parse`. */
  optional<T>(name: string, parse: (fields: Fields) => T): T | undefined {
    const value = this.#take(name);
    return value === null ? undefined : parse(new Fields(value));
  }

  raw(name: string): { readonly [key: string]: Value } {
    const value = this.#take(name);
    if (!isMap(value)) throw wrong(name, "is not a map");
    return value;
  }

  allIntegers(): Record<string, number> {
    return Object.fromEntries(Object.keys(this.#map).map((name) => [name, this.integer(name)]));
  }

  end(): void {
    if (this.#read !== Object.keys(this.#map).length) throw wrong("message", "has a field that does not belong");
  }

  #take(name: string): Value | undefined {
    this.#read += 1;
    return this.#map[name];
  }
}

/**
 * The tokens in the frame that they came in: moved up to three bytes to the front, over the length that was read before
 * them, where they do not lie at a multiple of four. A copy of their own would be garbage for every request.
 */
function alignedTokens(bytes: Uint8Array): Tokens {
  const start = bytes.byteOffset & ~3;
  if (start !== bytes.byteOffset) new Uint8Array(bytes.buffer, start, bytes.length).set(bytes);
  return new Uint32Array(bytes.buffer, start, bytes.length / 4);
}

function isMap(value: Value | undefined): value is { readonly [key: string]: Value } {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Uint8Array);
}

function isCount(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}

/** What a message that is not as it must be is refused with. */
export function wrong(field: string, what: string): RepriseError {
  return new RepriseError("PROTOCOL", `a peer sent a message whose ${field} ${what}`);
}
