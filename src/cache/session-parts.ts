/** What a session of the cache works on, and how much of it one session may take. */
import type { ChunkId } from "./chunk-id.ts";
import type { ChunkStore } from "./chunk-store.ts";
import type { Counters } from "./counters.ts";
import type { LeaseTable } from "./lease.ts";
import type { LoadOrCompute } from "./load-or-compute.ts";
import type { Placement } from "./placement.ts";
import type { Spaces } from "./spaces.ts";

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
export interface SessionParts {
  readonly spaces: Spaces;
  readonly store: ChunkStore;
  readonly leases: LeaseTable<ChunkId>;
  readonly placement: Placement;
  readonly loadOrCompute: LoadOrCompute;
  readonly counters: Counters;
  readonly limits: SessionLimits;
}
