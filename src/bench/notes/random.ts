/**
 * Randomness from a seed: the notes, the workloads and their schedules draw from it and from nothing else, so a seed
 * gives the same run everywhere.
 */

/** sfc32, seeded with an integer below 2^53: small, fast, and equal in every language that has 32-bit integers. */
export class Random {
  #a: number;
  #b: number;
  #c = 0x9e3779b9;
  #d = 1;

  constructor(seed: number) {
    this.#a = seed >>> 0;
    this.#b = Math.floor(seed / 2 ** 32) >>> 0;
    for (let i = 0; i < 12; i++) this.below(1);
  }

  /** A whole number from 0 to limit - 1; limit is at most 2^21, so that the product is exact. */
  below(limit: number): number {
    const a = this.#a;
    const b = this.#b;
    const c = this.#c;
    const t = (a + b + this.#d) >>> 0;
    this.#a = (b ^ (b >>> 9)) >>> 0;
    this.#b = (c + (c << 3)) >>> 0;
    this.#c = (((c << 21) | (c >>> 11)) + t) >>> 0;
    this.#d = (this.#d + 1) >>> 0;
    return Math.floor((t * limit) / 2 ** 32);
  }

  /** A number from 0 up to, not including, 1. */
  fraction(): number {
    return this.below(2 ** 21) / 2 ** 21;
  }

  percent(chance: number): boolean {
    return this.below(100) < chance;
  }

  pick<T>(items: readonly T[]): T {
    // below(n) < n, and no table is empty.
    return items[this.below(items.length)] as T;
  }

  /** `count` of the items in random order, or all if there are fewer. */
  some<T>(items: readonly T[], count: number): T[] {
    const rest = [...items];
    const chosen = Math.min(count, rest.length);
    for (let i = 0; i < chosen; i++) {
      const j = i + this.below(rest.length - i);
      // i and j lie inside: j < i + (length - i).
      [rest[i], rest[j]] = [rest[j] as T, rest[i] as T];
    }
    return rest.slice(0, chosen);
  }
}

/** Seeds from here on are the benchmarks'; the shipped model learned from smaller ones. */
const FIRST_SEED = 2 ** 52;

/** The seed of a part of a run, such as the text of "user 3": parts with other names draw other numbers. */
export function seedOf(seed: number, part: string): number {
  const low = hash(`${seed}/${part}`);
  const high = hash(`${part}/${seed}/${low}`);
  return FIRST_SEED + low + (high >>> 12) * 2 ** 32;
}

/** 32-bit FNV-1a with the last steps of MurmurHash3, so that near texts have far hashes. */
function hash(text: string): number {
  let mixed = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) mixed = Math.imul(mixed ^ text.charCodeAt(i), 0x01000193);
  mixed = Math.imul(mixed ^ (mixed >>> 16), 0x85ebca6b);
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
  return (mixed ^ (mixed >>> 16)) >>> 0;
}
