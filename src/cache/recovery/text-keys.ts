/** The keys of a text's chunks, each hashed when it is first taken: of a text that nobody has stored, one. */
import { chunkKey, type ChunkKey, type RootKey } from "../../identity/keys.ts";
import type { Tokens } from "../../identity/tokens.ts";
import { chunksOf } from "../index/radix.ts";

export class TextKeys implements Iterable<ChunkKey> {
  /** Chunks, hashed or not. */
  readonly count: number;
  readonly #slices: Iterator<Tokens>;
  readonly #keys: ChunkKey[] = [];
  #last: RootKey | ChunkKey;

  /** @param parent what the first chunk of `tokens` follows */
  constructor(parent: RootKey | ChunkKey, tokens: Tokens, chunkTokens: number) {
    this.count = Math.ceil(tokens.length / chunkTokens);
    this.#slices = chunksOf(tokens, chunkTokens)[Symbol.iterator]();
    this.#last = parent;
  }

  /** The key of chunk `i`, below {@link count}. */
  at(i: number): ChunkKey {
    while (this.#keys.length <= i) {
      const key = chunkKey(this.#last, this.#slices.next().value as Tokens); // below the count
      this.#keys.push(key);
      this.#last = key;
    }
    return this.#keys[i]!; // hashed above
  }

  *[Symbol.iterator](): Generator<ChunkKey, void, void> {
    for (let i = 0; i < this.count; i += 1) yield this.at(i);
  }
}
