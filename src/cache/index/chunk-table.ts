/**
 * All that the index knows of its chunks, in rows of 32-bit words on pages of 1024 rows: 360 bytes for a chunk of 64
 * tokens, and nothing for the garbage collector to walk.
 *
 *     word 0    state     │ generation, 6 │ token count, 17 │ flags, 8 │
 *          1    parent                                          ids of chunks; 0 for none
 *          2    children, the top of a tree of siblings         (sibling-tree.ts)
 *          3-4  left, right: this chunk in the tree of its own siblings
 *          5    root: whose text it is
 *          6    first token: position in the text
 *          7    children in the pool: while there are any, the chunk stays
 *          8    holds: background work that needs its slots
 *          9    snapshots: bit 31 while they are read from below (their slots are not to be read yet), bit t when the
 *               record of tier t lacks some of them
 *        10...  per tier   record id + 1, a double              0: no record there
 *          ...  per part   slot offset + 1, a double            0: not in the pool
 *          ...  per tier   next in the bucket of the record index
 *          ...  per part   payload bytes (0: never written), next in the bucket of the slot index, slot bytes
 *          ...  key, 8 words                                    once it was needed
 *          ...  tokens, one word each
 *
 * Every access checks the generation: a name that outlived its chunk is a bug that is caught here. Pages are kept when
 * their chunks are gone, for the next ones of the same shape.
 */
import { assert } from "../../errors.ts";
import {
  chunkIdOf,
  generations,
  noChunk,
  pageBits,
  pageOf,
  rowBits,
  rowInPage,
  rowOf,
  rowsPerPage,
  type ChunkId,
} from "./chunk-id.ts";
import type { GroupKind } from "../../identity/space.ts";
import type { Tokens } from "../../identity/tokens.ts";

/** What the rows of one space look like, and where its free ones are. */
export interface RowShape {
  readonly chunkTokens: number;
  /** What each part is: of rank 0 its groups, then of rank 1, and so on. */
  readonly parts: readonly GroupKind[];
  readonly hasSnapshots: boolean;
  readonly tiers: number;
  readonly words: number;
  /** Where in a row the payload lengths begin, and the tokens. */
  readonly partsAt: number;
  readonly tokensAt: number;
  /** The free row to give out next, linked through {@link field.left}; 0 when there is none. */
  free: number;
}

interface Page {
  readonly shape: RowShape;
  readonly words: Uint32Array;
  readonly doubles: Float64Array;
}

export const field = {
  parent: 1,
  children: 2,
  left: 3,
  right: 4,
  root: 5,
  firstToken: 6,
  childrenInPool: 7,
  holds: 8,
  snapshots: 9,
} as const;
export type Field = (typeof field)[keyof typeof field];
/** Fields that hold a chunk. */
export type Link = typeof field.parent | typeof field.children | typeof field.left | typeof field.right;
const headerWords = 10;

export const flag = {
  inUse: 1,
  /** Somebody has bytes of the chunk or is about to. Without it the chunk is a placeholder. */
  filled: 2,
  /** Every rank's rows can be read. */
  visible: 4,
  /** A longer sibling holds the same tokens: it goes when nobody uses it. */
  superseded: 8,
  /** Being read from below: its slots are not to be read yet. */
  promoting: 16,
  keyKnown: 32,
  /** Used or stored again since its latest record was written. */
  usedSinceRecorded: 64,
  /** One rank gave it up while others were still writing: what those commit is given up too. */
  broken: 128,
} as const;
export type Flag = (typeof flag)[keyof typeof flag];
const countShift = 8;
const countMask = 2 ** 17 - 1;

export class ChunkTable {
  /** Told of each chunk whose row is about to be given back. */
  beforeRemoval: (chunk: ChunkId) => void = () => {};
  readonly #pages: Page[] = [];
  #rows = 0;

  /** Chunks there are, placeholder ones and the tops of trees included. */
  get size(): number {
    return this.#rows;
  }

