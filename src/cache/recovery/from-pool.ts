/**
 * Takes over what a killed process left in the pool: puts its chunks back into the index, so that the memory tier outlives
 * a crash.
 *
 *     kept slots ──all rows there, checksum right where one is known, parent found──► in the index, held ──grace──► as any
 *     half-written, damaged, orphaned slots ───────────────────────────────────────────────────────────────grace──► free
 *
 * Guests of the dead process may be copying for a moment longer, so until the grace is over no slot that was in use at the
 * crash is evicted or given to anybody. It works in the background and lets other work in between; a chunk that was
 * written anew meanwhile is not adopted.
 */
import { describe } from "../../errors.ts";
import type { Log } from "../../log.ts";
import { chunkKey, type ChunkKey } from "../../identity/keys.ts";
import type { ChunkId } from "../index/chunk-id.ts";
import type { ChunkStore } from "../pool/chunk-store.ts";
import { field, type RowShape } from "../index/chunk-table.ts";
import type { Counters } from "../counters.ts";
import type { WriteBehind } from "../tiering/write-behind.ts";
import type { KeptSlot, SlotNote } from "../pool/slot-pool.ts";
import type { Recovery } from "./recovery.ts";
import type { Spaces } from "../index/spaces.ts";
import type { RootIndex } from "../index/stored-chunk.ts";

export interface AdoptionParts {
  readonly store: ChunkStore;
  readonly spaces: Spaces;
  readonly recovery: Recovery;
  readonly writeBehind: WriteBehind;
  readonly counters: Counters;
  readonly log: Log;
  readonly graceMs: number;
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
    await this.#parts.recovery.settled();
    if (this.#closed) return;
    const { store, writeBehind } = this.#parts;
    for (const chunk of adopted) if (store.chunks.table.has(chunk)) writeBehind.saved(chunk); // those that a tier has are not written to it again
  }

  /** The slots left behind by chunk, those of all parts together, parents before their children. */
  async #chunks(): Promise<KeptSlot[][]> {
    const byKey = new Map<ChunkKey, KeptSlot[]>();
    let seen = 0;
    for (const slot of this.#parts.store.pool.surviving()) {
      const slots = byKey.get(slot.note.key);
      if (slots === undefined) byKey.set(slot.note.key, [slot]);
      else slots.push(slot);
      seen += 1;
      if (seen % chunksPerTurn === 0) await otherWork();
      if (this.#closed) return [];
    }
    return [...byKey.values()].sort(([a], [b]) => a!.note.firstToken - b!.note.firstToken); // none is empty
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
    const { store, spaces, recovery } = this.#parts;
    const { note, description } = slots[0]!; // whole
    const space = spaces.open(description);
    recovery.open(space);
    if (note.tokens.length > description.chunkTokens || !isWhole(slots, space.shape)) return;
    if (chunkKey(note.parent, note.tokens) !== note.key) return;
    const index = spaces.makeRoot(space, note.root);
    const parent = index === undefined ? undefined : this.#parentIn(index, note);
    const chunk = parent === undefined ? undefined : index?.tree.insert(parent, note.tokens);
    if (chunk === undefined) return;
    this.#byKey.set(note.key, chunk);
    const { chunks } = store;
    // Written anew, or on its way up from below.
    if (chunks.hasSlots(chunk) || chunks.table.get(chunk, field.holds) > 0) return;
    const differing = slots.filter(({ note: { part, payloadBytes } }) => chunks.bytes(chunk, part) !== payloadBytes);
    if (chunks.hasRecords(chunk) && differing.length > 0) {
      const isMissing = (part: number) => chunks.isSnapshot(chunk, part) && chunks.bytes(chunk, part) === 0;
      if (!differing.every(({ note }) => isMissing(note.part))) return; // something else was stored there under the same key
      chunks.lackSnapshot(chunk); // from before it had its snapshot
    }
    store.fill(chunk);
    store.hold(chunk);
    chunks.setKey(chunk, note.key);
    store.adopt(chunk, slots);
    if (!chunks.isVisible(chunk)) store.stored(chunk, "recovered");
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
      store.letGo(chunk);
      store.removeIfEmpty(chunk);
    }
    store.pool.freeUnclaimed();
  }
}

/** One slot at most for each part that the space has, and one for each part that is rows. */
function isWhole(slots: readonly KeptSlot[], { parts }: RowShape): boolean {
  const kept = new Set(slots.map(({ note }) => note.part));
  return (
    kept.size === slots.length &&
    slots.every(({ note }) => note.parts === parts.length && note.part < parts.length) &&
    parts.every((kind, part) => kind === "snapshot" || kept.has(part))
  );
}

function otherWork(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
