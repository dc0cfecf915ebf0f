/** What a session of the cache works on, and how much of it one session may take. */
import type { ChunkId } from "../index/chunk-id.ts";
import type { ChunkStore } from "../pool/chunk-store.ts";
import type { Counters } from "../counters.ts";
import type { LeaseTable } from "../pool/leases.ts";
import type { LoadOrCompute } from "../tiering/load-or-compute.ts";
import type { Promotion } from "../tiering/promotion.ts";
import type { TierStates } from "../tiering/tier-states.ts";
import type { WriteBehind } from "../tiering/write-behind.ts";
import type { Recovery } from "../recovery/recovery.ts";
import type { Spaces } from "../index/spaces.ts";

/** What one session may take. */
export interface SessionLimits {
  /** Tokens of a text that are looked at; what comes after them is neither found nor stored. */
  readonly tokensPerRequest: number;
  /** Chunks per reservation; those after them are not stored, as if the pool were full. */
  readonly chunksPerReservation: number;
  /** Leases held at once: a load ends early there, a reservation is full. */
  readonly openLeases: number;
}

/** What a session works on: the cache's parts. */
export interface SessionContext {
  readonly spaces: Spaces;
  readonly recovery: Recovery;
  readonly store: ChunkStore;
  readonly leases: LeaseTable<ChunkId>;
  readonly writeBehind: WriteBehind;
  readonly promotion: Promotion;
  readonly loadOrCompute: LoadOrCompute;
  readonly tierStates: TierStates;
  readonly counters: Counters;
  readonly limits: SessionLimits;
  /** Milliseconds since any moment; never goes back. */
  readonly now: () => number;
}
