/**
 * The index of all spaces: space → root → radix tree. What tiers kept from before comes back while guests are served
 * (returning-records.ts); until it has, it is a miss, or comes when it is asked for.
 */
import type { Tier, TierOwner } from "../tier.ts";
import { rootKey, type Root, type RootKey, type Tokens } from "./chunk.ts";
import type { ChunkStore } from "./chunk-store.ts";
import type { Counters } from "./counters.ts";
import { ReturningRecords } from "./returning-records.ts";
import { spaceId, type SpaceDescription, type SpaceId } from "./space.ts";
import type { IndexedSpace, RootIndex } from "./stored-chunk.ts";

export interface Space extends IndexedSpace {
  readonly roots: Map<RootKey, RootIndex>;
}

const minimumSweep = 1024;

export class Spaces {
  readonly #store: ChunkStore;
  readonly #returning: ReturningRecords;
  readonly #spaces = new Map<SpaceId, Space>();
  /** Roots of a space at which the empty ones among them are swept out. */
  #sweepAt = minimumSweep;
  #recovery: Promise<void> = Promise.resolve();
  #stopped = false;

  constructor(options: { store: ChunkStore; counters: Counters }) {
    this.#store = options.store;
    this.#returning = new ReturningRecords({ ...options, makeRoot: (space, key) => this.makeRoot(space, key) });
  }

  /** The space, with what the tiers know of it. */
  open(description: SpaceDescription): Space {
    const id = spaceId(description);
    let space = this.#spaces.get(id);
    if (space === undefined) {
      space = { id, description, shape: this.#store.chunks.shape(description), roots: new Map() };
      this.#spaces.set(id, space);
    }
    this.#returning.open(space);
    return space;
  }

  /** The index of a root, if anything was ever stored under it. */
  root(space: Space, root: Root): RootIndex | undefined {
    return space.roots.get(rootKey(space.id, root));
  }

  /** The index of a root, made when there is none. @returns undefined when the index has no room for another */
  makeRoot(space: Space, key: RootKey): RootIndex | undefined {
    const known = space.roots.get(key);
    if (known !== undefined) return known;
    if (space.roots.size >= this.#sweepAt) {
      this.#sweep(space);
      this.#sweepAt = Math.max(minimumSweep, 2 * space.roots.size);
    }
    const index = this.#store.chunks.makeRoot(space, key);
    if (index !== undefined) space.roots.set(key, index);
    return index;
  }

  /** Takes over what the tiers kept, in the background, and answers their questions from then on. */
  recover(tiers: readonly Tier[], onFailure: (tier: Tier, error: unknown) => void): void {
    const work = tiers.map((tier) => this.#recover(tier).catch((error: unknown) => onFailure(tier, error)));
    this.#recovery = Promise.all(work).then(() => this.#returning.end());
  }

  /** What the tiers kept of the space is not all back yet. */
  isReturning(space: Space): boolean {
    return this.#returning.isReturning(space);
  }

  /** Brings a text back ahead of the others. */
  bring(space: Space, root: Root, tokens: Tokens): Promise<void> {
    return this.#returning.bring(space, rootKey(space.id, root), tokens);
  }

  /** Resolves when what the tiers kept is known, and that of open spaces can be found. */
  recovered(): Promise<void> {
    return this.#returning.settled();
  }

  /** Ends the recovery where it is. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#returning.stop();
    await this.#recovery;
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
        const chunk = this.#store.records.ownerOf(tier, id);
        return chunk !== undefined && this.#store.records.isWanted(chunk);
      },
      onEvicted: (ids) => {
        for (const id of ids) {
          const chunk = this.#store.records.forget(tier, id);
          if (chunk !== undefined) this.#store.removeIfEmpty(chunk);
        }
      },
      onMoved: (from, to) => {
        const chunk = this.#store.records.ownerOf(tier, from);
        if (chunk === undefined) return;
        this.#store.records.move(chunk, tier, to);
      },
    };
  }

  /** Forgets roots that hold nothing any more. */
  #sweep(space: Space): void {
    for (const [key, index] of space.roots) {
      if (index.tree.size > 0) continue;
      space.roots.delete(key);
      this.#store.chunks.dropRoot(index);
    }
  }

  async #recover(tier: Tier): Promise<void> {
    for await (const batch of tier.recover(this.#ownerOf(tier))) {
      if (this.#stopped) return;
      this.#returning.add(tier, batch);
    }
  }
}
