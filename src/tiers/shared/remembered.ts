/**
 * What a shared tier has learned of chunks lately: the oldest go first. Bounded in what it takes as well as in number: whoever may write
 * to a store may say that a chunk has many parts.
 */
import type { Head } from "./head.ts";

/** Some million tokens. */
const mostChunks = 16_384;
/** Sixteen for each; with their checksums and tags some 100 MiB. */
const mostParts = 16 * mostChunks;

export class Remembered<Key, Value> {
  readonly #values = new Map<Key, Value>();
  readonly #headOf: (value: Value) => Head;
  #parts = 0;

  constructor(headOf: (value: Value) => Head) {
    this.#headOf = headOf;
  }

  get(key: Key): Value | undefined {
    return this.#values.get(key);
  }

  /** It is the youngest now. */
  set(key: Key, value: Value): void {
    this.delete(key);
    this.#values.set(key, value);
    this.#parts += this.#partsOf(value);
    for (const oldest of this.#values.keys()) {
      if (this.#values.size <= mostChunks && this.#parts <= mostParts) return;
      this.delete(oldest);
    }
  }

  delete(key: Key): void {
    const value = this.#values.get(key);
    if (value === undefined) return;
    this.#values.delete(key);
    this.#parts -= this.#partsOf(value);
  }

  #partsOf(value: Value): number {
    return this.#headOf(value).storedBytes.length;
  }
}
