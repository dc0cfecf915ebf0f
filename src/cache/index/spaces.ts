/** The index of all spaces: space → root → radix tree. */
import type { KeyedRoot, RootKey, TenantName } from "../../identity/keys.ts";
import { spaceId, type SpaceDescription, type SpaceId } from "../../identity/space.ts";
import type { IndexedSpace, RootIndex, StoredChunks } from "./stored-chunk.ts";

export interface Space extends IndexedSpace {
  readonly roots: Map<RootKey, RootIndex>;
}

export interface SpacesOptions {
  readonly chunks: StoredChunks;
  /** Makes a root, with all that it has already, a tenant's. */
  readonly setOwner: (index: RootIndex, name: TenantName | undefined) => void;
}

const minimumSweep = 1024;

export class Spaces {
  readonly #chunks: StoredChunks;
  readonly #setOwner: SpacesOptions["setOwner"];
  readonly #spaces = new Map<SpaceId, Space>();
  /** Roots of a space at which the empty ones among them are swept out. */
  #sweepAt = minimumSweep;

  constructor({ chunks, setOwner }: SpacesOptions) {
    this.#chunks = chunks;
    this.#setOwner = setOwner;
  }

  open(description: SpaceDescription): Space {
    const id = spaceId(description);
    let space = this.#spaces.get(id);
    if (space === undefined) {
      space = { id, description, shape: this.#chunks.shape(description), roots: new Map() };
      this.#spaces.set(id, space);
    }
    return space;
  }

  /** The index of a root that is asked for, if anything was ever stored under it. */
  root(space: Space, { key, tenant }: KeyedRoot): RootIndex | undefined {
    const index = space.roots.get(key);
    if (index?.owner.isKnown === false) this.#setOwner(index, tenant);
    return index;
  }

  /** The same for one that is stored under: made when there is none. @returns undefined when the index has no room */
  rootToFill(space: Space, root: KeyedRoot): RootIndex | undefined {
    return this.makeRoot(space, root.key) && this.root(space, root);
  }

  /** The index of a root that nobody asks for yet, made when there is none. @returns undefined when the index has no room for another */
  makeRoot(space: Space, key: RootKey): RootIndex | undefined {
    const known = space.roots.get(key);
    if (known !== undefined) return known;
    if (space.roots.size >= this.#sweepAt) {
      this.#sweep(space);
      this.#sweepAt = Math.max(minimumSweep, 2 * space.roots.size);
    }
    const index = this.#chunks.makeRoot(space, key);
    if (index !== undefined) space.roots.set(key, index);
    return index;
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

  /** Forgets roots that hold nothing any more. */
  #sweep(space: Space): void {
    for (const [key, index] of space.roots) {
      if (index.tree.size > 0) continue;
      space.roots.delete(key);
      this.#chunks.dropRoot(index);
    }
  }
}
