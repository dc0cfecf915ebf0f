/**
 * What a session answers when a text is looked up: how much of it is stored, in which tiers, and how much is worth loading.
 *
 *     text     │ worth loading │ left to be computed │ not stored │
 *     found     ──────────── hitTokens ──────────────►
 *               ─ worthTokens ─►
 *
 * Of what is left something may be read in the background (load-or-compute.ts).
 */
import type { TierName } from "../tier.ts";
import type { ChunkId } from "./chunk-id.ts";
import type { Tokens } from "./chunk.ts";
import { addTokens } from "./counters.ts";
import type { ChunkPath } from "./radix.ts";
import type { SessionParts } from "./session-parts.ts";
import type { Lookup } from "./session.ts";

/**
 * Of a load, read from below ahead of the chunk that the guest waits for: what keeps eight reads of a drive busy, whatever
 * the size of a chunk. Less where that would be much of the pool, which other loads want too.
 */
const readAheadBytes = 16 * 1024 * 1024;
const readAheadShare = 1 / 16;
/** What one text that is brought into memory in the background may take of the pool. */
const broughtShare = 1 / 4;

export class Lookups {
  readonly #parts: SessionParts;
  readonly #chunkTokens: number;
  readonly #slotBytes: number;
  #computeMsPerToken: number | undefined;

  constructor(parts: SessionParts, { chunkTokens, slotBytes }: { chunkTokens: number; slotBytes: number }) {
    this.#parts = parts;
    this.#chunkTokens = chunkTokens;
    this.#slotBytes = slotBytes;
  }

  /** What a token costs the guest, as it last said; undefined: it never did. */
  get computeMsPerToken(): number | undefined {
    return this.#computeMsPerToken;
  }

  /** What a match says to whoever looks it up: it ends at the first chunk whose bytes are nowhere. */
  found(path: ChunkPath, computeMsPerToken: number | undefined): Lookup {
    const { store, loadOrCompute } = this.#parts;
    const { chunks } = store;
    const tokensByTier: Partial<Record<TierName, number>> = {};
    if (computeMsPerToken !== undefined) this.#computeMsPerToken = computeMsPerToken;
    const weighing =
      computeMsPerToken === undefined ? undefined : loadOrCompute.weigh(computeMsPerToken, this.aheadBytes());
    let hitTokens = 0;
    let run: TierName | undefined;
    let runTokens = 0;
    for (let i = 0; i < path.length; i += 1) {
      const tier = chunks.tierOf(path.at(i));
      if (tier !== run) {
        if (run !== undefined) addTokens(tokensByTier, run, runTokens);
        run = tier;
        runTokens = 0;
      }
      if (tier === undefined) break;
      const matchedTokens = i === path.length - 1 ? path.matchedInLast : this.#chunkTokens;
      runTokens += matchedTokens;
      hitTokens += matchedTokens;
      weighing?.add(matchedTokens, tier, tier === "memory" ? 0 : chunks.bytesOfAllRanks(path.at(i)));
    }
    if (run !== undefined) addTokens(tokensByTier, run, runTokens);
    return { hitTokens, tokensByTier, worthTokens: weighing?.worthTokens ?? hitTokens };
  }

  /** Counts a lookup that a guest has asked for. */
  count(tokens: Tokens, { tokensByTier }: Lookup): void {
    const { counters } = this.#parts;
    counters.lookups += 1;
    counters.lookedUpTokens += tokens.length;
    for (const [tier, count] of Object.entries(tokensByTier)) addTokens(counters.hitTokens, tier as TierName, count); // as found() made it
  }

  /** Counts what is found and left to be computed, and reads of it in the background what {@link SessionParts.loadOrCompute} says. */
  leave(path: ChunkPath, { hitTokens, worthTokens }: Lookup): void {
    if (worthTokens === hitTokens) return;
    const { store, counters, loadOrCompute, placement } = this.#parts;
    const { chunks } = store;
    const first = worthTokens / this.#chunkTokens;
    const slow = chunks.tierOf(path.at(first))!; // it is found, and what is in memory is never left
    const isBrought = loadOrCompute.takeRecomputed(path.at(first));
    let probeBytes = !isBrought && loadOrCompute.takeProbe(slow) ? this.aheadBytes() : 0;
    let bringBytes = isBrought ? store.pool.stats().capacityBytes * broughtShare : 0;
    const brought: ChunkId[] = [];
    for (let i = first; i * this.#chunkTokens < hitTokens; i += 1) {
      const chunk = path.at(i);
      const tier = chunks.tierOf(chunk)!; // it is found
      addTokens(counters.leftTokens, tier, Math.min(this.#chunkTokens, hitTokens - i * this.#chunkTokens));
      if (tier === "memory" || (probeBytes <= 0 && bringBytes <= 0)) continue;
      const bytes = chunks.bytesOfAllRanks(chunk);
      if (bringBytes > 0) brought.push(chunk);
      else if (tier === slow) {
        counters.probedChunks += 1;
        void placement.promote(chunk, this.#slotBytes);
      }
      bringBytes -= bytes;
      probeBytes -= bytes;
    }
    if (brought.length > 0) placement.bring(brought, this.#slotBytes);
  }

  /** What a load reads at a time, ahead of the chunk that the guest waits for. */
  aheadBytes(): number {
    return Math.min(readAheadBytes, this.#parts.store.pool.stats().capacityBytes * readAheadShare);
  }
}
