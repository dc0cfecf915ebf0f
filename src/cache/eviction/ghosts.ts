/**
 * What is remembered of chunks that are gone, so that one that comes back is known: a table of 262,144 places, 3.4 MB.
 *
 * A place is found by 16 bits of the chunk's fingerprint; four chunks share those, and the one that left first makes way.
 * Another chunk is taken for a ghost once in some ten thousand times, which costs a little accuracy and nothing else.
 */
const sets = 2 ** 16;
const ways = 4;

export interface Ghost {
  readonly chunkClass: number;
  /** When it was touched last. */
  readonly touchedAt: number;
}

export class Ghosts {
  readonly #fingerprints = new Uint32Array(sets * ways);
  readonly #touchedAt = new Float64Array(sets * ways).fill(-Infinity);
  readonly #classes = new Uint8Array(sets * ways);

  add(fingerprint: number, { chunkClass, touchedAt }: Ghost): void {
    let place = firstOf(fingerprint);
    for (let i = place; i < firstOf(fingerprint) + ways; i += 1)
      if (this.#touchedAt[i]! < this.#touchedAt[place]!) place = i;
    this.#fingerprints[place] = fingerprint;
    this.#touchedAt[place] = touchedAt;
    this.#classes[place] = chunkClass;
  }

  /** The ghost of this fingerprint; it is one no longer. */
  take(fingerprint: number): Ghost | undefined {
    for (let i = firstOf(fingerprint); i < firstOf(fingerprint) + ways; i += 1) {
      if (this.#fingerprints[i] !== fingerprint || this.#touchedAt[i] === -Infinity) continue;
      const ghost = { chunkClass: this.#classes[i]!, touchedAt: this.#touchedAt[i]! };
      this.#touchedAt[i] = -Infinity;
      return ghost;
    }
    return undefined;
  }
}

function firstOf(fingerprint: number): number {
  return (fingerprint >>> 16) * ways;
}
