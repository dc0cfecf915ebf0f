/**
 * Chunks that somebody asked to keep in the pool until a deadline, for a session that will come back: a tool that runs, a
 * user who types.
 *
 * They may take a quarter of the pool together, so that pins cannot lock it; what is asked for beyond that is refused, and a
 * chunk that grows beyond it, by a snapshot, is pinned no more. Where all of it is taken, the tenant that has most gives way to one that would
 * still have less: its latest pins go, a text's end before its beginning. A pin ends at its deadline by itself, at the latest when room is next needed, and does not survive the cache's process.
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
  readonly tenantOf: (chunk: ChunkId) => number;
}

interface Pin {
  until: number;
  bytes: number;
  /** Whose it was when it began. */
  readonly tenant: number;
}

/** What a tenant has pinned. */
interface Account {
  bytes: number;
  /** Those of its pins that give way next, the last one first; empty: not made yet. Some may have ended since. */
  giving: ChunkId[];
}

export class PinnedChunks {
  readonly #store: Pinning;
  readonly #pins = new Map<ChunkId, Pin>();
  readonly #accounts = new Map<number, Account>();
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
    const tenant = this.#store.tenantOf(chunk);
    while (this.#bytes + bytes > this.#roomBytes) {
      const giving = this.#pinToEnd((this.#accounts.get(tenant)?.bytes ?? 0) + bytes);
      if (giving === undefined) return "full";
      this.unpin(giving);
    }
    this.#pins.set(chunk, { until, bytes, tenant });
    this.#count(tenant, bytes);
    this.#earliest = Math.min(this.#earliest, until);
    this.#store.hold(chunk);
    return "pinned";
  }

  /** The chunk has a slot more in the pool, or one less. */
  changed(chunk: ChunkId): void {
    const known = this.#pins.get(chunk);
    if (known === undefined) return;
    const more = this.#store.bytesInPool(chunk) - known.bytes;
    this.#count(known.tenant, more);
    known.bytes += more;
    if (more > 0 && this.#bytes > this.#roomBytes) this.unpin(chunk);
  }

  /** Ends a pin before its deadline. Without effect when there is none. */
  unpin(chunk: ChunkId): void {
    const known = this.#pins.get(chunk);
    if (known === undefined) return;
    this.#pins.delete(chunk);
    this.#count(known.tenant, -known.bytes);
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

  #count(tenant: number, bytes: number): void {
    this.#bytes += bytes;
    const account = this.#accounts.get(tenant) ?? { bytes: 0, giving: [] };
    account.bytes += bytes;
    if (account.bytes === 0) this.#accounts.delete(tenant);
    else this.#accounts.set(tenant, account);
  }

  /** The latest of the tenant that has most, where that is more than another would have. */
  #pinToEnd(wantedBytes: number): ChunkId | undefined {
    let [most, largest]: [number, Account] = [0, { bytes: 0, giving: [] }];
    for (const [tenant, account] of this.#accounts)
      if (account.bytes > largest.bytes) [most, largest] = [tenant, account];
    if (largest.bytes <= wantedBytes) return undefined;
    for (;;) {
      const next = largest.giving.pop();
      if (next !== undefined && this.#pins.get(next)?.tenant === most) return next;
      // All pins are looked through once for as many as the tenant has, not for each of them.
      if (next === undefined)
        largest.giving = [...this.#pins].flatMap(([chunk, pin]) => (pin.tenant === most ? chunk : []));
    }
  }

  get #roomBytes(): number {
    return this.#store.capacityBytes() * pinnedShare;
  }
}
