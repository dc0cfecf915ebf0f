/**
 * How likely a chunk is to be read again soon, learned from the reads themselves.
 *
 * Chunks fall into classes (how often they were read, how deep in their text they are). For each class it is counted how
 * many chunks entered it and after how long those that were read again were read. From that follows the hazard of a chunk
 * that has not been read for `age`: reads to be expected, those that are near weighing more, per chunk of its class that
 * has waited as long.
 *
 *     score(class, age) = Σ  reads after x / (x − age + 30 s)  ÷  chunks that were not read before age
 *                       x ≥ age
 *
 * Ages are counted in bins that grow by √2: 0–0.4 s, 0.4–1 s, … 12 days. Counts are halved now and then, so that a
 * workload that changes is learned anew. Before anything was seen, all classes have the same odds and these fall with
 * age: the cache begins as least-recently-used.
 */
const bins = 40;
/** Each class begins with this many reads in every bin, and as many chunks that were never read. */
const prior = 0.2;
/** How far reads that are to come are told apart, in seconds. The traces' hit rates change little between 5 and 60. */
const nearSeconds = 30;
const eventsPerTable = 1024;
const eventsPerHalving = 2 ** 18;

export class ReuseOdds {
  readonly #classes: number;
  /** Chunks that entered each class. */
  readonly #entered: Float64Array;
  /** Of these, the ones that were read again, by age: `bins` per class. */
  readonly #read: Float64Array;
  /** Scores by class and bin, computed now and then. */
  readonly #scores: Float64Array;
  #events = 0;

  constructor(classes: number) {
    this.#classes = classes;
    this.#entered = new Float64Array(classes).fill(2 * prior * bins);
    this.#read = new Float64Array(classes * bins).fill(prior);
    this.#scores = new Float64Array(classes * bins);
    this.#tabulate();
  }

  /** A chunk came into this class. */
  enters(chunkClass: number): void {
    this.#entered[chunkClass]! += 1; // one per class
    this.#events += 1;
    if (this.#events % eventsPerHalving === 0) this.#halve();
    if (this.#events % eventsPerTable === 0) this.#tabulate();
  }

  /** A chunk of this class was read `ageMs` after it was touched last. */
  isRead(chunkClass: number, ageMs: number): void {
    this.#read[chunkClass * bins + binOf(ageMs)]! += 1; // `bins` per class
  }

  score(chunkClass: number, ageMs: number): number {
    return this.#scores[chunkClass * bins + binOf(ageMs)]!; // `bins` per class
  }

  #halve(): void {
    for (const counts of [this.#entered, this.#read]) for (let i = 0; i < counts.length; i += 1) counts[i]! /= 2;
  }

  #tabulate(): void {
    for (let c = 0; c < this.#classes; c += 1) {
      let waiting = this.#entered[c]! + 1;
      for (let bin = 0; bin < bins; bin += 1) {
        this.#scores[c * bins + bin] = this.#expected(c, bin) / Math.max(1, waiting);
        waiting -= this.#read[c * bins + bin]!;
      }
    }
  }

  #expected(chunkClass: number, from: number): number {
    let sum = 0;
    for (let bin = from; bin < bins; bin += 1)
      sum += this.#read[chunkClass * bins + bin]! / Math.max(1, middles[bin]! - starts[from]! + nearSeconds);
    return sum;
  }
}

/** Seconds at which bins begin, and their middles. */
const starts = Float64Array.from({ length: bins }, (_, bin) => 2 ** (bin / 2) - 1);
const middles = Float64Array.from({ length: bins }, (_, bin) => 2 ** ((bin + 0.5) / 2) - 1);

function binOf(ageMs: number): number {
  return Math.min(bins - 1, Math.floor(2 * Math.log2(1 + Math.max(0, ageMs) / 1000)));
}
