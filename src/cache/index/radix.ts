/**
 * The index of one root: a radix tree over chunks that keeps their token ids.
 *
 * A node is one chunk, a row of the {@link ChunkTable}. Only a full chunk has children; a shorter one is a tail. Siblings
 * are ordered by their tokens, so the one that shares the longest prefix with a text stands next to the place where the
 * text would be inserted: a lookup compares tokens, is exact, hashes nothing, and makes no garbage.
 *
 *     top ─┬─ [the cat sat on] ─┬─ [the mat and slept]
 *          │                    └─ [the mat]              ← a tail beside its longer sibling, until that one is stored
 *          └─ [the dog …]
 *
 * A node that holds nothing is a *placeholder*. It stays while it has children, so that they are found again once it is filled;
 * lookups stop at one that is not visible, and a placeholder without children is removed.
 */
import { assert } from "../../errors.ts";
import { noChunk, type ChunkId } from "./chunk-id.ts";
import { field, flag, type ChunkTable, type RowShape } from "./chunk-table.ts";
import type { Tokens } from "../../identity/tokens.ts";
import { SiblingTree } from "./sibling-tree.ts";

/** The chunks of a match, in order. The tree has one and uses it again: what is to last is copied before the next match. */
export class ChunkPath {
  #chunks = new Int32Array(64);
  length = 0;
  /** How many of the last chunk's tokens are the text's; all of those of the chunks before it are. */
  matchedInLast = 0;

  at(i: number): ChunkId {
    return this.#chunks[i] as ChunkId; // only chunks are pushed; callers stay below length
  }

  push(chunk: ChunkId): void {
    if (this.length === this.#chunks.length) {
      const longer = new Int32Array(2 * this.length);
      longer.set(this.#chunks);
      this.#chunks = longer;
    }
    this.#chunks[this.length] = chunk;
    this.length += 1;
  }

  /** Ends at number `last`, with this chunk there. */
  endAt(last: number, chunk: ChunkId, matchedTokens: number): void {
    this.#chunks[last] = chunk;
    this.length = last + 1;
    this.matchedInLast = matchedTokens;
  }

  clear(): void {
    this.length = 0;
    this.matchedInLast = 0;
  }
}

export class RadixTree {
  readonly chunkTokens: number;
  /** Stands for the empty text. */
  readonly top: ChunkId;
  readonly #table: ChunkTable;
  readonly #shape: RowShape;
  readonly #root: number;
  readonly #siblings: SiblingTree;
  readonly #path = new ChunkPath();
  #best: ChunkId = noChunk;
  #bestCommon = 0;
  #nodes = 0;

  private constructor(table: ChunkTable, shape: RowShape, root: number, top: ChunkId) {
    this.#table = table;
    this.#shape = shape;
    this.#root = root;
    this.chunkTokens = shape.chunkTokens;
    this.#siblings = new SiblingTree(table);
    this.top = top;
  }

  /** An empty tree whose chunks are told by `root`. @returns undefined when the table is full */
  static make(table: ChunkTable, shape: RowShape, root: number): RadixTree | undefined {
    const top = table.add(shape, { parent: noChunk, root, firstToken: 0, tokens: new Uint32Array() });
    return top === undefined ? undefined : new RadixTree(table, shape, root, top);
  }

  /** What the child that {@link longestVisible} found last has in common with the text. */
  get commonTokens(): number {
    return this.#bestCommon;
  }

  /** Nodes, placeholders included. */
  get size(): number {
    return this.#nodes;
  }

