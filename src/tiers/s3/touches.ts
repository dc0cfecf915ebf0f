/**
 * Keeps what is used: an object that was used in the second half of its time is made young again, so that age alone says what may go.
 * Neither the collector nor a lifecycle rule of the bucket needs to know more.
 */
import type { S3Client } from "./s3-client.ts";

const remembered = 16_384;
/** How many at a time: there is no hurry. */
const mostUnderWay = 4;
const touchMs = 30_000;

export class Touches {
  readonly #client: Pick<S3Client, "touch">;
  readonly #ttlMs: number;
  readonly #isAllowed: boolean;
  /** When names were touched; the store may refuse, and is not asked again and again. */
  readonly #done = new Map<string, number>();
  readonly #stop = new AbortController();
  #underWay = 0;

  constructor(client: Pick<S3Client, "touch">, { ttlMs, isAllowed }: { ttlMs: number; isAllowed: boolean }) {
    this.#client = client;
    this.#ttlMs = ttlMs;
    this.#isAllowed = isAllowed;
  }

  isOld(ageMs: number): boolean {
    return ageMs > this.#ttlMs / 2;
  }

  isDead(ageMs: number): boolean {
    return ageMs > this.#ttlMs;
  }

  /** An object of this age was used. */
  used(name: string, ageMs: number): void {
    if (!this.#isAllowed || !this.isOld(ageMs) || this.#underWay >= mostUnderWay) return;
    const now = performance.now();
    if (now - (this.#done.get(name) ?? Number.NEGATIVE_INFINITY) < this.#ttlMs / 4) return;
    this.#done.delete(name);
    this.#done.set(name, now);
    for (const oldest of this.#done.keys()) {
      if (this.#done.size <= remembered) break;
      this.#done.delete(oldest);
    }
    this.#underWay += 1;
    const signal = AbortSignal.any([this.#stop.signal, AbortSignal.timeout(touchMs)]);
    const end = () => (this.#underWay -= 1);
    // Whatever comes of it: an object that was not touched goes at its time, and is a miss.
    this.#client.touch(name, signal).then(end, end);
  }

  close(): void {
    this.#stop.abort();
  }
}
