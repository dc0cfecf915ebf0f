/**
 * What a session stores: slots for the parts of a text that nobody has, and what follows when they are written or given up.
 *
 *     reserve ──► slot, lease ──commit──► its length is known ──all rows of the chunk──► visible, written behind
 *                      └──────abandon──► the slot is free, and of rows those that other ranks have written too
 */
import type { KeyedRoot } from "../../identity/keys.ts";
import { groupsOf } from "../../identity/space.ts";
import type { Tokens } from "../../identity/tokens.ts";
import type { LeaseId, Reservation, ReservedPart, SessionOptions, WrittenPart } from "../../session.ts";
import type { ChunkId } from "../index/chunk-id.ts";
import { flag } from "../index/chunk-table.ts";
import { chunksOf } from "../index/radix.ts";
import type { Space } from "../index/spaces.ts";
import type { GroupBytes, HolderId, Lease } from "../pool/leases.ts";
import type { SessionContext } from "./session-context.ts";

export class Saving {
  readonly #context: SessionContext;
  readonly #space: Space;
  readonly #holder: HolderId;
  readonly #slotBytes: readonly number[];
  /** This rank's first part. */
  readonly #firstPart: number;
  /** Groups of rows, and of snapshots. */
  readonly #rows: readonly number[];
  readonly #snapshots: readonly number[];

  constructor(context: SessionContext, space: Space, { slotBytes, rank }: SessionOptions, holder: HolderId) {
    this.#context = context;
    this.#space = space;
    this.#holder = holder;
    this.#slotBytes = slotBytes;
    const kinds = groupsOf(space.description);
    const groups = kinds.map((_, group) => group);
    this.#firstPart = rank * kinds.length;
    this.#rows = groups.filter((group) => kinds[group] === "rows");
    this.#snapshots = groups.filter((group) => kinds[group] === "snapshot");
  }

