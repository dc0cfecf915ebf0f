/**
 * Which tokens may be drawn, and which one is: over all logits of a vocabulary, of which nothing is sorted but what lies around a
 * filter's edge.
 *
 *     logits   │ block │ block │ block │ …      the highest of each block: a filter's edge leaves most of them out
 *     buckets  │ max │ a sixteenth of a unit below │ … │ all the rest      what top-k counts, and top-p weighs
 *              └───────── kept ─────────┤ edge: sorted ├──── not
 *
 * llama.cpp's samplers keep the same tokens, up to the rounding of its floats; where many are likely they take three times as long.
 * What is kept stays in the order of the vocabulary: a logit's last bit does not move what others have of the draw.
 */
import type { Sampling } from "../../../engine.ts";
import { addCounts, addMasses, bucketCount, bucketOf, leastOf, massOf, placeOf } from "./softmax.ts";

export type Filters = Pick<Sampling, "topK" | "topP" | "minP">;

/** In smaller ones the processor guesses wrong too often which logit is higher; in larger ones too much is looked at again. */
const blockTokens = 512;

/** Room to choose in, for one choice at a time. */
export class Candidates {
  readonly #blockMax: Float32Array;
  readonly #blockMass: Float64Array;
  readonly #bucketSums = new Float64Array(bucketCount);
  /** What is kept: ids in ascending order, and their logits. */
  readonly #ids: Int32Array;
  readonly #logits: Float32Array;
  #count = 0;
  readonly #edge: Float32Array;

  constructor(vocabularySize: number) {
    const blocks = Math.ceil(vocabularySize / blockTokens);
    this.#blockMax = new Float32Array(blocks);
    this.#blockMass = new Float64Array(blocks);
    this.#ids = new Int32Array(vocabularySize);
    this.#logits = new Float32Array(vocabularySize);
    this.#edge = new Float32Array(vocabularySize);
  }

  /** The token of the highest logit; of equal ones, the first. */
  likeliest(logits: Float32Array): number {
    const max = this.#survey(logits);
    const block = this.#blockMax.indexOf(max);
    return Math.max(0, logits.indexOf(max, block * blockTokens)); // logits of a broken model may be no numbers
  }

  /** Draws one of the tokens that the filters leave. @param share where in the probabilities, from 0 up to, not including, 1 */
  draw(logits: Float32Array, filters: Filters, temperature: number, share: number): number {
    const max = this.#survey(logits);
    const isFiltered = filters.topK > 0 || filters.topP < 1 || filters.minP > 0;
    const drawn = isFiltered
      ? this.#drawKept(logits, filters, { max, temperature, share })
      : this.#drawAny(logits, { max, temperature, share });
    return drawn ?? this.likeliest(logits); // rounding may leave a share behind the last one, and a broken model no numbers
  }

  /** What the filters leave, in ascending order. */
  kept(logits: Float32Array, filters: Filters): Int32Array {
    this.#keep(logits, filters, this.#survey(logits));
    return this.#ids.slice(0, this.#count);
  }

