/**
 * Which places of a text it is found by: of every 48 successive grams (16 tokens each) the one with the smallest hash.
 *
 *     text     │ a b c d e f g h i j k l m n o p q r s t u v …        the grams a-p, b-q, c-r …
 *     window   ╰───────── 48 grams, 63 tokens ─────────╯              its smallest is a sample
 *
 * What is a sample follows from the 63 tokens of a window alone. So a run of 63 tokens or more that stands in two texts gives
 * both the same sample at the same place, and two samples are 24 grams apart on average (minimizers: Schleimer et al. 2003,
 * Roberts et al. 2004). Windows of 16 and 32 found no more of a prompt and took 94 and 48 bytes for 64 stored tokens, not 31
 * (bench/anywhere-index.ts).
 *
 * Hashes roll over the text in two lanes of 32 bits: one orders the grams, the other names them. They are salted, so that
 * nobody can write texts whose hashes collide.
 */
import type { Tokens } from "../../identity/tokens.ts";

export const gramTokens = 16;
/** Successive grams of which one is a sample: with 49, a run of 64 tokens would hold one whole window. */
export const windowGrams = 48;
/** What comes before a text's position and decides which samples are new there: one window. */
export const windowTokens = windowGrams + gramTokens - 1;

const base1 = 0x9e3779b1 | 0;
const base2 = 0x85ebca6b | 0;
const leaving1 = power(base1, gramTokens);
const leaving2 = power(base2, gramTokens);
/** Larger than a window, and a power of two. */
const ring = 64;
const ringMask = ring - 1;
const gramMask = gramTokens - 1;

export class GramSampler {
  /** Where each sample's last token stands in the text, in order. */
  ends = new Int32Array(256);
  /** The other lane's hash of each. */
  hashes = new Int32Array(256);
  count = 0;
  /** Where the next token stands. */
  position = 0;
  readonly #salt: number;
  readonly #mixed = new Int32Array(gramTokens);
  readonly #orders = new Int32Array(ring);
  readonly #names = new Int32Array(ring);
  #start = 0;
  #lane1 = 0;
  #lane2 = 0;
  /** The smallest of the last window, and the last sample: where they end. */
  #best = 0;
  #last = 0;

  constructor(salt: number) {
    this.#salt = salt;
  }

  /** A text begins whose first token stands at `position`. */
  begin(position: number): void {
    this.#start = position;
    this.position = position;
    this.count = 0;
    this.#mixed.fill(0);
    this.#lane1 = 0;
    this.#lane2 = 0;
    this.#best = position - 1;
    this.#last = position - 1;
  }

  /** Forgets the samples so far, not the text. */
  clear(): void {
    this.count = 0;
  }

  /** The text goes on with `tokens` between `from` and `end`: the samples that they bring are added. */
  feed(tokens: Tokens, from: number, end: number): void {
    const [mixed, orders, names, salt] = [this.#mixed, this.#orders, this.#names, this.#salt];
    const firstGram = this.#start + gramTokens - 1;
    const firstWindow = this.#start + windowTokens - 1;
    let lane1 = this.#lane1;
    let lane2 = this.#lane2;
    let best = this.#best;
    let bestOrder = orders[best & ringMask]!; // unused while there is no best
    let at = this.position;
    for (let i = from; i < end; i += 1, at += 1) {
      const entering = mix(tokens[i]! ^ salt); // below the end
      const leaving = mixed[at & gramMask]!;
      mixed[at & gramMask] = entering;
      lane1 = (Math.imul(lane1, base1) + entering - Math.imul(leaving1, leaving)) | 0;
      lane2 = (Math.imul(lane2, base2) + entering - Math.imul(leaving2, leaving)) | 0;
      if (at < firstGram) continue;
      orders[at & ringMask] = lane1;
      names[at & ringMask] = lane2;
      // Of equals the last: in a text that repeats itself nothing is searched again then.
      if (lane1 <= bestOrder || at === firstGram) {
        best = at;
        bestOrder = lane1;
      } else if (best <= at - windowGrams) {
        best = at;
        bestOrder = lane1;
        for (let other = at - 1; other > at - windowGrams; other -= 1)
          if (orders[other & ringMask]! < bestOrder) {
            best = other;
            bestOrder = orders[other & ringMask]!; // within the ring
          }
      }
      if (at < firstWindow || best === this.#last) continue;
      this.#last = best;
      this.#push(best, names[best & ringMask]!); // within the ring
    }
    this.#lane1 = lane1;
    this.#lane2 = lane2;
    this.#best = best;
    this.position = at;
  }

  #push(end: number, hash: number): void {
    if (this.count === this.ends.length) {
      this.ends = longer(this.ends);
      this.hashes = longer(this.hashes);
    }
    this.ends[this.count] = end;
    this.hashes[this.count] = hash;
    this.count += 1;
  }
}

function longer(from: Int32Array): Int32Array<ArrayBuffer> {
  const to = new Int32Array(2 * from.length);
  to.set(from);
  return to;
}

function mix(value: number): number {
  const first = Math.imul(value ^ (value >>> 15), 0x2c1b3c6d);
  const second = Math.imul(first ^ (first >>> 12), 0x297a2d39);
  return second ^ (second >>> 15);
}

function power(base: number, exponent: number): number {
  let result = 1;
  for (let i = 0; i < exponent; i += 1) result = Math.imul(result, base);
  return result;
}
