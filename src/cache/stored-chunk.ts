/**
 * What the cache knows of its chunks' bytes: where they are and who keeps them there. The facts themselves lie in the
 * {@link ChunkTable}; here they are put into words.
 *
 *     slot(rank)      undefined ──allocate──► offset ──evict──► undefined
 *     bytes(rank)     0 ──commit──► payload length      all written: the chunk is visible from then on
 *     record(tier)    the same bytes below the pool
 */
import type { Tier, TierName } from "../tier.ts";
import { noChunk, type ChunkId } from "./chunk-id.ts";
import { ChunkTable, field, flag, type RowShape } from "./chunk-table.ts";
import { chunkKey, type ChunkKey, type RootKey, type Tokens } from "./chunk.ts";
import type { ChunkTraits } from "./eviction.ts";
import { RadixTree } from "./radix.ts";
import type { SpaceDescription, SpaceId } from "./space.ts";

/** A space whose chunks have rows. */
export interface IndexedSpace {
  readonly id: SpaceId;
  readonly description: SpaceDescription;
  readonly shape: RowShape;
}

/** One root of one space, with its index. */
export interface RootIndex {
  readonly space: SpaceId;
  readonly description: SpaceDescription;
  readonly key: RootKey;
  readonly ranks: number;
  /** Whose chunks these are for eviction: one root, one tenant. */
  readonly tenant: number;
  readonly tree: RadixTree;
}

export class StoredChunks {
  readonly table = new ChunkTable();
  /** From fast to slow; a tier's place is its number in a row. */
  readonly tiers: readonly Tier[];
  readonly #roots = new Map<number, RootIndex>();
  #lastTenant = 0;

  constructor(tiers: readonly Tier[]) {
    this.tiers = tiers;
  }

  /** What rows of a space look like; asked for once per space. */
  shape({ chunkTokens, tensorParallel }: { readonly chunkTokens: number; readonly tensorParallel: number }): RowShape {
    return this.table.shape({ chunkTokens, ranks: tensorParallel, tiers: this.tiers.length });
  }

  /** A root without chunks. @returns undefined when the index is full */
  makeRoot(space: IndexedSpace, key: RootKey): RootIndex | undefined {
    const { id, description, shape } = space;
    const tenant = this.#lastTenant + 1;
    const tree = RadixTree.make(this.table, shape, tenant);
    if (tree === undefined) return undefined;
    this.#lastTenant = tenant;
    const index = { space: id, description, key, ranks: shape.ranks, tenant, tree };
    this.#roots.set(tenant, index);
    return index;
  }

  /** Forgets a root without chunks. */
  dropRoot(index: RootIndex): void {
    index.tree.dispose();
    this.#roots.delete(index.tenant);
  }

  rootOf(chunk: ChunkId): RootIndex {
    return this.#roots.get(this.tenantOf(chunk))!; // a root lives as long as its chunks
  }

  tenantOf(chunk: ChunkId): number {
    return this.table.get(chunk, field.root);
  }

  /** The chunk before it; for the first one the top of its tree, whose own parent is `noChunk`. */
  parentOf(chunk: ChunkId): ChunkId {
    return this.table.link(chunk, field.parent);
  }

  /** Position of the chunk's first token in the text. */
  firstToken(chunk: ChunkId): number {
    return this.table.get(chunk, field.firstToken);
  }

  tokenCount(chunk: ChunkId): number {
    return this.table.tokenCount(chunk);
  }

  /** The chunk's tokens, in place: not to be kept. */
  tokens(chunk: ChunkId): Tokens {
    return this.table.tokens(chunk);
  }

  ranksOf(chunk: ChunkId): number {
    return this.table.shapeOf(chunk).ranks;
  }

  slot(chunk: ChunkId, rank: number): number | undefined {
    return this.table.slot(chunk, rank);
  }

  /** Payload length of one rank; 0 until it was written. */
  bytes(chunk: ChunkId, rank: number): number {
    return this.table.bytes(chunk, rank);
  }

  /** Payload lengths of all ranks. */
  payloadBytes(chunk: ChunkId): number[] {
    return Array.from({ length: this.ranksOf(chunk) }, (_, rank) => this.table.bytes(chunk, rank));
  }

