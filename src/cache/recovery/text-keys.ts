/** The keys of a text's chunks, each hashed when it is first taken: of a text that nobody has stored, one. */
import { chunkKey, type ChunkKey, type RootKey } from "../../identity/keys.ts";
import type { Tokens } from "../../identity/tokens.ts";
import type { AskedKeys, RecordBounds } from "../../tier.ts";
import { chunksOf } from "../index/radix.ts";

export class TextKeys implements AskedKeys {
  readonly bounds: RecordBounds;
  /** Chunks, hashed or not. */
  readonly count: number;
  readonly #slices: Iterator<Tokens>;
  readonly #keys: ChunkKey[] = [];
  #last: RootKey | ChunkKey;

  /**
   * @param parent what the first chunk of `tokens` follows
   * @param bounds of the space: of whole chunks
   */
  constructor(parent: RootKey | ChunkKey, tokens: Tokens, bounds: RecordBounds) {
    const { tokens: chunkTokens } = bounds;
    this.bounds = bounds;
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
