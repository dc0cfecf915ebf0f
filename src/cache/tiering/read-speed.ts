/**
 * How fast a tier is read, measured on the reads that happen anyway: with its queue, its checksums and whatever else this
 * process does meanwhile.
 *
 *     latency           how long a read takes that finds the tier at rest
 *     bytes a second    what arrives while reads follow each other without a break, several at a time
 *
 *     reads     ├──────┤            at rest: latency
 *                 ├──────┤├─────┤
 *     stretch   ├────────┊──────┤   ends when nothing is read any more, or is cut when it gets long
 *
 * A stretch of little more than a latency says only how fast the tier is at least, and that only where it brought much. A new figure weighs the more the older
 * the one before it is, so that a drive whose speed has changed is known after a few reads, and after one when nobody has
 * read from it for a while.
 *
 * The first read at rest pays for what happens once: connections are made, memory is touched. Alone its time is not believed.
 */
import { Estimate, leastMs } from "./estimate.ts";

/** What is known of a tier's speed; shown as it is. Without reads there is nothing to know. */
export interface ReadFigures {
  readonly readLatencyMs?: number;
  readonly readBytesPerSecond?: number;
}

/** A stretch of reads is cut after so long, once it is bound by its bytes. */
const cutMs = 250;
/** Bytes that say how fast a tier is, however short they took. */
const manyBytes = 4 * 2 ** 20;
/** A stretch so many times as long as a latency is as long as it is for its bytes. */
const boundByBytes = 4;

export class ReadSpeed {
  readonly #now: () => number;
  readonly #latencyMs: Estimate;
  readonly #bytesPerMs: Estimate;
  #underWay = 0;
  #underWayBytes = 0;
  #stretchBegan = 0;
  #stretchBytes = 0;
  /** False for what is left of a stretch that was cut: it may be a moment, when several reads end together. */
  #stretchIsWhole = true;
  #probed = -Infinity;

  constructor(now: () => number) {
    this.#now = now;
    this.#latencyMs = new Estimate(now, { firstCounts: false });
    this.#bytesPerMs = new Estimate(now, { firstCounts: true });
  }

  /** A read begins. @returns what is to be called when it ends */
  begin(bytes: number): (outcome: "read" | "failed") => void {
    const began = this.#now();
    const wasAtRest = this.#underWay === 0;
    if (wasAtRest) {
      this.#stretchBegan = began;
      this.#stretchBytes = 0;
      this.#stretchIsWhole = true;
    }
    this.#underWay += 1;
    this.#underWayBytes += bytes;
    return (outcome) => {
      this.#underWay -= 1;
      this.#underWayBytes -= bytes;
      if (outcome === "failed") return;
      const ended = this.#now();
      if (wasAtRest) this.#latencyMs.learn(Math.max(leastMs, ended - began));
      this.#stretchBytes += bytes;
      const stretchMs = Math.max(leastMs, ended - this.#stretchBegan);
      if (this.#underWay > 0 && (stretchMs < cutMs || !this.#isBoundByBytes(stretchMs))) return;
      this.#learnRate(this.#stretchBytes / stretchMs, stretchMs);
      this.#stretchBegan = ended;
      this.#stretchBytes = 0;
      this.#stretchIsWhole = false;
    };
  }

  /**
   * How long it takes to read `bytes`, of which `aheadBytes` are read at a time, beside the reads that are under way now.
   * A tier that nobody has read from takes no time: it must be tried to be known.
   */
  expectedMs(bytes: number, aheadBytes: number): number {
    const latencyMs = this.#latencyMs.believed ?? 0;
    const bytesPerMs = this.#bytesPerMs.value;
    if (bytesPerMs === undefined) return latencyMs;
    const atATime = Math.min(bytes, aheadBytes);
    const share = atATime / (atATime + this.#underWayBytes);
    return Math.max(latencyMs, bytes / (bytesPerMs * share));
  }

  /**
   * How long it takes at least until `bytes` have come, of which some are under way. What was read last may have been long ago; the reads
   * under way say how fast the tier is at most.
   */
  atLeastMs(bytes: number): number {
    const stretchMs = Math.max(leastMs, this.#now() - this.#stretchBegan);
    const most = this.#underWay > 0 ? (this.#stretchBytes + this.#underWayBytes) / stretchMs : Infinity;
    return bytes / Math.min(most, this.#bytesPerMs.value ?? Infinity);
  }

  /** True once in `everyMs`, when nothing was learned for as long: then a little is to be read, to see if it still is so. */
  takeProbe(everyMs: number): boolean {
    // Single reads confirm a latency, and say little about the bytes that a load's many reads bring.
    const learned = this.#bytesPerMs.value === undefined ? this.#latencyMs.learned : this.#bytesPerMs.learned;
    if (this.#underWay > 0 || this.#now() - Math.max(learned, this.#probed) < everyMs) return false;
    this.#probed = this.#now();
    return true;
  }

  figures(): ReadFigures {
    const [latencyMs, bytesPerMs] = [this.#latencyMs.value, this.#bytesPerMs.value];
    return {
      ...(latencyMs !== undefined && { readLatencyMs: rounded(latencyMs) }),
      ...(bytesPerMs !== undefined && { readBytesPerSecond: Math.round(bytesPerMs * 1000) }),
    };
  }

  #learnRate(bytesPerMs: number, stretchMs: number): void {
    const known = this.#bytesPerMs.value ?? Infinity;
    // The first bytes after a rest may come faster than those that follow them, where a network lends them (a token bucket).
    const areMany = this.#stretchBytes >= Math.min(manyBytes, known * cutMs);
    const isFaster = this.#stretchIsWhole && areMany && bytesPerMs > known;
    if (isFaster || this.#isBoundByBytes(stretchMs)) this.#bytesPerMs.learn(bytesPerMs);
  }

  #isBoundByBytes(stretchMs: number): boolean {
    return stretchMs >= boundByBytes * (this.#latencyMs.value ?? 0);
  }
}

function rounded(ms: number): number {
  return Math.round(ms * 1000) / 1000;
}
