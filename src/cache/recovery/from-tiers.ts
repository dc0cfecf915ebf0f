/**
 * Puts what the tiers kept back into the index, in the background, while the cache serves.
 *
 *     tier ──► batch of one space ──► parked until a guest opens the space ──► read, a slice at a time ──► trees
 *                          │                                                        └ parent not there yet: waits for it
 *                          └─ a text is asked for: its chunks first, by their keys (asked-tiers.ts)
 *
 * Batches name their space only by its digest and are not read before a guest describes that space. A record whose key
 * does not follow from its tokens, or whose parent is nowhere when all have come, can never be found again and is dropped.
 */
import type { LogTier, RecordBatch, StoredRecord } from "../../tier.ts";
import { chunkKey, type ChunkKey, type RootKey } from "../../identity/keys.ts";
import type { ChunkStore } from "../pool/chunk-store.ts";
import type { Counters } from "../counters.ts";
import type { SpaceId } from "../../identity/space.ts";
import type { Space } from "../index/spaces.ts";
import type { ChunkId } from "../index/chunk-id.ts";
import type { RootIndex } from "../index/stored-chunk.ts";
import { hasRows } from "../index/chunk-table.ts";
import { placeRecord } from "./place-record.ts";

export interface ReturningRecordsOptions {
  readonly store: ChunkStore;
  readonly counters: Counters;
  readonly makeRoot: (space: Space, key: RootKey) => RootIndex | undefined;
}

interface Arrival {
  readonly tier: LogTier;
  readonly batch: RecordBatch;
}

interface Orphan {
  readonly tier: LogTier;
  readonly record: StoredRecord;
}

/** What is known of one space's records until all have come. */
class Return {
  readonly batches: Arrival[] = [];
  readonly placed = new Map<ChunkKey, ChunkId>();
  /** By the parent they wait for. */
  readonly orphans = new Map<ChunkKey | RootKey, Orphan[]>();
  space: Space | undefined;
  isRunning = false;
}

/** Others get their turn after so long. */
const sliceMs = 4;

export class ReturningRecords {
  readonly #options: ReturningRecordsOptions;
  readonly #returns = new Map<SpaceId, Return>();
  readonly #whenSettled: (() => void)[] = [];
  #hasEnded = false;
  #stopped = false;

  constructor(options: ReturningRecordsOptions) {
    this.#options = options;
  }

  add(tier: LogTier, batch: RecordBatch): void {
    const known = this.#of(batch.space);
    known.batches.push({ tier, batch });
    this.#run(known);
  }

