/**
 * What another host reads of this cache: chunks by their keys, from memory and from this host's own logs. Never from a shared
 * tier: a question ends where it was asked, so that hosts may name each other in circles.
 *
 *     find    the leading chunks that are here, and how long their parts are: nothing moves
 *     read    a lease, then part by part: its slot where it has one, else the log's record in memory of the reader's
 *
 * Whoever asks has the key of the text, and a key cannot be guessed. Reads change nothing: no chunk is brought into the pool for
 * them, and none counts as used. It is in the other host's memory now.
 */
import { codeOf } from "../../errors.ts";
import type { ChunkKey, RootKey } from "../../identity/keys.ts";
import type { SpaceId } from "../../identity/space.ts";
import { ownedLog, type LogTier, type RecordId } from "../../tier.ts";
import type { ChunkId } from "../index/chunk-id.ts";
import type { HolderId, LeaseTable } from "../pool/leases.ts";
import type { ChunkStore } from "../pool/chunk-store.ts";
import { padded } from "../../pages.ts";

export interface ReadsByKeyOptions {
  readonly store: ChunkStore;
  readonly leases: LeaseTable<ChunkId>;
  readonly holder: HolderId;
  readonly now: () => number;
}

/** A chunk that is kept in its place until it is released. */
export interface ChunkInReading {
  /** Payload lengths by part; 0: the chunk has none of it here. */
  readonly payloadBytes: readonly number[];
  /** The part needs no memory of the reader's. */
  isInPool(part: number): boolean;
  /**
   * The payload of a part that has one. It is valid until the next is asked for, or the chunk is released.
   *
   * @param room memory for so many bytes, whole pages, when they have to come from a log
   * @returns undefined when it is gone
   * @throws RepriseError TIER_UNAVAILABLE
   */
  payload(part: number, room: (bytes: number) => Uint8Array, signal: AbortSignal): Promise<Uint8Array | undefined>;
  /** The checksum of a part in the pool, where a tier has computed it or {@link noteChecksum} has told it. */
  checksum(part: number): bigint | undefined;
  /** The reader has computed it: it is known from now on. */
  noteChecksum(part: number, checksum: bigint): void;
  release(): void;
}

export class ReadsByKey {
  readonly #options: ReadsByKeyOptions;

  constructor(options: ReadsByKeyOptions) {
    this.#options = options;
  }

  /** Payload lengths of consecutive chunks of a text: the leading ones of `keys`, up to the first that is not here. */
  find(space: SpaceId, root: RootKey, keys: Iterable<ChunkKey>): (readonly number[])[] {
    const { chunks } = this.#options.store;
    const found: (readonly number[])[] = [];
    for (const key of keys) {
      const chunk = this.#chunkOf(key);
      if (chunk === undefined) break;
      const index = chunks.rootOf(chunk);
      const payloadBytes = index.space === space && index.key === root ? this.#readable(chunk) : undefined;
      if (payloadBytes === undefined) break;
      found.push(payloadBytes);
    }
    return found;
  }

  /** @returns undefined when it is not here, or the reader holds as much of the pool as it may */
  read(key: ChunkKey): ChunkInReading | undefined {
    const { store, leases, holder, now } = this.#options;
    const { chunks } = store;
    const chunk = this.#chunkOf(key);
    const payloadBytes = chunk === undefined ? undefined : this.#readable(chunk);
    if (chunk === undefined || payloadBytes === undefined) return undefined;
    const group = { group: 0, bytes: chunks.bytesInPool(chunk) };
    if (!leases.mayRead(holder, chunk, [group], store.pool.stats().capacityBytes)) return undefined;
    const lease = leases.acquire(holder, { kind: "reading", chunk, since: now(), ...group });
    store.reconcile(chunk);
    return {
      payloadBytes,
      isInPool: (part) => this.#isInPool(chunk, part),
      payload: (part, room, signal) => this.#payload(chunk, { part, bytes: payloadBytes[part]! }, room, signal), // one of its parts
      checksum: (part) => (this.#isInPool(chunk, part) ? store.pool.sealOf(chunks.slot(chunk, part)!) : undefined), // it has one
      noteChecksum: (part, checksum) => {
        if (this.#isInPool(chunk, part)) store.pool.seal(chunks.slot(chunk, part)!, checksum); // likewise
      },
      release: () => {
        if (leases.release(holder, lease) !== undefined) this.#letGo(chunk);
      },
    };
  }

  /** Every lease falls. */
  close(): void {
    const { leases, holder } = this.#options;
    for (const id of leases.idsOf(holder)) this.#letGo(leases.release(holder, id)!.chunk); // held: just asked
  }

  #letGo(chunk: ChunkId): void {
    const { store } = this.#options;
    store.reconcile(chunk);
    store.removeIfEmpty(chunk); // its record may have gone meanwhile
  }

  #chunkOf(key: ChunkKey): ChunkId | undefined {
    const { chunks } = this.#options.store;
    const chunk = chunks.withKey(key);
    return chunk !== undefined && chunks.isVisible(chunk) ? chunk : undefined;
  }

  /** Payload lengths of what is here; undefined: not all rows are. */
  #readable(chunk: ChunkId): number[] | undefined {
    const { chunks } = this.#options.store;
    const payloadBytes = chunks
      .payloadBytes(chunk)
      .map((bytes, part) => (this.#isInPool(chunk, part) || this.#recordOf(chunk, part) !== undefined ? bytes : 0));
    return payloadBytes.every((bytes, part) => bytes > 0 || chunks.isSnapshot(chunk, part)) ? payloadBytes : undefined;
  }

  async #payload(
    chunk: ChunkId,
    { part, bytes }: { part: number; bytes: number },
    room: (bytes: number) => Uint8Array,
    signal: AbortSignal,
  ): Promise<Uint8Array | undefined> {
    const { store } = this.#options;
    const { chunks, pool } = store;
    if (this.#isInPool(chunk, part)) return pool.view(chunks.slot(chunk, part)!, bytes); // it has one
    const record = this.#recordOf(chunk, part);
    if (record === undefined) return undefined;
    const memory = room(padded(bytes));
    const into = Array.from({ length: chunks.partsOf(chunk) }, (_, each) => (each === part ? memory : undefined));
    try {
      if ((await record.log.read(record.id, chunks.key(chunk), into, signal)) === "gone") return undefined;
    } catch (error) {
      if (codeOf(error) === "RECORD_CORRUPT") return undefined; // this host finds that out when it reads it itself
      throw error;
    }
    return memory.subarray(0, bytes);
  }

  #isInPool(chunk: ChunkId, part: number): boolean {
    const { chunks } = this.#options.store;
    if (chunks.slot(chunk, part) === undefined || chunks.bytes(chunk, part) === 0) return false;
    return chunks.isSnapshot(chunk, part) ? !chunks.isReadingSnapshots(chunk) : chunks.isInMemory(chunk);
  }

  /** This host's own, that has the part. */
  #recordOf(chunk: ChunkId, part: number): { readonly log: LogTier; readonly id: RecordId } | undefined {
    const { chunks, records } = this.#options.store;
    for (const tier of chunks.tiers) {
      const log = ownedLog(tier);
      const id = log === undefined ? undefined : records.of(chunk, tier);
      if (log === undefined || id === undefined) continue;
      if (!chunks.isSnapshot(chunk, part) || !records.isLacking(chunk, tier)) return { log, id };
    }
    return undefined;
  }
}
