/**
 * Eviction policies as published, over whole blocks: what bench/eviction.ts compares the cache's own with.
 *
 * None of them knows that a block is of no use without those before it. That they be compared fairly, the blocks of a
 * request are given to them last first, so that of one request the head is the most recent.
 */
export interface BlockCache {
  has(block: number): boolean;
  /** The block was asked for and is there. */
  touch(block: number): void;
  /** The block was asked for and is not there: it is stored, and others go. */
  insert(block: number): void;
}

/** First in, first out. */
export class Fifo implements BlockCache {
  protected readonly blocks = new Set<number>();
  readonly #capacity: number;

  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  has(block: number): boolean {
    return this.blocks.has(block);
  }

  touch(_block: number): void {}

  insert(block: number): void {
    if (this.blocks.size >= this.#capacity) this.blocks.delete(first(this.blocks)!); // it is full
    this.blocks.add(block);
  }
}

/** Least recently used. */
export class Lru extends Fifo {
  override touch(block: number): void {
    this.blocks.delete(block);
    this.blocks.add(block);
  }
}

/** SIEVE (NSDI '24): a hand goes from the oldest to the newest and takes the first block not visited since it came by. */
export class Sieve implements BlockCache {
  /** Oldest first; a value says whether the block was visited. */
  readonly #visited = new Map<number, boolean>();
  readonly #capacity: number;
  #hand: IterableIterator<[number, boolean]>;

  constructor(capacity: number) {
    this.#capacity = capacity;
    this.#hand = this.#visited.entries();
  }

  has(block: number): boolean {
    return this.#visited.has(block);
  }

  touch(block: number): void {
    this.#visited.set(block, true);
  }

  insert(block: number): void {
    while (this.#visited.size >= this.#capacity) {
      const step = this.#hand.next();
      if (step.done === true) this.#hand = this.#visited.entries();
      else if (step.value[1]) this.#visited.set(step.value[0], false);
      else this.#visited.delete(step.value[0]);
    }
    this.#visited.set(block, false);
  }
}

/** S3-FIFO (SOSP '23): a small queue that new blocks must outlive, a main queue, and ghosts of those that did not. */
export class S3Fifo implements BlockCache {
  readonly #capacity: number;
  readonly #smallCapacity: number;
  readonly #small = new Set<number>();
  readonly #main = new Set<number>();
  readonly #ghosts = new Set<number>();
  readonly #reads = new Map<number, number>();

  constructor(capacity: number) {
    this.#capacity = capacity;
    this.#smallCapacity = Math.max(1, Math.floor(capacity / 10));
  }

  has(block: number): boolean {
    return this.#reads.has(block);
  }

  touch(block: number): void {
    this.#reads.set(block, Math.min(3, this.#reads.get(block)! + 1)); // it is there
  }

  insert(block: number): void {
    while (this.#small.size + this.#main.size >= this.#capacity) {
      if (this.#small.size >= this.#smallCapacity || this.#main.size === 0) this.#evictSmall();
      else this.#evictMain();
    }
    if (this.#ghosts.delete(block)) this.#main.add(block);
    else this.#small.add(block);
    this.#reads.set(block, 0);
  }

  #evictSmall(): void {
    const block = first(this.#small);
    if (block === undefined) return;
    this.#small.delete(block);
    if (this.#reads.get(block)! > 1) {
      this.#reads.set(block, 0);
      this.#main.add(block);
      return;
    }
    this.#reads.delete(block);
    this.#ghosts.add(block);
    if (this.#ghosts.size > this.#capacity) this.#ghosts.delete(first(this.#ghosts)!); // it is full
  }

  #evictMain(): void {
    for (;;) {
      const block = first(this.#main)!; // asked only when there is one
      this.#main.delete(block);
      const reads = this.#reads.get(block)!; // it is there
      if (reads === 0) {
        this.#reads.delete(block);
        return;
      }
      this.#reads.set(block, reads - 1);
      this.#main.add(block);
    }
  }
}

/** W-TinyLFU (Caffeine): a window of 1 %, a segmented main part, and admission by counted frequency. */
export class WindowTinyLfu implements BlockCache {
  readonly #capacity: number;
  readonly #windowCapacity: number;
  readonly #protectedCapacity: number;
  readonly #window = new Set<number>();
  readonly #probation = new Set<number>();
  readonly #protected = new Set<number>();
  /** Exact, where Caffeine has a sketch. */
  #counts = new Map<number, number>();
  #counted = 0;

  constructor(capacity: number) {
    this.#capacity = capacity;
    this.#windowCapacity = Math.max(1, Math.floor(capacity / 100));
    this.#protectedCapacity = Math.floor((capacity - this.#windowCapacity) * 0.8);
  }

  has(block: number): boolean {
    return this.#window.has(block) || this.#probation.has(block) || this.#protected.has(block);
  }

  touch(block: number): void {
    this.#count(block);
    if (this.#window.delete(block)) {
      this.#window.add(block);
      return;
    }
    this.#probation.delete(block);
    this.#protected.delete(block);
    this.#protected.add(block);
    if (this.#protected.size > this.#protectedCapacity) move(first(this.#protected)!, this.#protected, this.#probation); // it is full
  }

  insert(block: number): void {
    this.#count(block);
    this.#window.add(block);
    if (this.#window.size <= this.#windowCapacity) return;
    const candidate = first(this.#window)!; // it is full
    this.#window.delete(candidate);
    if (this.#probation.size + this.#protected.size >= this.#capacity - this.#windowCapacity) {
      const from = this.#probation.size > 0 ? this.#probation : this.#protected;
      const victim = first(from)!; // the main part is full
      if ((this.#counts.get(candidate) ?? 0) <= (this.#counts.get(victim) ?? 0)) return;
      from.delete(victim);
    }
    this.#probation.add(candidate);
  }

  #count(block: number): void {
    this.#counts.set(block, (this.#counts.get(block) ?? 0) + 1);
    this.#counted += 1;
    if (this.#counted < 10 * this.#capacity) return;
    this.#counted = 0;
    this.#counts = new Map([...this.#counts].flatMap(([id, n]) => (n > 1 ? [[id, n >> 1]] : [])));
  }
}

function first(blocks: ReadonlySet<number>): number | undefined {
  for (const block of blocks) return block;
  return undefined;
}

function move(block: number, from: Set<number>, to: Set<number>): void {
  from.delete(block);
  to.add(block);
}
