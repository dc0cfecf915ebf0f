/**
 * Takes over what a killed process left in the pool: puts its chunks back into the index, so that the memory tier outlives
 * a crash.
 *
 *     kept slots ──all ranks there, checksum right where one is known, parent found──► in the index, pinned ──grace──► as any
 *     half-written, damaged, orphaned slots ───────────────────────────────────────────────────────────────grace──► free
 *
 * Guests of the dead process may be copying for a moment longer, so until the grace is over no slot that was in use at the
 * crash is evicted or given to anybody. It works in the background and lets other work in between; a chunk that was
 * written anew meanwhile is not adopted.
 */
import { describe } from "../errors.ts";
import type { Log } from "../log.ts";
import { chunkKey, type ChunkKey } from "./chunk.ts";
import type { ChunkId } from "./chunk-id.ts";
import type { ChunkStore } from "./chunk-store.ts";
import { field } from "./chunk-table.ts";
import type { Counters } from "./counters.ts";
import type { Placement } from "./placement.ts";
import type { KeptSlot, SlotNote } from "./slot-pool.ts";
import type { Spaces } from "./spaces.ts";
import type { RootIndex } from "./stored-chunk.ts";

export interface AdoptionParts {
  readonly store: ChunkStore;
  readonly spaces: Spaces;
  readonly placement: Placement;
  readonly counters: Counters;
  readonly log: Log;
  readonly graceMs: number;
  /** Resolves when what the tiers below kept is in the index. */
  readonly recovered: () => Promise<void>;
}

/** Chunks and payload bytes looked at before other work is let in: about half a millisecond. */
const chunksPerTurn = 64;
const bytesPerTurn = 4 * 1024 * 1024;