  /** Rows of this shape are asked for with {@link add}. */
  shape({ chunkTokens, parts, tiers }: Pick<RowShape, "chunkTokens" | "parts" | "tiers">): RowShape {
    const partsAt = headerWords + 3 * tiers + 2 * parts.length;
    const tokensAt = partsAt + 3 * parts.length + 8;
    const words = tokensAt + chunkTokens;
    const hasSnapshots = parts.includes("snapshot");
    return { chunkTokens, parts, hasSnapshots, tiers, words: words + (words % 2), partsAt, tokensAt, free: 0 };
  }

  /** A new placeholder without children. Its tokens are copied. @returns undefined when the index has no row left */
  add(
    shape: RowShape,
    chunk: { parent: ChunkId; root: number; firstToken: number; tokens: Tokens },
  ): ChunkId | undefined {
    if (shape.free === 0 && !this.#addPage(shape)) return undefined;
    const row = shape.free;
    const page = this.#pages[pageOf(row)]!; // the free list has rows of pages
    const base = rowInPage(row) * shape.words;
    const generation = page.words[base]! >>> rowBits;
    shape.free = page.words[base + field.left]!;
    page.words.fill(0, base, base + shape.words);
    page.words[base] = ((generation << rowBits) | (chunk.tokens.length << countShift) | flag.inUse) >>> 0;
    page.words[base + field.parent] = chunk.parent;
    page.words[base + field.root] = chunk.root;
    page.words[base + field.firstToken] = chunk.firstToken;
    page.words.set(chunk.tokens, base + shape.tokensAt);
    this.#rows += 1;
    return chunkIdOf(row, generation);
  }

  /** Gives the row back; the chunk's name is stale from now on. */
  remove(chunk: ChunkId): void {
    this.beforeRemoval(chunk);
    const page = this.#pageOf(chunk);
    const base = baseOf(page, chunk);
    const generation = ((page.words[base]! >>> rowBits) + 1) % generations;
    page.words[base] = (generation << rowBits) >>> 0;
    page.words[base + field.left] = page.shape.free;
    page.shape.free = rowOf(chunk);
    this.#rows -= 1;
  }

  /** Is this still a chunk? For those who kept a name without a lease or a hold. */
  has(chunk: ChunkId): boolean {
    const page = this.#pages[pageOf(chunk)];
    if (page === undefined || chunk === noChunk) return false;
    const state = page.words[rowInPage(chunk) * page.shape.words]!; // within the page
    return (state & flag.inUse) !== 0 && (state ^ chunk) >>> rowBits === 0;
  }

  get(chunk: ChunkId, name: Field): number {
    const page = this.#pageOf(chunk);
    return page.words[baseOf(page, chunk) + name]!; // within the row
  }

  set(chunk: ChunkId, name: Field, value: number): void {
    const page = this.#pageOf(chunk);
    page.words[baseOf(page, chunk) + name] = value;
  }

  link(chunk: ChunkId, name: Link): ChunkId {
    return this.get(chunk, name) as ChunkId; // only chunks are put there
  }

  is(chunk: ChunkId, name: Flag): boolean {
    const page = this.#pageOf(chunk);
    return (page.words[baseOf(page, chunk)]! & name) !== 0; // within the page
  }

  mark(chunk: ChunkId, name: Flag, value: boolean): void {
    const page = this.#pageOf(chunk);
    const base = baseOf(page, chunk);
    const state = page.words[base]!; // within the page
    page.words[base] = value ? state | name : state & ~name;
  }

  shapeOf(chunk: ChunkId): RowShape {
    return this.#pageOf(chunk).shape;
  }

  tokenCount(chunk: ChunkId): number {
    const page = this.#pageOf(chunk);
    return (page.words[baseOf(page, chunk)]! >>> countShift) & countMask; // within the page
  }

  /** The chunk's tokens, in place: not to be kept. */
  tokens(chunk: ChunkId): Tokens {
    const page = this.#pageOf(chunk);
    const base = baseOf(page, chunk);
    const start = base + page.shape.tokensAt;
    return page.words.subarray(start, start + this.tokenCount(chunk));
  }

  /** Leading tokens that the chunk has in common with `tokens` from `from` on. */
  commonWith(chunk: ChunkId, tokens: Tokens, from: number): number {
    const page = this.#pageOf(chunk);
    const { words } = page;
    const base = baseOf(page, chunk);
    const count = (words[base]! >>> countShift) & countMask;
    const start = base + page.shape.tokensAt;
    const limit = Math.min(count, tokens.length - from);
    let length = 0;
    // Eight at a time: 500 chunks of 64 tokens took 38 us instead of 52.
    for (; length <= limit - 8; length += 8) {
      const a = start + length;
      const b = from + length;
      const differs =
        (words[a]! ^ tokens[b]!) |
        (words[a + 1]! ^ tokens[b + 1]!) |
        (words[a + 2]! ^ tokens[b + 2]!) |
        (words[a + 3]! ^ tokens[b + 3]!) |
        (words[a + 4]! ^ tokens[b + 4]!) |
        (words[a + 5]! ^ tokens[b + 5]!) |
        (words[a + 6]! ^ tokens[b + 6]!) |
        (words[a + 7]! ^ tokens[b + 7]!); // all below the limit
      if (differs !== 0) break;
    }
    while (length < limit && words[start + length] === tokens[from + length]) length += 1;
    return length;
  }

  /** Tokens in common with `tokens` from `from` on, counted from the chunk's token `start`. */
  commonAfter(chunk: ChunkId, start: number, tokens: Tokens, from: number): number {
    const page = this.#pageOf(chunk);
    const first = baseOf(page, chunk) + page.shape.tokensAt + start;
    const limit = Math.min(this.tokenCount(chunk) - start, tokens.length - from);
    let length = 0;
    while (length < limit && page.words[first + length] === tokens[from + length]) length += 1;
    return length;
  }

  /** Tokens in common before the chunk's token `end` and before `to`, where `tokens` count from `from` on. */
  commonBefore(chunk: ChunkId, end: number, tokens: Tokens, range: { from: number; to: number }): number {
    const page = this.#pageOf(chunk);
    const last = baseOf(page, chunk) + page.shape.tokensAt + end - 1;
    const limit = Math.min(end, range.to - range.from);
    let length = 0;
    while (length < limit && page.words[last - length] === tokens[range.to - 1 - length]) length += 1;
    return length;
  }

  /** Order of two chunks' tokens: by the first that differs; a prefix comes before what continues it. */
  compare(a: ChunkId, b: ChunkId): number {
    const pageA = this.#pageOf(a);
    const pageB = this.#pageOf(b);
    const startA = baseOf(pageA, a) + pageA.shape.tokensAt;
    const startB = baseOf(pageB, b) + pageB.shape.tokensAt;
    const countA = this.tokenCount(a);
    const countB = this.tokenCount(b);
    const limit = Math.min(countA, countB);
    let common = 0;
    while (common < limit && pageA.words[startA + common] === pageB.words[startB + common]) common += 1;
    if (common === limit) return countA - countB;
    return pageA.words[startA + common]! - pageB.words[startB + common]!; // both go on
  }

  token(chunk: ChunkId, position: number): number {
    const page = this.#pageOf(chunk);
    const base = baseOf(page, chunk);
    return page.words[base + page.shape.tokensAt + position]!; // within the chunk
  }

  /** The chunk's record in a tier, by the tier's number. */
  record(chunk: ChunkId, tier: number): number | undefined {
    const page = this.#pageOf(chunk);
    const base = baseOf(page, chunk);
    const stored = page.doubles[(base + headerWords) / 2 + tier]!; // one per tier
    return stored === 0 ? undefined : stored - 1;
  }

  setRecord(chunk: ChunkId, tier: number, record: number | undefined): void {
    const page = this.#pageOf(chunk);
    const base = baseOf(page, chunk);
    page.doubles[(base + headerWords) / 2 + tier] = record === undefined ? 0 : record + 1;
  }

  /** A part's place in the pool. */
  slot(chunk: ChunkId, part: number): number | undefined {
    const page = this.#pageOf(chunk);
    const base = baseOf(page, chunk);
    const stored = page.doubles[(base + headerWords) / 2 + page.shape.tiers + part]!; // one per part
    return stored === 0 ? undefined : stored - 1;
  }

  setSlot(chunk: ChunkId, part: number, offset: number | undefined): void {
    const page = this.#pageOf(chunk);
    const base = baseOf(page, chunk);
    page.doubles[(base + headerWords) / 2 + page.shape.tiers + part] = offset === undefined ? 0 : offset + 1;
  }

  /** The size of a part's slot, when it has one. */
  slotBytes(chunk: ChunkId, part: number): number {
    const page = this.#pageOf(chunk);
    const base = baseOf(page, chunk);
    return page.words[base + page.shape.partsAt + 3 * part + 2]!; // one per part
  }

  setSlotBytes(chunk: ChunkId, part: number, bytes: number): void {
    const page = this.#pageOf(chunk);
    const base = baseOf(page, chunk);
    page.words[base + page.shape.partsAt + 3 * part + 2] = bytes;
  }

  /** Payload length by part; 0 until it is written. */
  bytes(chunk: ChunkId, part: number): number {
    const page = this.#pageOf(chunk);
    const base = baseOf(page, chunk);
    return page.words[base + page.shape.partsAt + 3 * part]!; // one per part
  }

  setBytes(chunk: ChunkId, part: number, bytes: number): void {
    const page = this.#pageOf(chunk);
    const base = baseOf(page, chunk);
    page.words[base + page.shape.partsAt + 3 * part] = bytes;
  }

  nextByRecord(chunk: ChunkId, tier: number): number {
    const page = this.#pageOf(chunk);
    const base = baseOf(page, chunk);
    return page.words[base + page.shape.partsAt - page.shape.tiers + tier]!; // one per tier
  }

  setNextByRecord(chunk: ChunkId, tier: number, next: number): void {
    const page = this.#pageOf(chunk);
    const base = baseOf(page, chunk);
    page.words[base + page.shape.partsAt - page.shape.tiers + tier] = next;
  }

  nextBySlot(chunk: ChunkId, part: number): number {
    const page = this.#pageOf(chunk);
    const base = baseOf(page, chunk);
    return page.words[base + page.shape.partsAt + 3 * part + 1]!; // one per part
  }

  setNextBySlot(chunk: ChunkId, part: number, next: number): void {
    const page = this.#pageOf(chunk);
    const base = baseOf(page, chunk);
    page.words[base + page.shape.partsAt + 3 * part + 1] = next;
  }

  /** The 32 bytes of the chunk's key, in place; they mean something once {@link flag.keyKnown} is set. */
  keyBytes(chunk: ChunkId): Uint8Array {
    const page = this.#pageOf(chunk);
    const base = baseOf(page, chunk);
    return new Uint8Array(page.words.buffer, 4 * (base + page.shape.tokensAt - 8), 32);
  }

  #pageOf(chunk: ChunkId): Page {
    const page = this.#pages[pageOf(chunk)];
    assert(page !== undefined, "no such chunk was ever in the index");
    const state = page.words[rowInPage(chunk) * page.shape.words]!; // within the page
    assert((state & flag.inUse) !== 0 && (state ^ chunk) >>> rowBits === 0, "a chunk was used after it left the index");
    return page;
  }

  #addPage(shape: RowShape): boolean {
    const number = this.#pages.length;
    if (number === 2 ** pageBits) return false;
    const words = new Uint32Array(shape.words * rowsPerPage);
    this.#pages.push({ shape, words, doubles: new Float64Array(words.buffer) });
    for (let i = rowsPerPage - 1; i >= 0; i -= 1) {
      const row = number * rowsPerPage + i;
      if (row === noChunk) continue;
      words[i * shape.words + field.left] = shape.free;
      shape.free = row;
    }
    return true;
  }
}

/** Payload lengths of what a tier has of a chunk: one for each part, and all rows there. */
export function hasRows(payloadBytes: readonly number[], { parts }: Pick<RowShape, "parts">): boolean {
  return (
    payloadBytes.length === parts.length && parts.every((kind, part) => kind === "snapshot" || payloadBytes[part]! > 0)
  ); // as many
}

/** Where a chunk's row begins in its page, in words. */
function baseOf(page: Page, chunk: ChunkId): number {
  return rowInPage(chunk) * page.shape.words;
}
