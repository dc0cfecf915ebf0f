/**
 * The index of all spaces: space → root → radix tree.
 *
 * Records that a tier brings back at start name their space only by its digest, so they wait here until a guest
 * describes that space; then they are put into its trees, parents first. A record whose key does not follow from its
 * tokens, or whose parent is nowhere, can never be found again and is dropped.
 */
import type { RecordId, StoredRecord, Tier, TierOwner } from "../tier.ts";
import { chunkKey, rootKey, type ChunkKey, type Root, type RootKey } from "./chunk.ts";
import type { ChunkStore } from "./chunk-store.ts";
import type { Counters } from "./counters.ts";
import { RadixTree } from "./radix.ts";
import { spaceId, type SpaceDescription, type SpaceId } from "./space.ts";
import type { ChunkNode, RootIndex } from "./stored-chunk.ts";

export interface Space {
  readonly id: SpaceId;
  readonly description: SpaceDescription;
  readonly roots: Map<RootKey, RootIndex>;
}

interface ParkedRecord {
  readonly tier: Tier;
  id: RecordId;
  readonly record: StoredRecord;
}

const minimumSweep = 1024;

export class Spaces {
  readonly #store: ChunkStore;
  readonly #counters: Counters;
  readonly #spaces = new Map<SpaceId, Space>();
  readonly #parked = new Map<SpaceId, Set<ParkedRecord>>();
  /** Roots of a space at which the empty ones among them are swept out. */
  #sweepAt = minimumSweep;
  readonly #parkedByRecord = new Map<Tier, Map<RecordId, ParkedRecord>>();

  constructor(options: { store: ChunkStore; counters: Counters }) {
    this.#store = options.store;
    this.#counters = options.counters;
  }

  /** The space, with what the tiers know of it. */
  open(description: SpaceDescription): Space {
    const id = spaceId(description);
    let space = this.#spaces.get(id);
    if (space === undefined) {
      space = { id, description, roots: new Map() };
      this.#spaces.set(id, space);
    }
    this.#unpark(space);
    return space;
  }

  /** The index of a root, if anything was ever stored under it. */
  root(space: Space, root: Root): RootIndex | undefined {
    return space.roots.get(rootKey(space.id, root));
  }

  makeRoot(space: Space, key: RootKey): RootIndex {
    let index = space.roots.get(key);
    if (index === undefined) {
      if (space.roots.size >= this.#sweepAt) {
        this.#sweep(space);
        this.#sweepAt = Math.max(minimumSweep, 2 * space.roots.size);
      }
      const { id, description } = space;
      const { tensorParallel, chunkTokens } = description;
      index = { space: id, description, key, ranks: tensorParallel, tree: new RadixTree(chunkTokens) };
      space.roots.set(key, index);
    }
    return index;
  }

  /** Takes over what `tier` kept, and answers its questions from then on. */
  async recover(tier: Tier): Promise<void> {
    const parked = new Map<RecordId, ParkedRecord>();
    this.#parkedByRecord.set(tier, parked);
    for await (const record of tier.recover(this.#ownerOf(tier))) {
      const entry = { tier, id: record.id, record };
      parked.set(record.id, entry);
      let ofSpace = this.#parked.get(record.space);
      if (ofSpace === undefined) this.#parked.set(record.space, (ofSpace = new Set()));
      ofSpace.add(entry);
    }
  }

  *indexes(): Iterable<RootIndex> {
    for (const space of this.#spaces.values()) yield* space.roots.values();
  }

  stats(): { spaces: number; roots: number; chunks: number } {
    let roots = 0;
    let chunks = 0;
    for (const index of this.indexes()) {
      roots += 1;
      chunks += index.tree.size;
    }
    return { spaces: this.#spaces.size, roots, chunks };
  }

  #ownerOf(tier: Tier): TierOwner {
    return {
      isWanted: (id) => {
        const chunk = this.#store.recordOwner(tier, id);
        return chunk !== undefined && chunk.lastUsed > chunk.recordedAt;
      },
      onEvicted: (ids) => {
        for (const id of ids) {
          this.#forgetParked(tier, id);
          const chunk = this.#store.forgetRecord(tier, id);
          if (chunk !== undefined) this.#store.removeIfEmpty(chunk);
        }
      },
      onMoved: (from, to) => {
        const parked = this.#parkedByRecord.get(tier)?.get(from);
        if (parked !== undefined) {
          this.#parkedByRecord.get(tier)?.delete(from);
          this.#parkedByRecord.get(tier)?.set(to, parked);
          parked.id = to;
        }
        const chunk = this.#store.recordOwner(tier, from);
        if (chunk === undefined) return;
        this.#store.moveRecord(chunk, tier, to);
      },
    };
  }

  /** Forgets roots that hold nothing any more. */
  #sweep(space: Space): void {
    for (const [key, index] of space.roots) if (index.tree.size === 0) space.roots.delete(key);
  }

  #forgetParked(tier: Tier, id: RecordId): void {
    const parked = this.#parkedByRecord.get(tier)?.get(id);
    if (parked === undefined) return;
    this.#parkedByRecord.get(tier)?.delete(id);
    this.#parked.get(parked.record.space)?.delete(parked);
  }

  /** Puts the records that waited for this space into its trees. */
  #unpark(space: Space): void {
    const waiting = this.#parked.get(space.id);
    if (waiting === undefined) return;
    this.#parked.delete(space.id);
    const nodes = new Map<ChunkKey | RootKey, ChunkNode>();
    // By position, so that a parent comes before its children whatever order the tier had them in.
    const ordered = [...waiting].sort((a, b) => a.record.firstToken - b.record.firstToken);
    for (const parked of ordered) {
      this.#parkedByRecord.get(parked.tier)?.delete(parked.id);
      if (!this.#place(space, parked, nodes)) parked.tier.drop(parked.id);
    }
    this.#sweep(space);
  }

  #place(space: Space, { tier, id, record }: ParkedRecord, nodes: Map<ChunkKey | RootKey, ChunkNode>): boolean {
    const { tensorParallel, chunkTokens } = space.description;
    const { tokens, payloadBytes } = record;
    const fits = tokens.length > 0 && tokens.length <= chunkTokens && payloadBytes.length === tensorParallel;
    if (!fits || chunkKey(record.parent, tokens) !== record.key) {
      this.#counters.corruptRecords += 1;
      return false;
    }
    const index = this.makeRoot(space, record.root);
    const parent = record.firstToken === 0 ? index.tree.top : nodes.get(record.parent);
    const follows =
      parent === index.tree.top
        ? record.parent === record.root
        : parent?.payload?.index === index &&
          parent.tokens.length === chunkTokens &&
          parent.firstToken + chunkTokens === record.firstToken;
    if (parent === undefined || !follows) return false;
    const chunk = this.#store.chunkAt(index, index.tree.insert(parent, tokens));
    if (chunk.records.has(tier)) return false; // the same chunk twice: a rewrite that a crash cut short
    // Adopted in the pool, and written anew since this record was: what is in memory counts.
    if (chunk.hasSlots && payloadBytes.some((bytes, rank) => bytes !== chunk.bytes[rank])) return false;
    for (const [rank, bytes] of payloadBytes.entries()) {
      chunk.bytes[rank] = bytes;
      chunk.written[rank] = true;
    }
    chunk.visible = true;
    this.#store.addRecord(chunk, tier, id);
    this.#store.supersede(chunk);
    nodes.set(record.key, chunk.node);
    return true;
  }
}
