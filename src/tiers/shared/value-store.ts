/**
 * A store of values by name, as shared tiers need it: what Valkey, NIXL's files and objects, and Mooncake have in common. It knows
 * nothing of chunks, and a value may go at any time.
 */
import type { TierName, TierQuota } from "../../tier.ts";

export interface ValueStore extends AsyncDisposable {
  readonly tier: TierName;
  /** For people: no secrets are in it. */
  readonly where?: string;

  /** What hosts may keep there together; undefined: there is no limit of ours. */
  quota?(): TierQuota | undefined;

  /**
   * Small values, of as many names as there are, in one round trip. Undefined: there is none of that name, or it is longer than
   * `maxBytes`.
   *
   * @throws RepriseError TIER_UNAVAILABLE
   */
  getAll(names: readonly string[], maxBytes: number, signal: AbortSignal): Promise<(Buffer | undefined)[]>;

  /**
   * One value into `into`, which is as long as the value must be. However it ends, nothing touches `into` any more.
   *
   * @returns "gone" also for one of another length
   * @throws RepriseError TIER_UNAVAILABLE
   */
  read(name: string, into: Uint8Array, signal: AbortSignal): Promise<"read" | "gone">;

  /**
   * Writes values, the last of them only when all others are there.
   *
   * @param tenant whose share of the store they take
   * @returns "full" when the store has no room, may have no more of ours, or does not take these
   * @throws RepriseError TIER_UNAVAILABLE
   */
  write(values: readonly NamedValue[], tenant: string, signal: AbortSignal): Promise<"written" | "full">;
}

export interface NamedValue {
  readonly name: string;
  /** Not touched before the write has ended. */
  readonly bytes: Uint8Array;
}
