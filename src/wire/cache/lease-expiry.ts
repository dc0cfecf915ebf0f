/**
 * Lease expiry: no lease stands for ever, and none falls while its guest may still be copying.
 *
 *     held for longer than leaseMs ──► disconnected ─┐
 *     connection breaks without `bye` ───────────────┴──► grace ──► leases fall, slots are free
 *     `bye`, or nothing held ──────────────────────────────────────────────┘
 *
 * A guest learns by the end of its connection that its leases fall, before anybody else is given the memory.
 */
import { RepriseError } from "../../errors.ts";

/** How often leases are looked at, at the rarest. */
const longestWatchMs = 10_000;

export interface Holder {
  /** How long the guest has held its oldest lease; undefined when it holds none, or is disconnected already. */
  readonly leaseAgeMs: number | undefined;
  disconnect(reason: RepriseError): void;
}

/** Disconnects every guest that holds a lease for longer than `leaseMs`, until the timer is cleared. */
export function watchLeases(holders: Iterable<Holder>, leaseMs: number): NodeJS.Timeout {
  const look = () => {
    for (const holder of holders) {
      const ageMs = holder.leaseAgeMs ?? 0;
      if (ageMs <= leaseMs) continue;
      const seconds = Math.round(ageMs / 1000);
      holder.disconnect(new RepriseError("CANCELLED", `it has held a lease for ${seconds} s and gave it back neither`));
    }
  };
  return setInterval(look, Math.min(longestWatchMs, leaseMs / 10)).unref();
}

/** The time between the end of a guest's connection and the fall of its leases. */
export class Grace {
  #timer: NodeJS.Timeout | undefined;

  /** Calls `onOver` after `graceMs`; at once when nothing is held that somebody may still be using. */
  begin(graceMs: number, { holds, onOver }: { readonly holds: boolean; readonly onOver: () => void }): void {
    if (holds) this.#timer = setTimeout(onOver, graceMs);
    else onOver();
  }

  /** Nobody is told any more. */
  cancel(): void {
    clearTimeout(this.#timer);
  }
}