  /** Their sum: what loading the chunk moves. */
  bytesOfAllRanks(chunk: ChunkId): number {
    let sum = 0;
    for (let rank = 0; rank < this.ranksOf(chunk); rank += 1) sum += this.table.bytes(chunk, rank);
    return sum;
  }

  setBytes(chunk: ChunkId, rank: number, bytes: number): void {
    this.table.setBytes(chunk, rank, bytes);
  }

  /** Every rank has committed its payload, or a tier had it. */
  isWritten(chunk: ChunkId): boolean {
    for (let rank = 0; rank < this.ranksOf(chunk); rank += 1) if (this.table.bytes(chunk, rank) === 0) return false;
    return true;
  }

  /** The payloads can be read, here or below. */
  isVisible(chunk: ChunkId): boolean {
    return this.table.is(chunk, flag.visible);
  }

  /** Every rank's payload is readable in the pool. */
  isInMemory(chunk: ChunkId): boolean {
    if (!this.table.is(chunk, flag.visible) || this.table.is(chunk, flag.promoting)) return false;
    for (let rank = 0; rank < this.ranksOf(chunk); rank += 1)
      if (this.table.slot(chunk, rank) === undefined) return false;
    return true;
  }

  /** The payloads can be read, but not in the pool. */
  isBelowMemory(chunk: ChunkId): boolean {
    return this.isVisible(chunk) && !this.isInMemory(chunk);
  }

  hasSlots(chunk: ChunkId): boolean {
    return this.slotsOf(chunk) > 0;
  }

  slotsOf(chunk: ChunkId): number {
    let slots = 0;
    for (let rank = 0; rank < this.ranksOf(chunk); rank += 1)
      if (this.table.slot(chunk, rank) !== undefined) slots += 1;
    return slots;
  }

  /** What the chunk takes of the pool. */
  bytesInPool(chunk: ChunkId): number {
    return this.slotsOf(chunk) * this.table.get(chunk, field.slotBytes);
  }

  hasRecords(chunk: ChunkId): boolean {
    for (let tier = 0; tier < this.tiers.length; tier += 1)
      if (this.table.record(chunk, tier) !== undefined) return true;
    return false;
  }

  /** The fastest place that has the chunk's bytes. */
  tierOf(chunk: ChunkId): TierName | undefined {
    if (this.isInMemory(chunk)) return "memory";
    for (let tier = 0; tier < this.tiers.length; tier += 1)
      if (this.table.record(chunk, tier) !== undefined) return this.tiers[tier]!.name; // one of them
    return undefined;
  }

  /** The chunk's key: hashed when it is first asked for, and those before it that were not yet. */
  key(chunk: ChunkId): ChunkKey {
    const unknown: ChunkId[] = [];
    let at = chunk;
    for (; this.parentOf(at) !== noChunk && !this.table.is(at, flag.keyKnown); at = this.parentOf(at)) unknown.push(at);
    let key = this.#knownKey(at);
    for (const next of unknown.toReversed()) {
      const ofNext = chunkKey(key, this.tokens(next));
      this.setKey(next, ofNext);
      key = ofNext;
    }
    return key as ChunkKey; // `chunk` is no top
  }

  /** Takes over a key that was verified, so that it is not hashed again. */
  setKey(chunk: ChunkId, key: ChunkKey): void {
    this.table.keyBytes(chunk).set(Buffer.from(key, "hex"));
    this.table.mark(chunk, flag.keyKnown, true);
  }

  /** The key of the chunk before it, or of the root. */
  parentKey(chunk: ChunkId): ChunkKey | RootKey {
    const parent = this.parentOf(chunk);
    return this.parentOf(parent) === noChunk ? this.rootOf(chunk).key : this.key(parent);
  }

  traits(chunk: ChunkId): ChunkTraits {
    return { fingerprint: Number.parseInt(this.key(chunk).slice(0, 8), 16), firstToken: this.firstToken(chunk) };
  }

  #knownKey(chunk: ChunkId): ChunkKey | RootKey {
    if (this.parentOf(chunk) === noChunk) return this.rootOf(chunk).key;
    return Buffer.from(this.table.keyBytes(chunk)).toString("hex") as ChunkKey; // known: asked above
  }
}
