/** Tiers that give what they kept late and in an unkind order, as a slow disk may. */
import type { RecordBatch, StoredRecord, Tier } from "../../src/tier.ts";

/** The tier, with what it kept given when `gate` opens, the last record first and each in a batch of its own. */
export function backwards(tier: Tier, gate: Promise<void>): Tier {
  return {
    name: tier.name,
    async *recover(owner) {
      const records: StoredRecord[] = [];
      for await (const batch of tier.recover(owner)) for await (const record of batch.records()) records.push(record);
      await gate;
      for (const record of records.toReversed()) yield single(record);
    },
    write: (record, payloads, signal) => tier.write(record, payloads, signal),
    read: (id, key, into, signal) => tier.read(id, key, into, signal),
    checksums: (id) => tier.checksums(id),
    countHit: (id) => tier.countHit(id),
    drop: (id) => tier.drop(id),
    clear: () => tier.clear(),
    compact: (signal) => tier.compact(signal),
    flush: () => tier.flush(),
    stats: () => tier.stats(),
    [Symbol.asyncDispose]: () => tier[Symbol.asyncDispose](),
  };
}

export function gated(): { readonly promise: Promise<void>; readonly open: () => void } {
  let open = () => {};
  const promise = new Promise<void>((resolve) => (open = resolve));
  return { promise, open: () => open() };
}

function single(record: StoredRecord): RecordBatch {
  return {
    space: record.space,
    count: 1,
    async *records() {
      yield record;
    },
  };
}