  reserve(root: KeyedRoot, tokens: Tokens): Reservation {
    const { spaces, store, limits, loadOrCompute } = this.#context;
    const index = spaces.rootToFill(this.#space, root);
    if (index === undefined) return { parts: [], full: true };
    const { chunkTokens, hasSnapshots } = this.#space.shape;
    const parts: ReservedPart[] = [];
    const path: ChunkId[] = [];
    let full = tokens.length > limits.tokensPerRequest;
    let isWhole = !full;
    let reservedChunks = 0;
    let firstBelow: ChunkId | undefined;
    let parent = index.tree.top;
    for (const slice of chunksOf(tokens.subarray(0, limits.tokensPerRequest), chunkTokens)) {
      // What begins with this tail is there; but the snapshot at its end may not be.
      const isTail = slice.length < chunkTokens && !hasSnapshots;
      if (isTail && index.tree.visibleExtension(parent, slice) !== undefined) break;
      const chunk = index.tree.insert(parent, slice);
      if (chunk === undefined) {
        full = true;
        isWhole = false;
        break;
      }
      store.fill(chunk);
      // The path stays while room is made for what follows it.
      store.hold(chunk);
      path.push(chunk);
      const missing = this.#missingRows(chunk);
      if (missing.length > 0) {
        const hasRoom = reservedChunks < limits.chunksPerReservation;
        const reserved = hasRoom ? this.#reserveAll(chunk, missing) : undefined;
        if (reserved === undefined) {
          full = true;
          isWhole = false;
          this.#context.counters.rejectedChunks += 1;
          break;
        }
        parts.push(...reserved);
        reservedChunks += 1;
      } else if (firstBelow === undefined && this.#isBelow(chunk, path.length * chunkTokens >= tokens.length))
        firstBelow = chunk;
      parent = chunk;
    }
    if (hasSnapshots && isWhole && path.length > 0) {
      const end = path.at(-1)!; // it is not empty
      const reserved = this.#reserveAll(end, this.#missingSnapshots(end));
      if (reserved === undefined) full = true;
      else parts.push(...reserved);
    }
    if (firstBelow !== undefined) loadOrCompute.noteRecomputed(firstBelow);
    if (path.length > 0) store.touch(path.at(-1)!, "refreshed");
    for (const chunk of path.toReversed()) {
      store.letGo(chunk);
      store.removeIfEmpty(chunk);
    }
    return { parts, full };
  }

  commit(written: readonly WrittenPart[]): void {
    const { leases, store } = this.#context;
    const { chunks } = store;
    const byChunk = new Map<ChunkId, WrittenPart[]>();
    for (const part of written) {
      const lease = leases.get(this.#holder, part.lease);
      if (lease?.kind !== "writing") continue;
      const ofChunk = byChunk.get(lease.chunk);
      if (ofChunk === undefined) byChunk.set(lease.chunk, [part]);
      else ofChunk.push(part);
    }
    let last: ChunkId | undefined;
    for (const [chunk, ofChunk] of byChunk) {
      const parts = this.#written(chunk, ofChunk);
      if (parts.length === 0) continue; // the chunk may be gone
      if (chunks.isWritten(chunk)) {
        // Once for each text: a touch goes all the way up.
        if (last !== undefined && chunks.parentOf(chunk) !== last) store.touch(last, "refreshed");
        last = chunk;
        this.#stored(chunk, parts);
      }
      store.reconcile(chunk);
    }
    if (last !== undefined) store.touch(last, "refreshed");
  }

  abandon(leases: readonly LeaseId[]): void {
    for (const id of leases) {
      if (this.#context.leases.get(this.#holder, id)?.kind !== "writing") continue;
      this.fell(this.#context.leases.release(this.#holder, id)!); // held: asked above
    }
  }

  /** What follows the end of a lease, except by commit. */
  fell(lease: Lease<ChunkId>): void {
    const { store, counters } = this.#context;
    const { chunk } = lease;
    if (lease.kind === "writing") {
      counters.abandonedChunks += 1;
      store.reserved(chunk, -1);
      if (store.chunks.isSnapshot(chunk, lease.part)) this.#giveUpSnapshot(chunk, lease.part);
      else this.#breakUp(chunk, lease.part);
    }
    store.reconcile(chunk);
    store.removeIfEmpty(chunk);
  }

  /** Ends the leases of a chunk's parts, whose lengths are known now. @returns the parts that count as written */
  #written(chunk: ChunkId, ofChunk: readonly WrittenPart[]): number[] {
    const { leases, store, counters } = this.#context;
    const { table } = store.chunks;
    const partOf = (id: LeaseId) => {
      const lease = leases.get(this.#holder, id); // none when it was named twice
      return lease?.kind === "writing" ? lease.part : undefined;
    };
    // What is no payload goes first, while the other leases keep the chunk: it may take what they have written along.
    for (const { lease, bytes } of ofChunk) {
      const part = partOf(lease);
      const isPayload = (roomBytes: number) => Number.isSafeInteger(bytes) && bytes > 0 && bytes <= roomBytes;
      if (part !== undefined && !isPayload(table.slotBytes(chunk, part))) this.abandon([lease]);
    }
    const parts: number[] = [];
    for (const { lease, bytes } of ofChunk) {
      const part = partOf(lease);
      if (part === undefined) continue;
      if (table.is(chunk, flag.broken)) {
        this.abandon([lease]);
        continue;
      }
      leases.release(this.#holder, lease);
      store.reserved(chunk, -1);
      store.chunks.setBytes(chunk, part, bytes);
      counters.savedBytes += bytes;
      parts.push(part);
    }
    return parts;
  }

  /** All rows of the chunk are there, and `written` is new: some of them, or snapshots beside rows that were there before. */
  #stored(chunk: ChunkId, written: readonly number[]): void {
    const { store, writeBehind } = this.#context;
    const { chunks } = store;
    if (chunks.isVisible(chunk)) {
      store.keep(chunk, written);
      chunks.lackSnapshot(chunk);
    } else {
      store.keep(chunk, chunks.writtenParts(chunk));
      store.stored(chunk, "saved");
      store.supersede(chunk);
    }
    writeBehind.saved(chunk);
  }

  /** What a load of the text would want of the chunk is stored, and not in memory. */
  #isBelow(chunk: ChunkId, isEnd: boolean): boolean {
    const { chunks } = this.#context.store;
    if (!isEnd) return chunks.isBelowMemory(chunk);
    return chunks.isVisible(chunk) && chunks.snapshotTierOf(chunk) !== undefined && !chunks.isReady(chunk, "all");
  }

  /** Groups whose rows nobody has stored or is writing. None while others have yet to end what a rank gave up. */
  #missingRows(chunk: ChunkId): readonly number[] {
    const { chunks } = this.#context.store;
    if (chunks.isVisible(chunk) || chunks.table.is(chunk, flag.broken)) return [];
    return this.#rows.filter((group) => this.#isFree(chunk, group));
  }

  /** The same of snapshots. Where the rows lie below, or have just been lost there, none: chunk and snapshot are stored together. */
  #missingSnapshots(chunk: ChunkId): readonly number[] {
    const { chunks } = this.#context.store;
    const isElsewhere = chunks.isWritten(chunk) && !chunks.isInMemory(chunk);
    if (isElsewhere || chunks.table.is(chunk, flag.broken)) return [];
    return this.#snapshots.filter((group) => this.#isFree(chunk, group));
  }

  #isFree(chunk: ChunkId, group: number): boolean {
    const { chunks } = this.#context.store;
    const part = this.#firstPart + group;
    return chunks.bytes(chunk, part) === 0 && chunks.slot(chunk, part) === undefined;
  }

  /** A slot for each of these groups, or none. */
  #reserveAll(chunk: ChunkId, groups: readonly number[]): ReservedPart[] | undefined {
    const { leases, store, limits } = this.#context;
    if (leases.heldBy(this.#holder) + groups.length > limits.openLeases) return undefined;
    const wanted = groups.map((group) => this.#groupBytes(group));
    if (!leases.mayWrite(this.#holder, chunk, wanted, store.pool.stats().capacityBytes)) return undefined;
    const reserved: ReservedPart[] = [];
    for (const group of groups) {
      const part = this.#reserveOne(chunk, group);
      if (part === undefined) {
        this.#takeBack(chunk, reserved);
        return undefined;
      }
      reserved.push(part);
    }
    return reserved;
  }

  #reserveOne(chunk: ChunkId, group: number): ReservedPart | undefined {
    const { leases, store, now } = this.#context;
    const { chunks } = store;
    const part = this.#firstPart + group;
    const slotBytes = this.#slotBytes[group]!; // one per group
    if (store.giveSlot(chunk, part, slotBytes) === "full") return undefined;
    const hold = { chunk, since: now(), ...this.#groupBytes(group) };
    const lease = leases.acquire(this.#holder, { kind: "writing", part, ...hold });
    store.reserved(chunk, 1);
    store.reconcile(chunk);
    const slot = { offset: chunks.slot(chunk, part)!, bytes: slotBytes }; // just given
    return { lease, group, firstToken: chunks.firstToken(chunk), tokenCount: chunks.tokenCount(chunk), slot };
  }

  /** Ends reservations that nobody has heard of yet: what other ranks have written of the chunk stays. */
  #takeBack(chunk: ChunkId, reserved: readonly ReservedPart[]): void {
    const { leases, store } = this.#context;
    for (const { lease, group } of reserved) {
      leases.release(this.#holder, lease);
      store.reserved(chunk, -1);
      store.takeSlot(chunk, this.#firstPart + group);
    }
  }

  #groupBytes(group: number): GroupBytes {
    return { group, bytes: this.#space.description.tensorParallel * this.#slotBytes[group]! }; // one per group
  }

  #giveUpSnapshot(chunk: ChunkId, part: number): void {
    const { store } = this.#context;
    store.takeSlot(chunk, part);
    if (!store.chunks.table.has(chunk)) return;
    if (!store.chunks.hasSlots(chunk)) store.chunks.table.mark(chunk, flag.broken, false);
  }

  /** Rows are saved by all ranks or by none: where one gives up, the slots that the others have written go back too. */
  #breakUp(chunk: ChunkId, gaveUp: number): void {
    const { store } = this.#context;
    const { chunks } = store;
    store.hold(chunk); // it may be of no more use between two of its slots
    for (let part = 0; part < chunks.partsOf(chunk); part += 1) {
      if (part !== gaveUp && chunks.bytes(chunk, part) === 0) continue;
      chunks.setBytes(chunk, part, 0);
      store.takeSlot(chunk, part);
    }
    chunks.table.mark(chunk, flag.broken, chunks.hasSlots(chunk));
    store.letGo(chunk);
  }
}
