/**
 * Who holds how much of the pool, so that nobody's flood washes the others out.
 *
 * A tenant is who a guest names with a root (the owner of an API key); a root of nobody's is a tenant by itself. One that was active in
 * the last ten minutes has a fair share: the pool divided by the tenants that were and have something stored in it. While
 * it holds no more than that, its chunks are protected: room is then taken from whoever holds most above the share, or
 * else from a tenant that is idle. Shares that nobody uses stand open to all, and with a single tenant nothing of this is felt.
 *
 *     active ──ten minutes without a request──► idle (unprotected: its chunks go when their odds are the lowest)
 *        ▲────────────── a request ───────────────┘
 *
 * What is reserved counts as held, but it makes no share: a *newcomer*, who has nothing but reserved slots, does not make
 * the others' shares smaller, except for its own question. So reservations under however many names take room from nobody
 * who holds less than a share.
 */
import { assert } from "../../errors.ts";
import { MinHeap } from "./min-heap.ts";

const activeMs = 600_000;
/** Tenants that are remembered as active; of more, the one seen longest ago counts as idle. */
const mostActive = 65_536;

interface Account {
  bytes: number;
  slots: number;
  /** Of the slots, those that are being written. */
  reserved: number;
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
  /** Active tenants that have something stored in the pool. */
  #shares = 0;
  #newcomers = 0;

  /** @param capacityBytes of the pool, now */
  constructor(capacityBytes: () => number) {
    this.#capacityBytes = capacityBytes;
  }

  /** What an active tenant may hold without being asked to give, when `asker` needs room. */
  shareBytes(asker: number): number {
    return this.#capacityBytes() / Math.max(1, this.#shares + (this.#hasShare(asker) ? 0 : 1));
  }

  bytesOf(tenant: number): number {
    return this.#accounts.get(tenant)?.bytes ?? 0;
  }

  /** A request of this tenant came. */
  seen(tenant: number, now: number): void {
    if (this.#seenAt.delete(tenant)) this.#seenAt.set(tenant, now);
    else
      this.#update(tenant, () => {
        if (this.#accounts.has(tenant)) this.#idle.remove(tenant);
        this.#seenAt.set(tenant, now);
        if (this.#accounts.has(tenant)) this.#active.add(tenant);
      });
    this.#expire(now);
  }

  /** The tenant has so many slots more, or less, and they take so many bytes. */
  changed(tenant: number, bytes: number, slots: number): void {
    this.#update(tenant, () => {
      const heap = this.#seenAt.has(tenant) ? this.#active : this.#idle;
      const account = this.#accounts.get(tenant) ?? { bytes: 0, slots: 0, reserved: 0, place: 0 };
      if (account.place > 0) heap.remove(tenant);
      account.bytes += bytes;
      account.slots += slots;
      assert(account.bytes >= 0 && account.slots >= 0, "a tenant gave back more than it had");
      if (account.bytes === 0) this.#accounts.delete(tenant);
      else {
        this.#accounts.set(tenant, account);
        heap.add(tenant);
      }
    });
  }

  /** So many of the tenant's slots more, or less, are reserved: they have been given, and nothing is stored there yet. */
  reserved(tenant: number, slots: number): void {
    this.#update(tenant, () => {
      const account = this.#accounts.get(tenant);
      assert(account !== undefined, "a tenant without slots has none reserved");
      account.reserved += slots;
      assert(account.reserved >= 0, "more was written than was reserved");
    });
  }

  /** Active, and holding no more than its share. */
  isProtected(tenant: number, now: number, asker: number): boolean {
    this.#expire(now);
    return this.#seenAt.has(tenant) && this.bytesOf(tenant) <= this.shareBytes(asker);
  }

  /** Whom to take from when the best choice is protected: those above their share, the largest first, then the largest idle one. */
  *givers(now: number, asker: number): Generator<number, void, void> {
    this.#expire(now);
    yield* this.#active.before(-this.shareBytes(asker));
    if (this.#idle.first !== undefined) yield this.#idle.first;
  }

  /** Somebody else has reserved slots and nothing stored. */
  hasNewcomersBut(asker: number): boolean {
    return this.#newcomers > (this.#isNewcomer(asker) ? 1 : 0);
  }

  /** Asserts that the accounts are these. */
  check(held: ReadonlyMap<number, { bytes: number; reserved: number }>): void {
    this.#active.check();
    this.#idle.check();
    assert(held.size === this.#accounts.size, "tenants with slots and tenants with accounts differ");
    for (const [tenant, { bytes, reserved }] of held) {
      assert(this.bytesOf(tenant) === bytes, "a tenant's account is wrong");
      assert(this.#accounts.get(tenant)?.reserved === reserved, "a tenant's reserved slots are miscounted");
    }
    const tenants = [...this.#accounts.keys()];
    assert(this.#shares === tenants.filter((tenant) => this.#hasShare(tenant)).length, "shares are miscounted");
    assert(this.#newcomers === tenants.filter((tenant) => this.#isNewcomer(tenant)).length, "newcomers are miscounted");
  }

  #hasShare(tenant: number): boolean {
    return this.#seenAt.has(tenant) && this.#accounts.has(tenant) && !this.#isNewcomer(tenant);
  }

  #isNewcomer(tenant: number): boolean {
    const account = this.#accounts.get(tenant);
    return account !== undefined && account.slots === account.reserved;
  }

  /** Changes what is known of a tenant, and counts it anew. */
  #update(tenant: number, change: () => void): void {
    this.#count(tenant, -1);
    change();
    this.#count(tenant, 1);
  }

  #count(tenant: number, by: 1 | -1): void {
    if (this.#hasShare(tenant)) this.#shares += by;
    if (this.#isNewcomer(tenant)) this.#newcomers += by;
  }

  #expire(now: number): void {
    for (const [tenant, seenAt] of this.#seenAt) {
      if (now - seenAt < activeMs && this.#seenAt.size <= mostActive) return;
      this.#update(tenant, () => {
        const holds = this.#accounts.has(tenant);
        if (holds) this.#active.remove(tenant);
        this.#seenAt.delete(tenant);
        if (holds) this.#idle.add(tenant);
      });
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
