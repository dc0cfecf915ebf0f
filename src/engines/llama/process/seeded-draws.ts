/**
 * Random numbers from a request's seed: sfc32, as small and fast as the work needs, and the same everywhere.
 */
export class SeededDraws {
  #a: number;
  #b = 0;
  #c = 0x9e3779b9 | 0;
  #counter = 1;

  /** @param seed unsigned, 32 bits */
  constructor(seed: number) {
    this.#a = seed | 0;
    for (let i = 0; i < 12; i += 1) this.#word(); // until near seeds are far apart
  }

  /** From 0 up to, not including, 1, in steps of 2^-53. */
  next(): number {
    const high = this.#word() >>> 5;
    const low = this.#word() >>> 6;
    return (high * 2 ** 26 + low) / 2 ** 53;
  }

  #word(): number {
    const word = (this.#a + this.#b + this.#counter) | 0;
    this.#counter = (this.#counter + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = (((this.#c << 21) | (this.#c >>> 11)) + word) | 0;
    return word;
  }
}
