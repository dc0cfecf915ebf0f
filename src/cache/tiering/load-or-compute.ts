/**
 * Load or compute: up to which point of a hit loading beats computing.
 *
 * A guest says what computing a token costs it, the tiers' speeds are measured as they are read ({@link ReadSpeed}). What is
 * in memory is always worth loading; what lies below, as long as reading it is clearly faster than computing the same
 * tokens, as a whole and with the memory hits behind it:
 *
 *     text    │ memory │    disk    │ memory │     disk     │
 *     gain     ───────►  ╲          ╱────────╲
 *                         ╲________╱          ╲_____________      loaded up to where the gain is largest
 *
 * Of what is not worth it nothing is read, so nothing would be learned of a drive that has become fast again: now and then
 * a little of it is read in the background, and stays in memory. And a text that was computed although it was stored, and is
 * asked for once more, would be computed for ever: it is brought into memory in the background, where the third request
 * finds it.
 */
import type { TierName } from "../../tier.ts";
import type { ChunkId } from "../index/chunk-id.ts";
import { Estimate, leastMs } from "./estimate.ts";
import { ReadSpeed, type ReadFigures } from "./read-speed.ts";

/** Loading is uncertain and takes the engine's time for copies as well: it must be so much faster than computing. */
const clearly = 0.8;
/** Texts remembered that were computed although they were stored. */
const rememberedTexts = 4096;
/** Tokens of a text for which the way to a tier counts little: what pays for none that long pays for none. */
const longText = 32_768;
/** A tier whose hits are left alone is tried again so often. */
const probeMs = 10_000;

/** What a guest would load or compute. */
export interface LoadableText {
  readonly tokens: number;
  readonly computeMsPerToken: number;
  /** Bytes of KV of a token, of all ranks. */
  readonly bytesPerToken: number;
}

export class LoadOrCompute {
  readonly #now: () => number;
  readonly #speeds = new Map<TierName, ReadSpeed>();
  /** What shared tiers take to say what they have. */
  readonly #askMs = new Map<TierName, Estimate>();
  /** The first chunk of each that was not in memory. A name that was given anew costs a needless read. */
  readonly #recomputed = new Set<ChunkId>();

  constructor(now: () => number) {
    this.#now = now;
  }

  /** The speed of a tier below memory. */
  speed(tier: TierName): ReadSpeed {
    let speed = this.#speeds.get(tier);
    if (speed === undefined) this.#speeds.set(tier, (speed = new ReadSpeed(this.#now)));
    return speed;
  }

  /** Weighs a text's hits, which are to be added in their order. `aheadBytes`: what a load reads at a time. */
  weigh(computeMsPerToken: number, aheadBytes: number): Weighing {
    return new Weighing((tier) => this.speed(tier), computeMsPerToken, aheadBytes);
  }

  /** A shared tier took so long to say what it has of a text. What the first one took was for connections, too: it is not believed. */
  noteAsked(tier: TierName, ms: number): void {
    let askMs = this.#askMs.get(tier);
    if (askMs === undefined) this.#askMs.set(tier, (askMs = new Estimate(this.#now, { firstCounts: false })));
    askMs.learn(Math.max(leastMs, ms));
  }

  /**
   * Whether asking a shared tier for so many tokens could pay, should it have all of them: way and reading together are clearly
   * shorter than computing. Of a tier that was not asked for a while the way is not known any more. Then it is asked, and waited for where
   * reading alone would pay.
   */
  worthAsking(tier: TierName, text: LoadableText): "ask" | "ask_unheard" | "leave" {
    const way = this.#askMs.get(tier);
    const isKnown = way?.believed !== undefined && this.#now() - way.learned < probeMs;
    if (this.#paysAfter(isKnown ? way.believed : 0, tier, text)) return "ask";
    return isKnown ? "leave" : "ask_unheard";
  }

  /** A long text would clearly be loaded faster than computed, or nothing is known of the tier. */
  pays(tier: TierName, guest: Omit<LoadableText, "tokens">): boolean {
    return this.#paysAfter(this.#askMs.get(tier)?.believed ?? 0, tier, { ...guest, tokens: longText });
  }

  #paysAfter(wayMs: number, tier: TierName, { tokens, computeMsPerToken, bytesPerToken }: LoadableText): boolean {
    const bytes = tokens * bytesPerToken;
    return (wayMs + this.speed(tier).expectedMs(bytes, bytes)) / clearly < tokens * computeMsPerToken;
  }

  /** True when something of a tier whose hits are left alone should be read, to see how fast it is now. */
  takeProbe(tier: TierName): boolean {
    return this.speed(tier).takeProbe(probeMs);
  }

  /** Somebody has computed a text although it is stored, below memory from this chunk on. */
  noteRecomputed(firstBelow: ChunkId): void {
    this.#recomputed.add(firstBelow);
    for (const oldest of this.#recomputed) {
      if (this.#recomputed.size <= rememberedTexts) return;
      this.#recomputed.delete(oldest);
    }
  }

  /** True once for each that was noted. */
  takeRecomputed(firstBelow: ChunkId): boolean {
    return this.#recomputed.delete(firstBelow);
  }

  figures(tier: TierName): ReadFigures {
    return this.speed(tier).figures();
  }
}

export class Weighing {
  readonly #speedOf: (tier: TierName) => ReadSpeed;
  readonly #computeMsPerToken: number;
  readonly #aheadBytes: number;
  readonly #bytes = new Map<TierName, number>();
  #tokens = 0;
  #bestGainMs = 0;
  #worthTokens = 0;

  constructor(speedOf: (tier: TierName) => ReadSpeed, computeMsPerToken: number, aheadBytes: number) {
    this.#speedOf = speedOf;
    this.#computeMsPerToken = computeMsPerToken;
    this.#aheadBytes = aheadBytes;
  }

  /** The next chunk of the text: `bytes` of all ranks, where they are to be read from a tier below memory. */
  add(tokens: number, tier: TierName, bytes: number): void {
    this.#tokens += tokens;
    this.#read(tier, bytes);
  }

  /** Loading may end after the last chunk added, when this much more is read then and only then. */
  mayEnd(tier: TierName, bytes: number): void {
    this.#read(tier, bytes);
    const gainMs = this.#tokens * this.#computeMsPerToken - this.#readMs() / clearly;
    this.#read(tier, -bytes);
    if (gainMs < this.#bestGainMs) return;
    this.#bestGainMs = gainMs;
    this.#worthTokens = this.#tokens;
  }

  /** Tokens from the start of the text up to which loading beats computing. */
  get worthTokens(): number {
    return this.#worthTokens;
  }

  #read(tier: TierName, bytes: number): void {
    if (tier !== "memory") this.#bytes.set(tier, (this.#bytes.get(tier) ?? 0) + bytes);
  }

  #readMs(): number {
    let ms = 0;
    for (const [tier, bytes] of this.#bytes)
      if (bytes > 0) ms += this.#speedOf(tier).expectedMs(bytes, this.#aheadBytes);
    return ms;
  }
}