export class Adoption {
  readonly #parts: AdoptionParts;
  readonly #adopted: ChunkId[] = [];
  /** The chunks seen, for those after them; some may be gone since. */
  readonly #byKey = new Map<ChunkKey, ChunkId>();
  #done: Promise<void> = Promise.resolve();
  #handedOver: Promise<void> = Promise.resolve();
  #grace: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(parts: AdoptionParts) {
    this.#parts = parts;
  }

  /** Resolves when every slot left behind has been looked at; the grace may go on. */
  get done(): Promise<void> {
    return this.#done;
  }

  /** Resolves when those chunks that no tier below has are on their way there. */
  get handedOver(): Promise<void> {
    return this.#handedOver;
  }

  start(): void {
    const { store, graceMs, log } = this.#parts;
    if (store.pool.stats().unclaimedSlots === 0) return;
    const began = performance.now();
    this.#done = this.#adoptAll()
      .catch((error: unknown) => log.warn(`what was left in memory cannot be used: ${describe(error)}`))
      .then(() => {
        if (this.#closed) return;
        log.info(`${this.#adopted.length} chunks were found in the memory that the process before this one left`);
        this.#grace = setTimeout(() => this.#endGrace(), Math.max(0, graceMs - (performance.now() - began)));
        this.#grace.unref();
      });
    this.#handedOver = this.#handOver();
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#grace);
    await this.#done;
  }

  async #adoptAll(): Promise<void> {
    const chunks = await this.#chunks();
    let looked = 0;
    for (const slots of chunks) {
      const bytes = slots.reduce((sum, { note }) => sum + note.payloadBytes, 0);
      looked += Math.max(bytes, bytesPerTurn / chunksPerTurn);
      if (looked >= bytesPerTurn) {
        await otherWork();
        looked = 0;
      }
      const intact = await this.#areIntact(slots);
      if (this.#closed) return;
      if (intact) this.#adopt(slots);
    }
  }

  /** Not before the tiers below have said what they know: what they have would be written twice. */
  async #handOver(): Promise<void> {
    await this.#done;
    const adopted = [...this.#adopted];
    await this.#parts.recovered();
    if (this.#closed) return;
    const { store, placement } = this.#parts;
    for (const chunk of adopted)
      if (store.chunks.table.has(chunk) && store.chunks.isInMemory(chunk) && !store.chunks.hasRecords(chunk))
        placement.saved(chunk);
  }

  /** The slots left behind by chunk, those of all ranks together, parents before their children. */
  async #chunks(): Promise<KeptSlot[][]> {
    const byKey = new Map<ChunkKey, KeptSlot[]>();
    let seen = 0;
    for (const slot of this.#parts.store.pool.leftBehind()) {
      const slots = byKey.get(slot.note.key);
      if (slots === undefined) byKey.set(slot.note.key, [slot]);
      else slots.push(slot);
      seen += 1;
      if (seen % chunksPerTurn === 0) await otherWork();
      if (this.#closed) return [];
    }
    const whole = [...byKey.values()].filter((slots) => isWhole(slots));
    return whole.sort(([a], [b]) => a!.note.firstToken - b!.note.firstToken); // none is empty
  }

  async #areIntact(slots: readonly KeptSlot[]): Promise<boolean> {
    const { store, counters } = this.#parts;
    for (const { offset, note } of slots) {
      if (await store.pool.isIntact(offset, note.payloadBytes)) continue;
      counters.corruptRecords += 1;
      return false;
    }
    return true;
  }

  #adopt(slots: readonly KeptSlot[]): void {
    const { store, spaces } = this.#parts;
    const { note, description } = slots[0]!; // whole
    const space = spaces.open(description);
    const { chunkTokens, tensorParallel } = description;
    if (note.tokens.length > chunkTokens || note.ranks !== tensorParallel) return;
    if (chunkKey(note.parent, note.tokens) !== note.key) return;
    const index = spaces.makeRoot(space, note.root);
    const parent = index === undefined ? undefined : this.#parentIn(index, note);
    const chunk = parent === undefined ? undefined : index?.tree.insert(parent, note.tokens);
    if (chunk === undefined) return;
    this.#byKey.set(note.key, chunk);
    const { chunks } = store;
    const isOther = slots.some(({ note: { rank, payloadBytes } }) => chunks.bytes(chunk, rank) !== payloadBytes);
    // Written anew, on its way up from below, or something else was stored there under the same key.
    const isOwn = chunks.hasSlots(chunk) || chunks.table.get(chunk, field.pins) > 0;
    if (isOwn || (chunks.hasRecords(chunk) && isOther)) return;
    store.fill(chunk);
    store.pin(chunk);
    chunks.setKey(chunk, note.key);
    store.adopt(chunk, slots);
    if (!chunks.isVisible(chunk)) store.stored(chunk);
    store.supersede(chunk);
    this.#adopted.push(chunk);
  }

  /** The chunk that a note's chunk follows: one that is full, or the top. */
  #parentIn(index: RootIndex, { parent: key, root, firstToken }: SlotNote): ChunkId | undefined {
    if (firstToken === 0) return key === root ? index.tree.top : undefined;
    const { chunks } = this.#parts.store;
    const parent = this.#byKey.get(key as ChunkKey); // not the first: no root's
    // A row may have been given to another chunk since; a key names the whole text before it.
    if (parent === undefined || !chunks.table.has(parent) || chunks.key(parent) !== key) return undefined;
    const { chunkTokens } = index.description;
    const follows = chunks.tokenCount(parent) === chunkTokens && chunks.firstToken(parent) + chunkTokens === firstToken;
    return follows && chunks.rootOf(parent) === index ? parent : undefined;
  }

  /** From now on these chunks are as all others, and what was not adopted is free. */
  #endGrace(): void {
    const { store } = this.#parts;
    this.#byKey.clear();
    for (const chunk of this.#adopted.splice(0)) {
      store.unpin(chunk);
      store.removeIfEmpty(chunk);
    }
    store.pool.freeUnclaimed();
  }
}

/** One slot for each rank. */
function isWhole(slots: readonly KeptSlot[]): boolean {
  const ranks = new Set(slots.map(({ note }) => note.rank));
  return (
    slots.every(({ note }) => note.ranks === slots.length && note.rank < note.ranks) && ranks.size === slots.length
  );
}

function otherWork(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
