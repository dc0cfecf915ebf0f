/**
 * What shared tiers said that they lack, by the first chunk of a text that was not there: for some seconds they are not asked for
 * it again. Of a text that nobody has, and that many ask for at once, the first pays the way there.
 */
import type { ChunkKey } from "../../identity/keys.ts";
import type { Tier } from "../../tier.ts";

/** Another host may have stored it meanwhile. */
const believedMs = 5000;
/** Chunks of one tier; the oldest are forgotten. */
const maxChunks = 4096;

export class AbsentChunks {
  readonly #now: () => number;
  readonly #until = new Map<Tier, Map<ChunkKey, number>>();

  constructor(now: () => number) {
    this.#now = now;
  }

  has(tier: Tier, key: ChunkKey): boolean {
    const until = this.#until.get(tier)?.get(key);
    return until !== undefined && this.#now() < until;
  }

  add(tier: Tier, key: ChunkKey): void {
    let chunks = this.#until.get(tier);
    if (chunks === undefined) this.#until.set(tier, (chunks = new Map<ChunkKey, number>()));
    chunks.delete(key); // the newest is the last
    chunks.set(key, this.#now() + believedMs);
    for (const oldest of chunks.keys()) {
      if (chunks.size <= maxChunks) return;
      chunks.delete(oldest);
    }
  }
}
