/** How long one read or write of a tier may take before its signal fires. */
import { withSignal } from "../../deadline.ts";
import { ownedLog, type Tier } from "../../tier.ts";

/** Of a shared tier: whoever cannot move a chunk in so long is away, and the chunk's slots are wanted. */
const sharedMs = 30_000;

/** A log ends by itself, as its drives do: it hears of `stop` only. */
export function withPatience<T>(tier: Tier, stop: AbortSignal, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  return ownedLog(tier) === undefined ? withSignal(work, { stop, deadlineMs: sharedMs }) : work(stop);
}
