/**
 * What waits, by tenant: tenants take turns, so that many requests of one make no other wait longer.
 *
 * First comes the tenant that has the least in hand already; of several, the one whose last turn is longest ago, and of those
 * that had none lately the one that waits longest. Within a tenant the oldest is first.
 */
import { RepriseError } from "../../errors.ts";

/** Tenants whose last turn is remembered; those served longest ago are forgotten first. */
const remembered = 1024;

export class TurnQueue<T> {
  /** In the order in which they began to wait. No tenant is kept that waits for nothing. */
  readonly #tenants = new Map<string, T[]>();
  /** When a tenant had its last turn, counted in turns; the latest is last. */
  readonly #turns = new Map<string, number>();
  #turn = 0;
  #size = 0;

  get size(): number {
    return this.#size;
  }

  add(tenant: string, value: T): void {
    const waiting = this.#tenants.get(tenant);
    if (waiting === undefined) this.#tenants.set(tenant, [value]);
    else waiting.push(value);
    this.#size += 1;
  }

  /** Puts one back that was taken, before the others of its tenant. */
  putBack(tenant: string, value: T): void {
    this.add(tenant, value);
    const waiting = this.#tenants.get(tenant)!; // just added
    waiting.unshift(waiting.pop()!); // likewise
  }

  /** Whose turn it is. @param inHand what a tenant has already; Infinity keeps it waiting. */
  next(inHand: (tenant: string) => number): { readonly tenant: string; readonly value: T } | undefined {
    let best: { tenant: string; value: T } | undefined;
    let least = Infinity;
    let earliest = Infinity;
    for (const [tenant, waiting] of this.#tenants) {
      const has = inHand(tenant);
      const turn = this.#turns.get(tenant) ?? 0;
      if (has === Infinity || has > least || (has === least && turn >= earliest)) continue;
      [least, earliest, best] = [has, turn, { tenant, value: waiting[0]! }]; // no empty ones are kept
    }
    return best;
  }

  /** Takes the oldest of a tenant, whose turn it was. */
  take(tenant: string): void {
    const waiting = this.#tenants.get(tenant);
    if (waiting === undefined) return;
    waiting.shift();
    this.#size -= 1;
    if (waiting.length === 0) this.#tenants.delete(tenant);
    this.#turn += 1;
    this.#turns.delete(tenant);
    this.#turns.set(tenant, this.#turn);
    const [oldest] = this.#turns.keys();
    if (this.#turns.size > remembered && oldest !== undefined) this.#turns.delete(oldest);
  }

  /** Takes the first one that `isIt`. @returns whether there was one */
  remove(isIt: (value: T) => boolean): boolean {
    for (const [tenant, waiting] of this.#tenants) {
      const index = waiting.findIndex(isIt);
      if (index === -1) continue;
      waiting.splice(index, 1);
      this.#size -= 1;
      if (waiting.length === 0) this.#tenants.delete(tenant);
      return true;
    }
    return false;
  }
}

/**
 * Lets one more of `tenant` into a full queue: the newest of the tenant that waits for most leaves, if that is fairer
 * afterwards than before. A tenant that is alone may so use the whole queue, and nobody's share is lost by it.
 *
 * @param waiting oldest first
 * @param full says how full the queue is, for people
 * @param leave takes one out of the queue, with the error that it ends with
 * @throws RepriseError QUEUE_FULL when nobody makes room
 */
export function makeRoom<T extends { readonly tenant: string }>(
  waiting: readonly T[],
  tenant: string,
  full: string,
  leave: (leaving: T, error: RepriseError) => void,
): void {
  const leaving = whoMakesRoom(waiting, tenant);
  if (leaving === undefined) throw new RepriseError("QUEUE_FULL", full);
  leave(leaving, new RepriseError("QUEUE_FULL", `Others got their share of the queue: ${full}`));
}

/** @returns undefined when the newcomer is to be refused */
function whoMakesRoom<T extends { readonly tenant: string }>(waiting: readonly T[], tenant: string): T | undefined {
  const counts = new Map<string, number>();
  for (const { tenant } of waiting) counts.set(tenant, (counts.get(tenant) ?? 0) + 1);
  const most = [...counts.values()].reduce((most, count) => Math.max(most, count), 0);
  if (most <= (counts.get(tenant) ?? 0) + 1) return undefined;
  return waiting.findLast((each) => counts.get(each.tenant) === most);
}
