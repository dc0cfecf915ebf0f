/** A tier that numbers its records and keeps nothing: for measurements of what the cache itself keeps. */
import type { Compacted, FoundRecord, LogTier, RecordBatch, RecordId, TierStats } from "../../src/tier.ts";

export class CountingTier implements LogTier {
  readonly name = "disk";
  #records = 0;

  async *recover(): AsyncGenerator<RecordBatch, void, void> {}

  find(): Promise<readonly FoundRecord[]> {
    return Promise.resolve([]);
  }

  has(): boolean {
    return true;
  }

  write(): Promise<RecordId> {
    this.#records += 1;
    return Promise.resolve(this.#records as RecordId); // its numbers are its names
  }

  read(): Promise<"gone"> {
    return Promise.resolve("gone");
  }

  checksums(): undefined {}

  countHit(): void {}

  drop(): void {
    this.#records -= 1;
  }

  clear(): Promise<void> {
    this.#records = 0;
    return Promise.resolve();
  }

  compact(): Promise<Compacted> {
    return Promise.resolve({ freedBytes: {}, movedBytes: {} });
  }

  async flush(): Promise<void> {}

  stats(): TierStats {
    return { records: this.#records, usedBytes: 0, capacityBytes: 0, corruptRecords: 0 };
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}
