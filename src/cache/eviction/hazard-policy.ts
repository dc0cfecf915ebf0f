/**
 * The eviction policy in use: the chunk that is least likely to be read again soon goes first.
 *
 * A chunk's class is how often it was read (0 to 3 and more) and how deep in its text it is; with the time since it was
 * touched last, {@link ReuseOdds} gives its score. One look at the oldest chunk of each class finds the lowest score.
 * Nothing is drawn by lot: the same calls always evict the same chunks.
 *
 * After "KVCache Cache in the Wild" (USENIX ATC '25): reuse falls with time at a rate of its own per kind of request, and
 * what stands at the head of many texts is worth more.
 */
import { assert } from "../../errors.ts";
import { rowOf, type ChunkId } from "../index/chunk-id.ts";
import type { ChunkTraits } from "../index/stored-chunk.ts";
import type { EvictionPolicy } from "./policy.ts";
import { Ghosts } from "./ghosts.ts";
import { OfferedChunks } from "./offered-chunks.ts";
import { PagedColumn } from "../index/paged-column.ts";
import { ReuseOdds } from "./reuse-odds.ts";

/** First tokens from which a chunk counts as deeper. */
const depths = [512, 4096, 16_384];
const depthClasses = depths.length + 1;
const mostReads = 3;
const classes = (mostReads + 1) * depthClasses;

export class HazardPolicy implements EvictionPolicy {
  readonly #odds = new ReuseOdds(classes);
  readonly #ghosts = new Ghosts();
  readonly #classOf = PagedColumn.bytes();
  readonly #touchedAt = PagedColumn.doubles();
  readonly #place = PagedColumn.integers();
  readonly #offered = new OfferedChunks(classes, {
    touchedAt: (chunk) => this.#touchedAt.get(rowOf(chunk)),
    classOf: (chunk) => this.#classOf.get(rowOf(chunk)),
    place: (chunk) => this.#place.get(rowOf(chunk)),
    setPlace: (chunk, place) => this.#place.set(rowOf(chunk), place),
  });

  stored(chunk: ChunkId, { fingerprint, firstToken }: ChunkTraits, now: number): void {
    const ghost = this.#ghosts.take(fingerprint);
    if (ghost !== undefined) this.#odds.isRead(ghost.chunkClass, now - ghost.touchedAt);
    this.#enter(chunk, ghost === undefined ? depthOf(firstToken) : readOnceMore(ghost.chunkClass), now);
  }

  used(chunk: ChunkId, now: number): void {
    const chunkClass = this.#classOf.get(rowOf(chunk));
    this.#odds.isRead(chunkClass, now - this.#touchedAt.get(rowOf(chunk)));
    this.#enter(chunk, readOnceMore(chunkClass), now);
  }

  refreshed(chunk: ChunkId, now: number): void {
    assert(!this.isOffered(chunk), "a chunk is withdrawn before it is touched");
    this.#touchedAt.set(rowOf(chunk), now);
  }

  forgotten(chunk: ChunkId, { fingerprint }: ChunkTraits): void {
    assert(!this.isOffered(chunk), "a chunk is withdrawn before it is forgotten");
    const row = rowOf(chunk);
    this.#ghosts.add(fingerprint, { chunkClass: this.#classOf.get(row), touchedAt: this.#touchedAt.get(row) });
    this.#classOf.set(row, 0);
  }

  offer(chunk: ChunkId, tenant: number): void {
    this.#offered.add(chunk, tenant);
  }

  withdraw(chunk: ChunkId, tenant: number): void {
    if (this.isOffered(chunk)) this.#offered.remove(chunk, tenant);
  }

  isOffered(chunk: ChunkId): boolean {
    return this.#offered.has(chunk);
  }

  next(now: number, tenant?: number): ChunkId | undefined {
    let best: ChunkId | undefined;
    let bestScore = Infinity;
    for (let c = 0; c < classes; c += 1) {
      const chunk = this.#offered.oldest(c, tenant);
      if (chunk === undefined) continue;
      const score = this.#odds.score(c, now - this.#touchedAt.get(rowOf(chunk)));
      if (score > bestScore || (score === bestScore && !this.#isOlder(chunk, best!))) continue; // a best is there
      best = chunk;
      bestScore = score;
    }
    return best;
  }

  score(chunk: ChunkId, now: number): number {
    const row = rowOf(chunk);
    const age = now - this.#touchedAt.get(row);
    // Of equal odds the older one's count a hair less, as for next().
    return this.#odds.score(this.#classOf.get(row), age) * (1 + 0.001 / (1 + age));
  }

  check(): void {
    this.#offered.check();
  }

  #enter(chunk: ChunkId, chunkClass: number, now: number): void {
    assert(!this.isOffered(chunk), "a chunk is withdrawn before it is touched");
    this.#odds.enters(chunkClass);
    this.#classOf.set(rowOf(chunk), chunkClass);
    this.#touchedAt.set(rowOf(chunk), now);
  }

  #isOlder(a: ChunkId, b: ChunkId): boolean {
    return this.#touchedAt.get(rowOf(a)) < this.#touchedAt.get(rowOf(b));
  }
}

/** The class of a chunk at this depth that was never read. */
function depthOf(firstToken: number): number {
  return depths.filter((depth) => firstToken >= depth).length;
}

function readOnceMore(chunkClass: number): number {
  return Math.min(chunkClass + depthClasses, classes - depthClasses + (chunkClass % depthClasses));
}
