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
 * A stretch of little more than a latency says only how fast the tier is at least. A new figure weighs the more the older
 * the one before it is, so that a drive whose speed has changed is known after a few reads, and after one when nobody has
 * read from it for a while.
 */

/** What is known of a tier's speed; shown as it is. Without reads there is nothing to know. */
export interface ReadFigures {
  readonly readLatencyMs?: number;
  readonly readBytesPerSecond?: number;
}

/** A stretch of reads is cut after so long, once it is bound by its bytes. */
const cutMs = 250;
/** A stretch so many times as long as a latency is as long as it is for its bytes. */
const boundByBytes = 4;
/** What a new figure weighs at once, and the time after which what was known before counts a third of that. */
const weight = 0.3;
const fadesMs = 10_000;
/** Nothing takes no time, whatever a clock says. */
const leastMs = 0.001;

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
    this.#latencyMs = new Estimate(now);
    this.#bytesPerMs = new Estimate(now);
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
    const { latencyMs, bytesPerMs } = { latencyMs: this.#latencyMs.value ?? 0, bytesPerMs: this.#bytesPerMs.value };
    if (bytesPerMs === undefined) return latencyMs;
    const atATime = Math.min(bytes, aheadBytes);
    const share = atATime / (atATime + this.#underWayBytes);
    return Math.max(latencyMs, bytes / (bytesPerMs * share));
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
    const isFaster = this.#stretchIsWhole && bytesPerMs > (this.#bytesPerMs.value ?? Infinity);
    if (isFaster || this.#isBoundByBytes(stretchMs)) this.#bytesPerMs.learn(bytesPerMs);
  }

  #isBoundByBytes(stretchMs: number): boolean {
    return stretchMs >= boundByBytes * (this.#latencyMs.value ?? 0);
  }
}

/** A moving mean of factors: twice as fast and half as fast weigh the same. */
class Estimate {
  readonly #now: () => number;
  value: number | undefined;
  /** When {@link value} was last moved. */
  learned = -Infinity;

  constructor(now: () => number) {
    this.#now = now;
  }

  learn(sample: number): void {
    const now = this.#now();
    const kept = (1 - weight) * Math.exp((this.learned - now) / fadesMs);
    this.value = this.value === undefined ? sample : this.value ** kept * sample ** (1 - kept);
    this.learned = now;
  }
}

function rounded(ms: number): number {
  return Math.round(ms * 1000) / 1000;
}
