/**
 * What waits, by tenant: tenants take turns, so that many requests of one make no other wait longer.
 *
 * First comes the tenant that has the least in hand already; of several, the one whose last turn is longest ago, and of those
 * that had none lately the one that waits longest. Within a tenant the oldest is first, unless who takes knows better.
 */
import { RepriseError } from "../../errors.ts";

/** What waits of one tenant. */
interface Line<T> {
  /** Oldest first; never empty. */
  readonly values: T[];
  /** How many were taken of it. */
  taken: number;
}

/** Whose turn it is. */
export interface Turn<T> {
  readonly tenant: string;
  /** The oldest of what waits of the tenant. */
  readonly value: T;
  /** All of it, oldest first. */
  readonly values: readonly T[];
  /** How many were taken since something of the tenant waits. */
  readonly taken: number;
}

/** Tenants whose last turn is remembered; those served longest ago are forgotten first. */
const remembered = 1024;

export class TurnQueue<T> {
  /** In the order in which they began to wait. No tenant is kept that waits for nothing. */
  readonly #lines = new Map<string, Line<T>>();
  /** When a tenant had its last turn, counted in turns; the latest is last. */
  readonly #turns = new Map<string, number>();
  #turn = 0;
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** All that waits, tenant after tenant. */
  *[Symbol.iterator](): Generator<T, void, void> {
    for (const { values } of this.#lines.values()) yield* values;
  }

  add(tenant: string, value: T): void {
    const line = this.#lines.get(tenant);
    if (line === undefined) this.#lines.set(tenant, { values: [value], taken: 0 });
    else line.values.push(value);
    this.#size += 1;
  }

  /** Puts one back that was taken, before the others of its tenant. */
  putBack(tenant: string, value: T): void {
    this.add(tenant, value);
    const { values } = this.#lines.get(tenant)!; // just added
    values.unshift(values.pop()!); // likewise
  }

  /** Whose turn it is. @param inHand what a tenant has already; Infinity keeps it waiting. */
  next(inHand: (tenant: string) => number): Turn<T> | undefined {
    let best: Turn<T> | undefined;
    let least = Infinity;
    let earliest = Infinity;
    for (const [tenant, line] of this.#lines) {
      const has = inHand(tenant);
      const turn = this.#turns.get(tenant) ?? 0;
      if (has === Infinity || has > least || (has === least && turn >= earliest)) continue;
      [least, earliest, best] = [has, turn, { tenant, ...line, value: line.values[0]! }]; // no empty ones are kept
    }
    return best;
  }

  /** Takes one of a tenant whose turn it was. */
  take(tenant: string, value: T): void {
    const line = this.#lines.get(tenant);
    const index = line?.values.indexOf(value) ?? -1;
    if (line === undefined || index === -1) return;
    line.taken += 1;
    this.#removeAt(tenant, line, index);
    this.#turn += 1;
    this.#turns.delete(tenant);
    this.#turns.set(tenant, this.#turn);
    const [oldest] = this.#turns.keys();
    if (this.#turns.size > remembered && oldest !== undefined) this.#turns.delete(oldest);
  }

  /** Takes the first one that `isIt`. @returns whether there was one */
  remove(isIt: (value: T) => boolean): boolean {
    for (const [tenant, line] of this.#lines) {
      const index = line.values.findIndex(isIt);
      if (index === -1) continue;
      this.#removeAt(tenant, line, index);
      return true;
    }
    return false;
  }

  #removeAt(tenant: string, { values }: Line<T>, index: number): void {
    values.splice(index, 1);
    this.#size -= 1;
    if (values.length === 0) this.#lines.delete(tenant);
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
