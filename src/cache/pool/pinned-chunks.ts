/**
 * Chunks that somebody asked to keep in the pool until a deadline, for a session that will come back: a tool that runs, a
 * user who types.
 *
 * They may take a quarter of the pool together, so that pins cannot lock it; what is asked for beyond that is refused, and a
 * chunk that grows beyond it, by a snapshot, is pinned no more. A pin ends at its deadline by itself, at the latest when room is next needed, and does not survive the cache's process.
 */
import type { ChunkId } from "../index/chunk-id.ts";

/** The longest a pin may last: a client that is gone must not hold memory for a day. */
export const longestPinSeconds = 3600;
/** Part of the pool that pins may take. */
const pinnedShare = 1 / 4;

/** What is needed of the chunk store. */
export interface Pinning {
  /** Of the pool, now. */
  readonly capacityBytes: () => number;
  readonly hold: (chunk: ChunkId) => void;
  readonly letGo: (chunk: ChunkId) => void;
  readonly bytesInPool: (chunk: ChunkId) => number;
}

export class PinnedChunks {
  readonly #store: Pinning;
  /** Until when, and how much each takes. */
  readonly #pins = new Map<ChunkId, { until: number; bytes: number }>();
  #bytes = 0;
  #earliest = Infinity;

  constructor(store: Pinning) {
    this.#store = store;
  }

  /** Bytes of slots that pins hold. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Keeps a chunk that is in the pool until then, or for as long as an earlier pin says. */
  pin(chunk: ChunkId, until: number): "pinned" | "full" {
    const known = this.#pins.get(chunk);
    if (known !== undefined) {
      known.until = Math.max(known.until, until);
      return "pinned";
    }
    const bytes = this.#store.bytesInPool(chunk);
    if (this.#bytes + bytes > this.#roomBytes) return "full";
    this.#pins.set(chunk, { until, bytes });
    this.#bytes += bytes;
    this.#earliest = Math.min(this.#earliest, until);
    this.#store.hold(chunk);
    return "pinned";
  }

  /** The chunk has a slot more in the pool, or one less. */
  changed(chunk: ChunkId): void {
    const known = this.#pins.get(chunk);
    if (known === undefined) return;
    const more = this.#store.bytesInPool(chunk) - known.bytes;
    this.#bytes += more;
    known.bytes += more;
    if (more > 0 && this.#bytes > this.#roomBytes) this.unpin(chunk);
  }

  /** Ends a pin before its deadline. Without effect when there is none. */
  unpin(chunk: ChunkId): void {
    const known = this.#pins.get(chunk);
    if (known === undefined) return;
    this.#pins.delete(chunk);
    this.#bytes -= known.bytes;
    this.#store.letGo(chunk);
  }

  /** Ends the pins whose deadline has passed. */
  expire(now: number): void {
    if (now < this.#earliest) return;
    this.#earliest = Infinity;
    for (const [chunk, { until }] of this.#pins) {
      if (until <= now) this.unpin(chunk);
      else this.#earliest = Math.min(this.#earliest, until);
    }
  }

  get #roomBytes(): number {
    return this.#store.capacityBytes() * pinnedShare;
  }
}
