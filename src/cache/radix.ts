/**
 * The index of one root: a radix tree over chunks that keeps their token ids.
 *
 * A node is one chunk. Only a full chunk has children; a shorter one is a tail. Children are sorted by their tokens, so
 * the child that shares the longest prefix with a text stands next to the place where the text would be inserted: a
 * lookup is a binary search per chunk, compares tokens, is exact, and hashes nothing.
 *
 *     top ─┬─ [the cat sat on] ─┬─ [the mat and slept]
 *          │                    └─ [the mat]              ← a tail beside its longer sibling, until that one is stored
 *          └─ [the dog …]
 *
 * A node without a visible payload is *hollow*. It stays while it has children, so that they are found again once it is
 * filled; lookups stop at it, and a hollow leaf is removed.
 */
import { assert } from "../errors.ts";
import { commonTokens, type Tokens } from "./chunk.ts";

/** What the cache knows of a chunk's bytes. The tree asks only whether they can be read. */
export interface NodePayload {
  readonly visible: boolean;
}

export interface RadixNode<P extends NodePayload> {
  /** Undefined for the tree's top, which stands for the empty text, and for a node that was removed. */
  readonly parent: RadixNode<P> | undefined;
  readonly tokens: Tokens;
  /** Position of the first token in the text. */
  readonly firstToken: number;
  readonly children: readonly RadixNode<P>[];
  payload: P | undefined;
}

/** One step of a match: `matchedTokens` of the node's tokens are the text's. */
export interface MatchedNode<P extends NodePayload> {
  readonly node: RadixNode<P>;
  readonly matchedTokens: number;
}

interface MutableNode<P extends NodePayload> extends RadixNode<P> {
  parent: MutableNode<P> | undefined;
  readonly children: MutableNode<P>[];
}

