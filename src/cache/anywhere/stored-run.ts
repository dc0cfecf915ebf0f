/**
 * A run of tokens that stands in a prompt and in a stored text: how far it goes, and which chunks it lies in.
 *
 *     prompt             … x a b c d e f y …
 *     stored, left ◄──────── a b c│d e f│ ──────► right: the child that has most in common
 *                                  ▲ one place where both have the same token
 *
 * Only chunks whose rows can be read belong to a run. Tokens are compared, so a hash that is wrong costs time and no more.
 */
import { noChunk, type ChunkId } from "../index/chunk-id.ts";
import { field, flag, type ChunkTable } from "../index/chunk-table.ts";
import type { RootIndex } from "../index/stored-chunk.ts";
import type { Tokens } from "../../identity/tokens.ts";

/** A run as it was found: `last` holds its end, and the chunks before that are its parents. */
export interface StoredRun {
  readonly at: number;
  readonly tokens: number;
  readonly sourcePosition: number;
  readonly last: ChunkId;
}

/** Part of a chunk's tokens. */
export interface Slice {
  readonly chunk: ChunkId;
  readonly from: number;
  readonly tokens: number;
}

/** Shorter runs are not worth their seams. */
export const shortestRun = 64;
/** More of a run's left context is not counted: what is further away changes little. */
const mostContext = 1024;

export class RunReader {
  readonly #table: ChunkTable;
  readonly #root: RootIndex;
  readonly #tokens: Tokens;
  readonly #from: number;
  /** Tokens compared so far. */
  work = 0;

  /** @param prompt its tokens, and the first that may belong to a run */
  constructor(table: ChunkTable, root: RootIndex, prompt: { tokens: Tokens; from: number }) {
    this.#table = table;
    this.#root = root;
    this.#tokens = prompt.tokens;
    this.#from = prompt.from;
  }

  /** The run around a place of the prompt and one of a chunk, counted from its first token and perhaps before it. */
  around(position: number, chunk: ChunkId, offset: number): StoredRun | undefined {
    const [table, tokens] = [this.#table, this.#tokens];
    const { number, tree } = this.#root;
    let node = chunk;
    let start = offset;
    for (; start < 0; start += table.tokenCount(node)) node = table.link(node, field.parent);
    // Hashes of two roots may be equal.
    if (!table.is(node, flag.visible) || table.get(node, field.root) !== number) return undefined;
    const sourcePosition = table.get(node, field.firstToken) + start;
    let right = table.commonAfter(node, start, tokens, position);
    let last = node;
    this.work += 16; // a chunk's row is likely to be far away in memory
    if (right === 0) return undefined;
    const left = this.#before(node, start, { to: position, from: this.#from, visible: true });
    for (let end = start + right; end === tree.chunkTokens && position + right < tokens.length;) {
      const child = tree.longestVisible(last, tokens, position + right);
      if (child === noChunk) break;
      last = child;
      end = tree.commonTokens;
      right += end;
    }
    this.work += left + right;
    return { at: position - left, tokens: left + right, sourcePosition: sourcePosition - left, last };
  }

  /** Stored tokens before a run that are the prompt's too. */
  contextOf(run: StoredRun): number {
    let node = run.last;
    while (this.#table.get(node, field.firstToken) > run.sourcePosition) node = this.#table.link(node, field.parent);
    const offset = run.sourcePosition - this.#table.get(node, field.firstToken);
    const from = Math.max(0, run.at - mostContext);
    return this.#before(node, offset, { to: run.at, from, visible: false });
  }

  /** Part of a run as a run. */
  part(run: StoredRun, at: number, tokens: number): StoredRun {
    const sourcePosition = run.sourcePosition + at - run.at;
    let { last } = run;
    while (this.#table.get(last, field.firstToken) >= sourcePosition + tokens)
      last = this.#table.link(last, field.parent);
    return { at, tokens, sourcePosition, last };
  }

  /** The chunks that a run lies in, in order. */
  slicesOf({ tokens, sourcePosition, last }: StoredRun): Slice[] {
    const slices: Slice[] = [];
    let end = sourcePosition + tokens;
    for (let chunk = last; end > sourcePosition; chunk = this.#table.link(chunk, field.parent)) {
      const first = this.#table.get(chunk, field.firstToken);
      const start = Math.max(first, sourcePosition);
      slices.push({ chunk, from: start - first, tokens: end - start });
      end = start;
    }
    return slices.toReversed();
  }

  /** Tokens in common before a chunk's token and before `to`, back to `from`. */
  #before(chunk: ChunkId, offset: number, range: { to: number; from: number; visible: boolean }): number {
    const table = this.#table;
    let node = chunk;
    let end = offset;
    let common = 0;
    for (;;) {
      const same = table.commonBefore(node, end, this.#tokens, { from: range.from, to: range.to - common });
      common += same;
      if (same < end || range.to - common === range.from) return common;
      node = table.link(node, field.parent);
      end = table.tokenCount(node);
      if (end === 0 || (range.visible && !table.is(node, flag.visible))) return common; // the top has no tokens
    }
  }
}