  #drawAny(logits: Float32Array, { max, temperature, share }: Draw): number | undefined {
    const run = (block: number) => {
      const from = block * blockTokens;
      return { logits, from, to: Math.min(from + blockTokens, logits.length), max, temperature };
    };
    let total = 0;
    for (let block = 0; block < this.#blockMass.length; block += 1) {
      const mass = massOf(run(block));
      this.#blockMass[block] = mass;
      total += mass;
    }
    let left = share * total;
    for (const [block, mass] of this.#blockMass.entries()) {
      if (left < mass) {
        const token = placeOf(run(block), left);
        return token === -1 ? undefined : token;
      }
      left -= mass;
    }
    return undefined;
  }

  #drawKept(logits: Float32Array, filters: Filters, { max, temperature, share }: Draw): number | undefined {
    this.#keep(logits, filters, max);
    const run = { logits: this.#logits, from: 0, to: this.#count, max, temperature };
    const place = placeOf(run, share * massOf(run));
    return place === -1 ? undefined : this.#ids[place];
  }

  /** Top-k, then top-p of what it leaves, then min-p. */
  #keep(logits: Float32Array, { topK, topP, minP }: Filters, max: number): void {
    const least = minP > 0 ? max + Math.log(minP) : -Infinity;
    if (topK > 0 && topK < logits.length) {
      // As many blocks have a token that is as high.
      const isFew = topK <= this.#blockMax.length;
      if (isFew) this.#gather(logits, this.#blockMax.toSorted().at(-topK)!);
      const edge = this.#edgeOf(isFew ? this.#keptLogits : logits, max, { weigh: false, upTo: topK });
      if (!isFew) this.#gather(logits, leastOf(edge.bucket, max));
      this.#cut(edge, max);
      if (topP < 1) this.#cut(this.#edgeOf(this.#keptLogits, max, { weigh: true, upTo: topP }), max);
      this.#drop(least, this.#count);
    } else if (topP < 1) {
      const edge = this.#edgeOf(logits, max, { weigh: true, upTo: topP });
      this.#gather(logits, leastOf(edge.bucket, max));
      this.#cut(edge, max);
      this.#drop(least, this.#count);
    } else this.#gather(logits, least);
  }

  get #keptLogits(): Float32Array {
    return this.#logits.subarray(0, this.#count);
  }

  /** Notes the highest logit of each block. @returns that of all */
  #survey(logits: Float32Array): number {
    let max = -Infinity;
    for (let block = 0, from = 0; from < logits.length; block += 1, from += blockTokens) {
      const to = Math.min(from + blockTokens, logits.length);
      // Four at a time, which do not wait for one another: less than half the time.
      let a = -Infinity;
      let b = -Infinity;
      let c = -Infinity;
      let d = -Infinity;
      let token = from;
      for (; token + 3 < to; token += 4) {
        const e = logits[token]!;
        const f = logits[token + 1]!;
        const g = logits[token + 2]!;
        const h = logits[token + 3]!;
        if (e > a) a = e;
        if (f > b) b = f;
        if (g > c) c = g;
        if (h > d) d = h;
      }
      for (; token < to; token += 1) if (logits[token]! > a) a = logits[token]!;
      const highest = Math.max(a, b, c, d);
      this.#blockMax[block] = highest;
      if (highest > max) max = highest;
    }
    return max;
  }

  /** Keeps the tokens that have this logit at least, and a probability at all. */
  #gather(logits: Float32Array, least: number): void {
    const ids = this.#ids;
    const kept = this.#logits;
    let count = 0;
    for (let block = 0, from = 0; from < logits.length; block += 1, from += blockTokens) {
      if (this.#blockMax[block]! < least) continue;
      const to = Math.min(from + blockTokens, logits.length);
      for (let token = from; token < to; token += 1) {
        const logit = logits[token]!;
        if (!(logit >= least) || logit === -Infinity) continue;
        ids[count] = token;
        kept[count] = logit;
        count += 1;
      }
    }
    this.#count = count;
  }

  /** Where the highest of `logits` come to what is asked for. */
  #edgeOf(logits: Float32Array, max: number, { weigh, upTo }: Limit): Edge {
    const sums = this.#bucketSums.fill(0);
    if (weigh) addMasses(sums, logits, max);
    else addCounts(sums, logits, max);
    const target = weigh ? upTo * sums.reduce((sum, each) => sum + each) : upTo;
    let [bucket, above] = [0, 0];
    while (bucket < bucketCount - 1 && above + sums[bucket]! < target) {
      above += sums[bucket]!;
      bucket += 1;
    }
    return { weigh, bucket, above, target };
  }

  /** Drops what is kept below the edge, and as much of the edge's bucket as is not needed. */
  #cut({ weigh, bucket, above, target }: Edge, max: number): void {
    let inEdge = 0;
    for (let i = 0; i < this.#count; i += 1) {
      if (bucketOf(this.#logits[i]!, max) !== bucket) continue;
      this.#edge[inEdge] = this.#logits[i]!;
      inEdge += 1;
    }
    const edge = this.#edge.subarray(0, inEdge).sort();
    const weightAt = (i: number) => (weigh ? massOf({ logits: edge, from: i, to: i + 1, max, temperature: 1 }) : 1);
    let sum = above;
    let first = inEdge;
    while (first > 0 && (sum < target || first === inEdge)) {
      first -= 1;
      sum += weightAt(first);
    }
    const least = edge[first] ?? -Infinity;
    this.#drop(least, edge.lastIndexOf(least) + 1 - first);
  }

  /** Drops what is below `least`, and of those that have it all but the first few. */
  #drop(least: number, equals: number): void {
    let [count, left] = [0, equals];
    for (let i = 0; i < this.#count; i += 1) {
      const logit = this.#logits[i]!;
      if (logit < least) continue;
      if (logit === least) {
        if (left === 0) continue;
        left -= 1;
      }
      this.#ids[count] = this.#ids[i]!;
      this.#logits[count] = logit;
      count += 1;
    }
    this.#count = count;
  }
}

/** Where in the probabilities at a temperature a token is drawn. */
interface Draw {
  readonly max: number;
  readonly temperature: number;
  readonly share: number;
}

/** So many tokens, or those that have this share of the probability. */
interface Limit {
  readonly weigh: boolean;
  readonly upTo: number;
}

/** The bucket in which a limit is reached, and what is above it. */
interface Edge {
  readonly weigh: boolean;
  readonly bucket: number;
  readonly above: number;
  readonly target: number;
}
