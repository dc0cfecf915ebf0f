/**
 * What the cache knows of one chunk's bytes: where they are and who keeps them there.
 *
 *     slots[rank]      undefined ──allocate──► offset ──evict──► undefined
 *     written[rank]    false ──commit──► true          all true: the chunk is visible from then on
 *     records          the same bytes below the pool, by tier
 */
import type { RecordId, Tier } from "../tier.ts";
import { chunkKey, type ChunkKey, type RootKey } from "./chunk.ts";
import type { RadixNode, RadixTree } from "./radix.ts";
import type { SpaceDescription, SpaceId } from "./space.ts";

/** One root of one space, with its index. */
export interface RootIndex {
  readonly space: SpaceId;
  readonly description: SpaceDescription;
  readonly key: RootKey;
  readonly ranks: number;
  readonly tree: RadixTree<StoredChunk>;
}

export type ChunkNode = RadixNode<StoredChunk>;

export class StoredChunk {
  readonly index: RootIndex;
  readonly node: ChunkNode;
  /** Offset in the pool by rank. */
  readonly slots: (number | undefined)[];
  /** Size of its slots, when it has any. */
  slotBytes = 0;
  /** Payload length by rank; 0 until it is known. */
  readonly bytes: number[];
  /** Ranks whose payload was committed. */
  readonly written: boolean[];
  readonly records = new Map<Tier, RecordId>();
  visible = false;
  /** A longer sibling holds the same tokens: goes when nobody uses it. */
  superseded = false;
  /** Background work that needs the slots to stay (write-behind, promotion). Leases are counted apart. */
  pins = 0;
  /** Children with a slot in the pool: while there are any, this chunk stays. */
  childrenInPool = 0;
  lastUsed = 0;
  /** When its latest record was written, on the clock of `lastUsed`. */
  recordedAt = 0;
  /** The read from below that is under way, shared by all who wait for the chunk. */
  promotion: Promise<boolean> | undefined;
  #key: ChunkKey | undefined;

  constructor(index: RootIndex, node: ChunkNode) {
    this.index = index;
    this.node = node;
    this.slots = Array.from({ length: index.ranks }, () => undefined);
    this.bytes = Array.from({ length: index.ranks }, () => 0);
    this.written = Array.from({ length: index.ranks }, () => false);
  }

  /** Every rank's payload is readable in the pool. */
  get isInMemory(): boolean {
    return this.visible && this.promotion === undefined && this.slots.every((slot) => slot !== undefined);
  }

  get hasSlots(): boolean {
    return this.slots.some((slot) => slot !== undefined);
  }

  /** What the chunk takes of the pool. */
  get bytesInPool(): number {
    return this.slots.filter((slot) => slot !== undefined).length * this.slotBytes;
  }

  /** Hashed once, when the chunk first leaves memory. */
  get key(): ChunkKey {
    return (this.#key ??= chunkKey(this.parentKey, this.node.tokens));
  }

  /** The key of the chunk before it, or of the root. */
  get parentKey(): ChunkKey | RootKey {
    const { parent } = this.node;
    if (parent === undefined || parent.parent === undefined) return this.index.key;
    return parent.payload?.key ?? keyOfNode(this.index, parent);
  }
}

/** The key of a node, hollow or not. */
function keyOfNode(index: RootIndex, node: ChunkNode): ChunkKey | RootKey {
  const path: ChunkNode[] = [];
  for (let at: ChunkNode | undefined = node; at?.parent !== undefined; at = at.parent) path.push(at);
  let key: ChunkKey | RootKey = index.key;
  for (const at of path.toReversed()) key = chunkKey(key, at.tokens);
  return key;
}
