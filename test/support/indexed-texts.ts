/** Texts in the index, without a pool or tiers behind them. */
import { AnywhereIndex } from "../../src/cache/anywhere/anywhere-index.ts";
import type { ChunkId } from "../../src/cache/index/chunk-id.ts";
import { flag } from "../../src/cache/index/chunk-table.ts";
import { chunksOf } from "../../src/cache/index/radix.ts";
import { StoredChunks, type RootIndex } from "../../src/cache/index/stored-chunk.ts";
import type { RootKey } from "../../src/identity/keys.ts";
import { spaceId } from "../../src/identity/space.ts";
import type { Tokens } from "../../src/identity/tokens.ts";
import { testSpace } from "./cache.ts";

export class IndexedTexts {
  readonly chunks = new StoredChunks([]);
  readonly index = new AnywhereIndex(this.chunks, { salt: 7 });
  readonly roots: RootIndex[] = [];
  readonly #chunkTokens: number;

  constructor(chunkTokens: number, roots = 1) {
    this.#chunkTokens = chunkTokens;
    const description = testSpace({ chunkTokens });
    const space = { id: spaceId(description), description, shape: this.chunks.shape(description) };
    for (let i = 0; i < roots; i += 1) this.roots.push(this.chunks.makeRoot(space, `root ${i}` as RootKey)!); // there is room
  }

  get root(): RootIndex {
    return this.roots[0]!; // there is one
  }

  /** @returns the text's chunks, which can be read from now on */
  save(tokens: Tokens, { tree } = this.root): ChunkId[] {
    const path: ChunkId[] = [];
    for (const slice of chunksOf(tokens, this.#chunkTokens)) {
      const chunk = tree.insert(path.at(-1) ?? tree.top, slice)!; // there is room
      this.chunks.table.mark(chunk, flag.filled, true);
      this.chunks.setVisible(chunk, true);
      path.push(chunk);
    }
    return path;
  }

  /** The chunk's bytes are gone; its row too, when no chunk comes after it. */
  drop(chunk: ChunkId): void {
    this.chunks.setVisible(chunk, false);
    this.chunks.table.mark(chunk, flag.filled, false);
    this.chunks.rootOf(chunk).tree.prune(chunk);
  }

  check(): void {
    this.index.check(this.roots);
    for (const { tree } of this.roots) tree.check();
  }
}
