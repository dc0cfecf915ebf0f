/**
 * Write-behind: every chunk that becomes visible is written to the tiers that lack it, and nobody waits for it.
 *
 *     commit ──┬──► queue of the first tier     at most a quarter of the pool
 *              └──► queue of the next           half of that, and so on: all together less than half of the pool
 *
 * Each tier has a queue of its own (tier-queue.ts): a slow one delays no other.
 */
import type { Tier, TierName } from "../../tier.ts";
import type { ChunkId } from "../index/chunk-id.ts";
import type { ChunkStore } from "../pool/chunk-store.ts";
import type { TierCounts } from "./tier-counters.ts";
import { TierQueue, type QueueStats } from "./tier-queue.ts";
import type { TierStates } from "./tier-states.ts";

export interface WriteBehindOptions {
  readonly store: ChunkStore;
  /** From fast to slow. */
  readonly tiers: readonly Tier[];
  readonly tierCounts: TierCounts;
  readonly tierStates: TierStates;
  readonly now: () => number;
  /** Bytes of slots that may be held for the first tier at a time, now. */
  readonly queueBytes: () => number;
}

/** A chunk that is to be written to two tiers counts twice. */
export interface WriteBehindStats extends QueueStats {
  readonly byTier: Readonly<Partial<Record<TierName, QueueStats>>>;
}

export class WriteBehind {
  readonly #queues: readonly TierQueue[];

  constructor({ tiers, queueBytes, ...parts }: WriteBehindOptions) {
    const written = tiers.filter(({ isReadOnly }) => isReadOnly === undefined);
    this.#queues = written.map((tier, i) => new TierQueue({ ...parts, tier, boundBytes: () => queueBytes() / 2 ** i }));
  }

  /** A chunk became visible: each tier that lacks it gets it when its turn comes. */
  saved(chunk: ChunkId): void {
    for (const queue of this.#queues) queue.saved(chunk);
  }

  /** Resolves when every chunk saved before is written or given up. */
  async drained(): Promise<void> {
    await Promise.all(this.#queues.map((queue) => queue.drained()));
  }

  /** Ends all work: what has not been written is not. */
  async close(): Promise<void> {
    await Promise.all(this.#queues.map((queue) => queue.close()));
  }

  stats(): WriteBehindStats {
    const stats = this.#queues.map((queue) => [queue.tier.name, queue.stats()] as const);
    const sum = (figure: keyof QueueStats) => stats.reduce((total, [, each]) => total + each[figure], 0);
    return {
      chunks: sum("chunks"),
      bytes: sum("bytes"),
      waitingChunks: sum("waitingChunks"),
      byTier: Object.fromEntries(stats),
    };
  }
}
