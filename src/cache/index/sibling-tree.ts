/**
 * The children of a chunk, ordered by their tokens: a treap whose links are words of the chunks' rows.
 *
 * A chunk has one child as a rule, and the first chunk of a million different texts has a million siblings: both are
 * found, added and removed in O(log n) steps. Priorities are a hash of the row, so that the shape depends on nothing but
 * which rows are there.
 */
import { assert } from "../../errors.ts";
import { noChunk, rowOf, type ChunkId } from "./chunk-id.ts";
import { field, type ChunkTable, type Link } from "./chunk-table.ts";
import type { Tokens } from "../../identity/tokens.ts";
import { mix32 } from "./linked-index.ts";

export class SiblingTree {
  readonly #table: ChunkTable;
  /** What {@link seek} found: the children next to the place of the tokens, and what they have in common with them. */
  before: ChunkId = noChunk;
  beforeCommon = 0;
  /** The child with just these tokens, or the first one after them. */
  after: ChunkId = noChunk;
  afterCommon = 0;
  isExact = false;

  constructor(table: ChunkTable) {
    this.#table = table;
  }

  /** Looks for `count` tokens from `from` on among the children of `parent`; the answer is in the fields above. */
  seek(parent: ChunkId, tokens: Tokens, from: number, count: number): void {
    const table = this.#table;
    this.before = noChunk;
    this.after = noChunk;
    this.isExact = false;
    let at = table.link(parent, field.children);
    while (at !== noChunk) {
      const common = Math.min(count, table.commonWith(at, tokens, from));
      const length = table.tokenCount(at);
      const isBefore =
        common < length && common < count ? table.token(at, common) < tokens[from + common]! : length < count;
      if (isBefore) {
        this.before = at;
        this.beforeCommon = common;
        at = table.link(at, field.right);
        continue;
      }
      this.after = at;
      this.afterCommon = common;
      this.isExact = common === count && length === count;
      at = table.link(at, field.left);
    }
  }

  /** The sibling just before `chunk`; `noChunk` when it is the first. */
  previous(chunk: ChunkId): ChunkId {
    return this.#neighbour(chunk, field.right, field.left);
  }

  /** The sibling just after `chunk`; `noChunk` when it is the last. */
  next(chunk: ChunkId): ChunkId {
    return this.#neighbour(chunk, field.left, field.right);
  }

  /** Puts `chunk` among its parent's children, none of which has the same tokens. */
  insert(chunk: ChunkId): void {
    const table = this.#table;
    let owner = table.link(chunk, field.parent);
    let side: Link = field.children;
    let rest = table.link(owner, side);
    while (rest !== noChunk && priorityOf(rest) >= priorityOf(chunk)) {
      owner = rest;
      side = this.#isBefore(rest, chunk) ? field.right : field.left;
      rest = table.link(owner, side);
    }
    table.set(owner, side, chunk);
    // What stood there is split in two: what comes before the chunk goes to its left, the rest to its right.
    let lower = chunk;
    let lowerSide: Link = field.left;
    let upper = chunk;
    let upperSide: Link = field.right;
    while (rest !== noChunk) {
      if (this.#isBefore(rest, chunk)) {
        table.set(lower, lowerSide, rest);
        lower = rest;
        lowerSide = field.right;
        rest = table.link(rest, field.right);
      } else {
        table.set(upper, upperSide, rest);
        upper = rest;
        upperSide = field.left;
        rest = table.link(rest, field.left);
      }
    }
    table.set(lower, lowerSide, noChunk);
    table.set(upper, upperSide, noChunk);
  }

  /** Takes `chunk` from among its parent's children. */
  remove(chunk: ChunkId): void {
    const table = this.#table;
    let owner = table.link(chunk, field.parent);
    let side: Link = field.children;
    for (let at = table.link(owner, side); at !== chunk; at = table.link(owner, side)) {
      assert(at !== noChunk, "a chunk is not among its parent's children");
      owner = at;
      side = this.#isBefore(at, chunk) ? field.right : field.left;
    }
    let lower = table.link(chunk, field.left);
    let upper = table.link(chunk, field.right);
    while (lower !== noChunk && upper !== noChunk) {
      if (priorityOf(lower) >= priorityOf(upper)) {
        table.set(owner, side, lower);
        owner = lower;
        side = field.right;
        lower = table.link(lower, field.right);
      } else {
        table.set(owner, side, upper);
        owner = upper;
        side = field.left;
        upper = table.link(upper, field.left);
      }
    }
    table.set(owner, side, lower === noChunk ? upper : lower);
  }

  /** The children of `parent` in order. */
  *children(parent: ChunkId): Generator<ChunkId, void, void> {
    const table = this.#table;
    const open: ChunkId[] = [];
    let at = table.link(parent, field.children);
    for (;;) {
      for (; at !== noChunk; at = table.link(at, field.left)) open.push(at);
      const chunk = open.pop();
      if (chunk === undefined) return;
      yield chunk;
      at = table.link(chunk, field.right);
    }
  }

  /** Asserts that the children of `parent` are in order and know their parent. */
  check(parent: ChunkId): void {
    let last: ChunkId = noChunk;
    for (const chunk of this.children(parent)) {
      assert(this.#table.link(chunk, field.parent) === parent, "a child knows its parent");
      assert(last === noChunk || this.#isBefore(last, chunk), "children are not in order");
      for (const side of [field.left, field.right] as const) {
        const below = this.#table.link(chunk, side);
        assert(below === noChunk || priorityOf(below) <= priorityOf(chunk), "siblings are not balanced");
      }
      last = chunk;
    }
  }

  /** The nearest sibling towards `outward`, found on the way down to the chunk. */
  #neighbour(chunk: ChunkId, inward: Link, outward: Link): ChunkId {
    const table = this.#table;
    let found: ChunkId = noChunk;
    let at = table.link(table.link(chunk, field.parent), field.children);
    while (at !== noChunk) {
      const isBeyond = at !== chunk && this.#isBefore(at, chunk) === (outward === field.left);
      if (isBeyond) found = at;
      at = table.link(at, isBeyond ? inward : outward);
    }
    return found;
  }

  #isBefore(a: ChunkId, b: ChunkId): boolean {
    return this.#table.compare(a, b) < 0;
  }
}

function priorityOf(chunk: ChunkId): number {
  return mix32(rowOf(chunk));
}