  /** Gives the row of an empty tree back: the tree is used no more. */
  dispose(): void {
    assert(this.#nodes === 0, "a tree with chunks was disposed of");
    this.#table.remove(this.top);
  }

  /** The chunks that hold the longest visible prefix of `tokens`; the last may match in part. Changes nothing. */
  match(tokens: Tokens): ChunkPath {
    const path = this.#path;
    path.clear();
    let node = this.top;
    for (let first = 0; first < tokens.length; first += this.chunkTokens) {
      node = this.longestVisible(node, tokens, first);
      if (node === noChunk) break;
      path.push(node);
      path.matchedInLast = this.#bestCommon;
      if (this.#bestCommon < this.chunkTokens) break;
    }
    return path;
  }

  /**
   * The visible child with the most leading tokens in common with `tokens` from `from` on; of equals the shortest, then
   * the first. Common prefixes only get shorter with the distance from the place of the tokens, so the first visible one
   * on each side is the best of its side.
   */
  longestVisible(parent: ChunkId, tokens: Tokens, from: number): ChunkId {
    const table = this.#table;
    const siblings = this.#siblings;
    const count = Math.min(this.chunkTokens, tokens.length - from);
    siblings.seek(parent, tokens, from, count);
    this.#best = noChunk;
    this.#bestCommon = 0;
    // The usual case: the whole chunk is there.
    if (siblings.isExact && table.is(siblings.after, flag.visible)) {
      this.#best = siblings.after;
      this.#bestCommon = count;
      return this.#best;
    }
    let before = siblings.before;
    let common = siblings.beforeCommon;
    while (before !== noChunk && common > 0 && !table.is(before, flag.visible)) {
      before = siblings.previous(before);
      if (before !== noChunk) common = table.commonWith(before, tokens, from);
    }
    if (before !== noChunk && common > 0) {
      this.#best = before;
      this.#bestCommon = common;
    }
    let after = siblings.after;
    common = siblings.afterCommon;
    while (after !== noChunk && common > 0 && !table.is(after, flag.visible)) {
      after = siblings.next(after);
      if (after !== noChunk) common = table.commonWith(after, tokens, from);
    }
    if (after === noChunk || common === 0 || common < this.#bestCommon) return this.#best;
    const isShorter = this.#best !== noChunk && table.tokenCount(after) < table.tokenCount(this.#best);
    if (common === this.#bestCommon && !isShorter) return this.#best;
    this.#best = after;
    this.#bestCommon = common;
    return after;
  }

  /** The child of `parent` with exactly these tokens. */
  child(parent: ChunkId, tokens: Tokens): ChunkId | undefined {
    this.#siblings.seek(parent, tokens, 0, tokens.length);
    return this.#siblings.isExact ? this.#siblings.after : undefined;
  }

  /** A visible child of `parent` that begins with these tokens: it holds whatever a chunk of them would. */
  visibleExtension(parent: ChunkId, tokens: Tokens): ChunkId | undefined {
    const best = this.longestVisible(parent, tokens, 0);
    return best !== noChunk && this.#bestCommon === tokens.length ? best : undefined;
  }

  /**
   * The child of `parent` with exactly these tokens, made as a placeholder when there is none. The tokens are copied.
   *
   * @returns undefined when the index has no room for another chunk.
   */
  insert(parent: ChunkId, tokens: Tokens): ChunkId | undefined {
    assert(tokens.length > 0 && tokens.length <= this.chunkTokens, "a chunk has 1 to chunkTokens tokens");
    const table = this.#table;
    const parentTokens = table.tokenCount(parent);
    assert(parent === this.top || parentTokens === this.chunkTokens, "only a full chunk has children");
    const found = this.child(parent, tokens);
    if (found !== undefined) return found;
    const firstToken = table.get(parent, field.firstToken) + parentTokens;
    const node = table.add(this.#shape, { parent, root: this.#root, firstToken, tokens });
    if (node === undefined) return undefined;
    this.#siblings.insert(node);
    this.#nodes += 1;
    return node;
  }

  /** Removes `node` if it is a leaf and a placeholder, and then every ancestor of which the same has become true. */
  prune(node: ChunkId): void {
    const table = this.#table;
    let leaf = node;
    while (leaf !== this.top && !table.is(leaf, flag.filled) && table.link(leaf, field.children) === noChunk) {
      const parent = table.link(leaf, field.parent);
      this.#siblings.remove(leaf);
      table.remove(leaf);
      this.#nodes -= 1;
      leaf = parent;
    }
  }

  /** Tails beside `node` whose tokens it begins with: with it visible, nobody needs them. */
  shorterSiblings(node: ChunkId): ChunkId[] {
    const table = this.#table;
    const parent = table.link(node, field.parent);
    const tokens = table.tokens(node);
    const shorter: ChunkId[] = [];
    // What stands between a prefix and the node begins with that prefix. So no prefix is longer than what the sibling
    // just before the search position has in common with the node: few searches find all.
    let length = tokens.length - 1;
    while (length > 0) {
      const prefix = tokens.subarray(0, length);
      this.#siblings.seek(parent, prefix, 0, length);
      if (this.#siblings.isExact) {
        shorter.push(this.#siblings.after);
        length -= 1;
      } else length = this.#siblings.before === noChunk ? 0 : this.#siblings.beforeCommon;
    }
    return shorter;
  }

  /** Every node, parents before their children. */
  *nodes(): Generator<ChunkId, void, void> {
    const open: ChunkId[] = [...this.#siblings.children(this.top)];
    for (let node = open.pop(); node !== undefined; node = open.pop()) {
      yield node;
      open.push(...this.#siblings.children(node));
    }
  }

  /** The children of a node, in order. */
  children(node: ChunkId): Iterable<ChunkId> {
    return this.#siblings.children(node);
  }

  /** Asserts order, lengths and links. */
  check(): void {
    const table = this.#table;
    let count = 0;
    this.#siblings.check(this.top);
    for (const node of this.nodes()) {
      count += 1;
      const parent = table.link(node, field.parent);
      const end = table.get(parent, field.firstToken) + table.tokenCount(parent);
      assert(table.get(node, field.firstToken) === end, "a chunk begins where its parent ends");
      const isLeaf = table.link(node, field.children) === noChunk;
      assert(isLeaf || table.tokenCount(node) === this.chunkTokens, "only a full chunk has children");
      assert(!isLeaf || table.is(node, flag.filled), "a placeholder without children was left behind");
      this.#siblings.check(node);
    }
    assert(count === this.#nodes, "nodes counted and nodes found differ");
  }
}

/** Slices of a text as chunks, the tail last. */
export function chunksOf(tokens: Tokens, chunkTokens: number): Tokens[] {
  const chunks: Tokens[] = [];
  for (let first = 0; first < tokens.length; first += chunkTokens)
    chunks.push(tokens.subarray(first, first + chunkTokens));
  return chunks;
}