  /** A guest described the space. */
  open(space: Space): void {
    if (this.#hasEnded && !this.#returns.has(space.id)) return;
    const known = this.#of(space.id);
    known.space ??= space;
    this.#run(known);
  }

  /** Some of the space's records have yet to come. */
  isReturning(space: Space): boolean {
    return this.#returns.has(space.id);
  }

  /** A chunk of the space was found ahead of its turn (asked-tiers.ts): records that wait for it follow. */
  placedAhead(space: Space, key: ChunkKey, chunk: ChunkId): void {
    const known = this.#returns.get(space.id);
    if (known === undefined) return;
    known.placed.set(key, chunk);
    for (const orphan of takeOrphans(known, key)) this.#placeWithOrphans(known, space, orphan);
  }

  /** No more batches come. */
  end(): void {
    this.#hasEnded = true;
    for (const known of this.#returns.values()) this.#run(known);
    this.#settle();
  }

  /** What has not been read is not any more. */
  stop(): void {
    this.#stopped = true;
    this.#settle();
  }

  /** Resolves when all batches have come and those of open spaces are in the index. */
  async settled(): Promise<void> {
    if (this.#isSettled()) return;
    await new Promise<void>((resolve) => this.#whenSettled.push(resolve));
  }

  #of(id: SpaceId): Return {
    let known = this.#returns.get(id);
    if (known === undefined) this.#returns.set(id, (known = new Return()));
    return known;
  }

  #isSettled(): boolean {
    if (this.#stopped) return true;
    return this.#hasEnded && [...this.#returns.values()].every(({ space }) => space === undefined);
  }

  #settle(): void {
    if (!this.#isSettled()) return;
    for (const resolve of this.#whenSettled.splice(0)) resolve();
  }

  #run(known: Return): void {
    const { space } = known;
    if (space === undefined || known.isRunning) return;
    known.isRunning = true;
    void this.#place(known, space).finally(() => {
      known.isRunning = false;
      if (known.batches.length > 0 && !this.#stopped) this.#run(known);
      else if (this.#hasEnded) this.#complete(known, space);
    });
  }

  async #place(known: Return, space: Space): Promise<void> {
    let sliceEnd = performance.now() + sliceMs;
    for (let arrival = known.batches.shift(); arrival !== undefined; arrival = known.batches.shift()) {
      const { tier, batch } = arrival;
      for await (const record of batch.records()) {
        if (this.#stopped) return;
        this.#placeWithOrphans(known, space, { tier, record });
        if (performance.now() < sliceEnd) continue;
        await new Promise((resolve) => setImmediate(resolve));
        sliceEnd = performance.now() + sliceMs;
      }
    }
  }

  /** All have come: who still waits for a parent waits in vain. */
  #complete(known: Return, space: Space): void {
    this.#returns.delete(space.id);
    if (!this.#stopped)
      for (const orphans of known.orphans.values()) for (const { tier, record } of orphans) tier.drop(record.id);
    this.#settle();
  }

  #placeWithOrphans(known: Return, space: Space, first: Orphan): void {
    const ready = [first];
    for (let next = ready.pop(); next !== undefined; next = ready.pop()) {
      const { tier, record } = next;
      const outcome = this.#placeOne(known, space, next);
      if (outcome === "waits") {
        const others = known.orphans.get(record.parent) ?? [];
        known.orphans.set(record.parent, others);
        others.push(next);
        continue;
      }
      if (outcome === "dropped") tier.drop(record.id);
      ready.push(...takeOrphans(known, record.key));
    }
  }

  #placeOne(known: Return, space: Space, { tier, record }: Orphan): "placed" | "dropped" | "waits" {
    const { store, counters } = this.#options;
    const { tokens, payloadBytes } = record;
    const fits = tokens.length > 0 && tokens.length <= space.shape.chunkTokens && hasRows(payloadBytes, space.shape);
    if (!fits || chunkKey(record.parent, tokens) !== record.key) {
      counters.corruptRecords += 1;
      return "dropped";
    }
    const index = this.#options.makeRoot(space, record.root);
    if (index === undefined) return "dropped";
    const parent = this.#parentOf(known, index, record);
    if (parent === "waits") return "waits";
    const chunk = parent === undefined ? undefined : index.tree.insert(parent, tokens);
    if (chunk === undefined) return "dropped";
    known.placed.set(record.key, chunk);
    return placeRecord(store, chunk, { tier, key: record.key, record }) === "placed" ? "placed" : "dropped";
  }

  /** The chunk that a record's chunk follows, or the top. @returns undefined when it follows from nothing */
  #parentOf(known: Return, index: RootIndex, record: StoredRecord): ChunkId | "waits" | undefined {
    const { firstToken, parent: key, root } = record;
    if (firstToken === 0) return key === root ? index.tree.top : undefined;
    const { chunks } = this.#options.store;
    const parent = known.placed.get(key as ChunkKey); // not the first: no root's
    // It may have gone since, and its row been given to another chunk; a key names the whole text before it.
    if (parent === undefined || !chunks.table.has(parent) || chunks.key(parent) !== key) return "waits";
    const { chunkTokens } = index.description;
    const follows = chunks.tokenCount(parent) === chunkTokens && chunks.firstToken(parent) + chunkTokens === firstToken;
    return follows && chunks.rootOf(parent) === index ? parent : undefined;
  }
}

/** The records that wait for a chunk, which is there now. */
function takeOrphans(known: Return, key: ChunkKey): readonly Orphan[] {
  const orphans = known.orphans.get(key) ?? [];
  known.orphans.delete(key);
  return orphans;
}
