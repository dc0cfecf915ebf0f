/**
 * The samples of all chunks whose rows can be read, in step with them.
 *
 * A chunk has the samples that its tokens bring to the text before it: grams cross its beginning, and a window that ends in it
 * may choose a gram that ends in its parent, when none of the parent's windows did. Several children of a chunk each have their
 * own. What a chunk has follows from the tokens up to its end, which never change. So the same list is made again when it
 * goes, and nothing is left behind.
 *
 *     parent       │ … one window │ chunk          │
 *     known there           ▲     │
 *     the chunk's               ▲ │      ▲       ▲ │       ends -47 … tokens - 1, from its first token
 */
import { assert } from "../../errors.ts";
import { noChunk, type ChunkId } from "../index/chunk-id.ts";
import { type ChunkTable, field } from "../index/chunk-table.ts";
import { mix32 } from "../index/linked-index.ts";
import type { RootIndex, StoredChunks } from "../index/stored-chunk.ts";
import { GramTable } from "./gram-table.ts";
import { GramSampler, windowGrams, windowTokens } from "./grams.ts";

/** What ends further on in a chunk than an entry can say is not entered: nobody has chunks of 65,000 tokens. */
const mostEnd = 2 ** 16 - windowGrams;

export class StoredGrams {
  readonly #chunks: ChunkTable;
  readonly #sampler: GramSampler;
  readonly #table = new GramTable();
  /** The chunk that was sampled last, while its name is good, and where it began. */
  #sampled: ChunkId = noChunk;
  #start = 0;
  /** Samples of chunks that have no entry: others hold as many of the same gram as there may be. */
  #refused = 0;

  constructor(chunks: ChunkTable, salt: number) {
    this.#chunks = chunks;
    this.#sampler = new GramSampler(salt);
  }

  get size(): number {
    return this.#table.size;
  }

  get bytes(): number {
    return this.#table.bytes;
  }

  /** Chunks of a root that have a gram: how many, until the next call. One root's grams are never another's. */
  find(root: number, hash: number): number {
    this.#table.find(nameOf(root, hash));
    return this.#table.found;
  }

  foundChunk(i: number): ChunkId {
    return this.#table.chunks[i] as ChunkId; // only chunks are entered
  }

  /** Where the gram ends, from the chunk's first token; below 0: before it. */
  foundEnd(i: number): number {
    return this.#table.ends[i]! - (windowGrams - 1); // callers stay below what was found
  }

  /** The chunk's rows can be read from now on. */
  add(chunk: ChunkId): void {
    const root = this.#chunks.get(chunk, field.root);
    this.#sample(chunk);
    for (let i = 0; i < this.#sampler.count; i += 1) {
      const end = this.#endOf(i);
      if (end > mostEnd) break;
      this.#addOne(nameOf(root, this.#sampler.hashes[i]!), chunk, end);
    }
  }

  /** They no longer can. */
  remove(chunk: ChunkId): void {
    const root = this.#chunks.get(chunk, field.root);
    this.#sample(chunk);
    this.#sampled = noChunk; // another chunk may have the name when it is gone
    for (let i = 0; i < this.#sampler.count; i += 1) {
      const end = this.#endOf(i);
      if (end > mostEnd) break;
      if (!this.#table.remove(nameOf(root, this.#sampler.hashes[i]!), chunk, end)) this.#refused -= 1;
    }
  }

  /** Asserts that the entries are those of the chunks that can be read. */
  check(trees: Iterable<RootIndex>, chunks: StoredChunks): void {
    this.#table.check();
    let entries = 0;
    let missing = 0;
    for (const { tree, number } of trees)
      for (const chunk of tree.nodes()) {
        if (!chunks.isVisible(chunk)) continue;
        this.#sample(chunk);
        for (let i = 0; i < this.#sampler.count; i += 1) {
          const end = this.#endOf(i);
          if (end > mostEnd) break;
          if (this.#has(nameOf(number, this.#sampler.hashes[i]!), chunk, end)) entries += 1;
          else missing += 1;
        }
      }
    assert(entries === this.#table.size, "grams are entered of chunks that cannot be read");
    assert(missing === this.#refused, "grams of chunks are not entered, and were not refused");
  }

  #has(hash: number, chunk: ChunkId, end: number): boolean {
    const table = this.#table;
    table.find(hash);
    for (let i = 0; i < table.found; i += 1) if (table.chunks[i] === chunk && table.ends[i] === end) return true;
    return false;
  }

  /**
   * Of a gram that stands in too many places those nearest their texts' beginnings stay: they leave memory last, leaves going
   * first, and of a text that repeats itself they can be read on furthest.
   */
  #addOne(hash: number, chunk: ChunkId, end: number): void {
    const table = this.#table;
    if (table.add(hash, chunk, end) === "added") return;
    this.#refused += 1;
    table.find(hash);
    let last = -1;
    let position = this.#chunks.get(chunk, field.firstToken) + end;
    for (let i = 0; i < table.found; i += 1) {
      const other = this.#chunks.get(this.foundChunk(i), field.firstToken) + table.ends[i]!;
      if (other <= position) continue;
      position = other;
      last = i;
    }
    if (last === -1) return;
    table.remove(hash, this.foundChunk(last), table.ends[last]!);
    table.add(hash, chunk, end);
  }

  /** Takes the samples that are a chunk's. */
  #sample(chunk: ChunkId): void {
    const [chunks, sampler] = [this.#chunks, this.#sampler];
    const parent = chunks.link(chunk, field.parent);
    // Chunks are stored one after the other as a rule: then the hashes roll on.
    if (parent !== this.#sampled) {
      sampler.begin(0);
      this.#feedBefore(chunk, Math.min(windowTokens, chunks.get(chunk, field.firstToken)));
    }
    sampler.clear();
    this.#start = sampler.position;
    this.#sampled = chunk;
    const tokens = chunks.tokens(chunk);
    sampler.feed(tokens, 0, tokens.length);
  }

  /** Feeds so many tokens before a chunk. */
  #feedBefore(chunk: ChunkId, count: number): void {
    if (count === 0) return;
    const parent = this.#chunks.link(chunk, field.parent);
    const tokens = this.#chunks.tokens(parent);
    const taken = Math.min(count, tokens.length);
    assert(taken > 0, "the chunks before one have the tokens before it");
    this.#feedBefore(parent, count - taken);
    this.#sampler.feed(tokens, tokens.length - taken, tokens.length);
  }

  /** Where a sample of the chunk that was sampled last ends, as entries say it. */
  #endOf(i: number): number {
    return this.#sampler.ends[i]! - this.#start + windowGrams - 1; // a sample
  }
}

/** What a gram of one root is called in the table: never 0. */
function nameOf(root: number, hash: number): number {
  return mix32(hash ^ Math.imul(root, 0x9e3779b1)) || 1;
}
