/** A shared store in memory, and a tier over it that has the core alone, as one over a network has. */
import { probeSpace } from "../../src/cache/tiering/tier-states.ts";
import { RepriseError } from "../../src/errors.ts";
import type { ChunkKey, RootKey } from "../../src/identity/keys.ts";
import type { SpaceId } from "../../src/identity/space.ts";
import type {
  AskedKeys,
  ChunkRecord,
  FoundRecord,
  PartMemory,
  RecordId,
  Tier,
  TierName,
  TierStats,
} from "../../src/tier.ts";
import { padded } from "../../src/pages.ts";

/** What caches share: payloads by chunk. */
export class SharedStore {
  readonly records = new Map<ChunkKey, readonly Uint8Array[]>();
  readonly capacityBytes: number;

  constructor(capacityBytes = 64 * 1024 * 1024) {
    this.capacityBytes = capacityBytes;
  }

  get usedBytes(): number {
    return [...this.records.values()].flat().reduce((sum, { length }) => sum + length, 0);
  }
}

/** What a test does to a verb before it is done: waits, or throws. */
export type Delay = (signal: AbortSignal) => Promise<void>;

export class SharedTier implements Tier {
  readonly name: TierName;
  readonly #store: SharedStore;
  /** Texts that were asked for, and chunks written and read. */
  readonly counts = { finds: 0, writes: 0, reads: 0 };
  /** Of the records that were looked up last. */
  bounds: AskedKeys["bounds"];
  /** Of which one is at the start. */
  probes = 0;
  beforeProbe: Delay = async () => {};
  beforeFind: Delay = async () => {};
  beforeWrite: Delay = async () => {};
  beforeRead: Delay = async () => {};
  #lastId = 0;

  /** @param name unless given none of the table: every place must take tiers as they come. Those that travel are of the table. */
  constructor(store: SharedStore, name = "shared" as TierName) {
    this.#store = store;
    this.name = name;
  }

  async find(space: SpaceId, _root: RootKey, keys: AskedKeys, signal: AbortSignal): Promise<readonly FoundRecord[]> {
    if (space === probeSpace) {
      this.probes += 1;
      await this.beforeProbe(signal);
      return [];
    }
    this.counts.finds += 1;
    this.bounds = keys.bounds;
    await this.beforeFind(signal);
    const found: FoundRecord[] = [];
    for (const key of keys) {
      const payloads = this.#store.records.get(key);
      if (payloads === undefined) break;
      found.push({ id: this.#newId(), payloadBytes: payloads.map(({ length }) => length) });
    }
    return found;
  }

  async read(_id: RecordId, key: ChunkKey, into: PartMemory, signal: AbortSignal): Promise<"read" | "gone"> {
    this.counts.reads += 1;
    await this.beforeRead(signal);
    const payloads = this.#store.records.get(key);
    // With other parts it is another record than the one that was found.
    const isSame = payloads?.every(({ length }, part) => {
      const room = into[part]?.length ?? length;
      return room === length || room === padded(length);
    });
    if (payloads === undefined || !isSame) return "gone";
    for (const [part, payload] of payloads.entries()) {
      into[part]?.set(payload);
      into[part]?.fill(0, payload.length);
    }
    return "read";
  }

  async write(
    record: ChunkRecord,
    payloads: readonly Uint8Array[],
    signal: AbortSignal,
  ): Promise<RecordId | "rejected"> {
    const copies = payloads.map((payload, part) => payload.slice(0, record.payloadBytes[part]));
    const bytes = copies.reduce((sum, { length }) => sum + length, 0);
    if (this.#store.usedBytes + bytes > this.#store.capacityBytes) return "rejected";
    await this.beforeWrite(signal);
    this.#store.records.set(record.key, copies);
    this.counts.writes += 1;
    return this.#newId();
  }

  stats(): TierStats {
    const { records, usedBytes, capacityBytes } = this.#store;
    return { records: records.size, usedBytes, capacityBytes, corruptRecords: 0 };
  }

  async [Symbol.asyncDispose](): Promise<void> {}

  #newId(): RecordId {
    return (this.#lastId += 1) as RecordId; // reads go by the key
  }
}

/** Never done, as a host that does not answer: fails when the signal fires. */
export const unanswered: Delay = (signal) =>
  new Promise((_, reject) => {
    const fail = () => reject(new RepriseError("TIER_UNAVAILABLE", "the shared store does not answer"));
    if (signal.aborted) fail();
    signal.addEventListener("abort", fail);
  });
