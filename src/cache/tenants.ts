/**
 * Who holds how much of the pool, so that nobody's flood washes the others out.
 *
 * Every root is a tenant. One that was active in the last ten minutes has a fair share: the pool divided by the tenants
 * that were and hold something in it. While it holds no more than that, its chunks are protected: room is then taken from whoever holds most above
 * the share, or else from a tenant that is idle. Shares that nobody uses stand open to all, and with a single tenant
 * nothing of this is felt.
 *
 *     active ──ten minutes without a request──► idle (unprotected: its chunks go when their odds are the lowest)
 *        ▲────────────── a request ───────────────┘
 */
import { assert } from "../errors.ts";
import { MinHeap } from "./min-heap.ts";

const activeMs = 600_000;
/** Tenants that are remembered as active; of more, the one seen longest ago counts as idle. */
const mostActive = 65_536;

interface Account {
  bytes: number;
  place: number;
}

export class Tenants {
  readonly #capacityBytes: () => number;
  readonly #accounts = new Map<number, Account>();
  /** When each active tenant was seen last, the one seen longest ago first. */
  readonly #seenAt = new Map<number, number>();
  /** Those that hold something, the largest first. */
  readonly #active = this.#heap();
  readonly #idle = this.#heap();

  /** @param capacityBytes of the pool, now */
  constructor(capacityBytes: () => number) {
    this.#capacityBytes = capacityBytes;
  }

  /** What an active tenant may hold without being asked to give. */
  get shareBytes(): number {
    return this.#capacityBytes() / Math.max(1, this.#active.size);
  }

  bytesOf(tenant: number): number {
    return this.#accounts.get(tenant)?.bytes ?? 0;
  }

  /** A request of this tenant came. */
  seen(tenant: number, now: number): void {
    const isNew = !this.#seenAt.delete(tenant);
    if (isNew && this.#accounts.has(tenant)) this.#idle.remove(tenant);
    this.#seenAt.set(tenant, now);
    if (isNew && this.#accounts.has(tenant)) this.#active.add(tenant);
    this.#expire(now);
  }

  /** The tenant's slots take so many bytes more, or less. */
  changed(tenant: number, bytes: number): void {
    const heap = this.#seenAt.has(tenant) ? this.#active : this.#idle;
    const account = this.#accounts.get(tenant) ?? { bytes: 0, place: 0 };
    if (account.place > 0) heap.remove(tenant);
    account.bytes += bytes;
    assert(account.bytes >= 0, "a tenant gave back more than it had");
    if (account.bytes === 0) this.#accounts.delete(tenant);
    else {
      this.#accounts.set(tenant, account);
      heap.add(tenant);
    }
  }

  /** Active, and holding no more than its share. */
  isProtected(tenant: number, now: number): boolean {
    this.#expire(now);
    return this.#seenAt.has(tenant) && this.bytesOf(tenant) <= this.shareBytes;
  }

  /** Whom to take from when the best choice is protected: the largest above its share, else the largest that is idle. */
  giver(now: number): number | undefined {
    this.#expire(now);
    const largest = this.#active.first;
    return largest !== undefined && this.bytesOf(largest) > this.shareBytes ? largest : this.#idle.first;
  }

  /** Asserts that the accounts are these. */
  check(bytes: ReadonlyMap<number, number>): void {
    this.#active.check();
    this.#idle.check();
    assert(bytes.size === this.#accounts.size, "tenants with slots and tenants with accounts differ");
    for (const [tenant, held] of bytes) assert(this.bytesOf(tenant) === held, "a tenant's account is wrong");
  }

  #expire(now: number): void {
    for (const [tenant, seenAt] of this.#seenAt) {
      if (now - seenAt < activeMs && this.#seenAt.size <= mostActive) return;
      const holds = this.#accounts.has(tenant);
      if (holds) this.#active.remove(tenant);
      this.#seenAt.delete(tenant);
      if (holds) this.#idle.add(tenant);
    }
  }

  #heap(): MinHeap {
    return new MinHeap({
      key: (tenant) => -this.bytesOf(tenant),
      place: (tenant) => this.#accounts.get(tenant)?.place ?? 0,
      setPlace: (tenant, place) => {
        const account = this.#accounts.get(tenant);
        if (account !== undefined) account.place = place;
      },
    });
  }
}