export class RadixTree<P extends NodePayload> {
  readonly chunkTokens: number;
  readonly #top: MutableNode<P> = {
    parent: undefined,
    tokens: new Uint32Array(),
    firstToken: 0,
    children: [],
    payload: undefined,
  };
  #nodes = 0;

  constructor(chunkTokens: number) {
    this.chunkTokens = chunkTokens;
  }

  get top(): RadixNode<P> {
    return this.#top;
  }

  /** Nodes, hollow ones included. */
  get size(): number {
    return this.#nodes;
  }

  /** The chunks that hold the longest visible prefix of `tokens`, in order; the last may match in part. Changes nothing. */
  match(tokens: Tokens): MatchedNode<P>[] {
    const matched: MatchedNode<P>[] = [];
    let node: RadixNode<P> = this.#top;
    for (let first = 0; first < tokens.length; first += this.chunkTokens) {
      const step = longestVisible(node.children, tokens.subarray(first, first + this.chunkTokens));
      if (step === undefined) break;
      matched.push(step);
      if (step.matchedTokens < this.chunkTokens) break;
      node = step.node;
    }
    return matched;
  }

  /** The child of `parent` with exactly these tokens. */
  child(parent: RadixNode<P>, tokens: Tokens): RadixNode<P> | undefined {
    const found = parent.children[insertionPosition(parent.children, tokens)];
    return found !== undefined && compareTokens(found.tokens, tokens) === 0 ? found : undefined;
  }

  /** A visible child of `parent` that begins with these tokens: it holds whatever a chunk of them would. */
  visibleExtension(parent: RadixNode<P>, tokens: Tokens): RadixNode<P> | undefined {
    const step = longestVisible(parent.children, tokens);
    return step?.matchedTokens === tokens.length ? step.node : undefined;
  }

  /** The child of `parent` with exactly these tokens, made hollow when there is none. The tokens are copied. */
  insert(parent: RadixNode<P>, tokens: Tokens): RadixNode<P> {
    assert(tokens.length > 0 && tokens.length <= this.chunkTokens, "a chunk has 1 to chunkTokens tokens");
    assert(parent === this.#top || parent.tokens.length === this.chunkTokens, "only a full chunk has children");
    const siblings = (parent as MutableNode<P>).children; // every node is made here
    const position = insertionPosition(siblings, tokens);
    const found = siblings[position];
    if (found !== undefined && compareTokens(found.tokens, tokens) === 0) return found;
    const node: MutableNode<P> = {
      parent: parent as MutableNode<P>,
      tokens: tokens.slice(),
      firstToken: parent.firstToken + parent.tokens.length,
      children: [],
      payload: undefined,
    };
    siblings.splice(position, 0, node);
    this.#nodes += 1;
    return node;
  }

  /** Removes `node` if it is a leaf without payload, and then every ancestor of which the same has become true. */
  prune(node: RadixNode<P>): void {
    let leaf = node as MutableNode<P>; // every node is made here
    while (leaf.parent !== undefined && leaf.payload === undefined && leaf.children.length === 0) {
      const parent: MutableNode<P> = leaf.parent;
      parent.children.splice(insertionPosition(parent.children, leaf.tokens), 1);
      leaf.parent = undefined;
      this.#nodes -= 1;
      leaf = parent;
    }
  }

  /** Tails beside `node` whose tokens it begins with: with it visible, nobody needs them. */
  shorterSiblings(node: RadixNode<P>): RadixNode<P>[] {
    const siblings = node.parent?.children ?? [];
    const shorter: RadixNode<P>[] = [];
    // What stands between a prefix and the node begins with that prefix. So no prefix is longer than what the sibling
    // just before the search position has in common with the node: few binary searches find all.
    let length = node.tokens.length - 1;
    while (length > 0) {
      const prefix = node.tokens.subarray(0, length);
      const position = insertionPosition(siblings, prefix);
      const exact = siblings[position];
      if (exact !== undefined && compareTokens(exact.tokens, prefix) === 0) {
        shorter.push(exact);
        length -= 1;
        continue;
      }
      const before = siblings[position - 1];
      length = before === undefined ? 0 : commonTokens(before.tokens, 0, prefix, 0);
    }
    return shorter;
  }

  /** Every node, parents before their children. */
  *nodes(): Iterable<RadixNode<P>> {
    const open: RadixNode<P>[] = [...this.#top.children];
    for (let node = open.pop(); node !== undefined; node = open.pop()) {
      yield node;
      open.push(...node.children);
    }
  }

  /** Asserts order, lengths and links. */
  check(): void {
    let count = 0;
    for (const node of this.nodes()) {
      count += 1;
      const { parent } = node;
      assert(parent !== undefined && parent.children.includes(node), "a node is among its parent's children");
      assert(node.firstToken === parent.firstToken + parent.tokens.length, "a chunk begins where its parent ends");
      assert(node.children.length === 0 || node.tokens.length === this.chunkTokens, "only a full chunk has children");
      assert(node.children.length > 0 || node.payload !== undefined, "a hollow leaf was left behind");
      for (let i = 1; i < node.children.length; i += 1)
        assert(compareTokens(node.children[i - 1]!.tokens, node.children[i]!.tokens) < 0, "children are not sorted");
    }
    assert(count === this.#nodes, "nodes counted and nodes found differ");
  }
}

/**
 * The visible child with the most leading tokens in common with `tokens`; of equals the shortest, then the first.
 * Common prefixes only get shorter with the distance from the insertion position, so the first visible one on each side
 * is the best of its side.
 */
function longestVisible<P extends NodePayload>(
  children: readonly RadixNode<P>[],
  tokens: Tokens,
): MatchedNode<P> | undefined {
  const position = insertionPosition(children, tokens);
  let best: MatchedNode<P> | undefined;
  for (const [start, step] of [
    [position - 1, -1],
    [position, 1],
  ] as const) {
    for (let i = start; i >= 0 && i < children.length; i += step) {
      const node = children[i]!; // within bounds
      const matchedTokens = commonTokens(node.tokens, 0, tokens, 0);
      if (matchedTokens === 0) break;
      if (node.payload?.visible !== true) continue;
      if (best === undefined || isBetter(matchedTokens, node, best)) best = { node, matchedTokens };
      break;
    }
  }
  return best;
}

function isBetter<P extends NodePayload>(matchedTokens: number, node: RadixNode<P>, than: MatchedNode<P>): boolean {
  if (matchedTokens !== than.matchedTokens) return matchedTokens > than.matchedTokens;
  return node.tokens.length < than.node.tokens.length;
}

/** Index of the first child whose tokens are not before `tokens`. */
function insertionPosition(children: readonly { readonly tokens: Tokens }[], tokens: Tokens): number {
  let low = 0;
  let high = children.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (compareTokens(children[middle]!.tokens, tokens) < 0) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Order by the first differing token; a prefix comes before what continues it. */
function compareTokens(a: Tokens, b: Tokens): number {
  const common = commonTokens(a, 0, b, 0);
  if (common === a.length || common === b.length) return a.length - b.length;
  return a[common]! - b[common]!; // both go on
}
