/** How fast a store takes what is written to it, and so how much may be on its way without coming too late. */

/** What is on its way should be there in so long: a write may take half a minute, its chunks' gathering included. */
const dueMs = 20_000;
const firstBytesPerMs = 25_000;
const leastBytes = 16 * 1024 * 1024;
const mostBytes = 1024 * 1024 * 1024;
/** What a new figure weighs. */
const weight = 0.3;

export class UploadRate {
  readonly #now: () => number;
  #bytesPerMs = firstBytesPerMs;
  #underWay = 0;
  #began = 0;
  #bytes = 0;

  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  /** Bytes that may be on their way at a time. */
  get roomBytes(): number {
    return Math.min(mostBytes, Math.max(leastBytes, this.#bytesPerMs * dueMs));
  }

  /** @returns what is to be called when it has ended, with the bytes that are stored; 0: it failed */
  begin(): (bytes: number) => void {
    if (this.#underWay === 0) [this.#began, this.#bytes] = [this.#now(), 0];
    this.#underWay += 1;
    return (bytes) => {
      this.#underWay -= 1;
      this.#bytes += bytes;
      if (bytes === 0) return;
      const rate = this.#bytes / Math.max(1, this.#now() - this.#began);
      this.#bytesPerMs += (rate - this.#bytesPerMs) * weight;
    };
  }
}
