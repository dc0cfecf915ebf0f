/** Tiers that give what they kept late and in an unkind order, as a slow disk may. */
import type { LogTier, RecordBatch, StoredRecord } from "../../src/tier.ts";
import { nodeFiles, type DiskFiles } from "../../src/tiers/disk/files.ts";
import { passing } from "./passing-tier.ts";

/** The tier, with what it kept given when `gate` opens, the last record first and each in a batch of its own. */
export function backwards(tier: LogTier, gate: Promise<void>): LogTier {
  return {
    ...passing(tier),
    async *recover(owner) {
      const records: StoredRecord[] = [];
      for await (const batch of tier.recover(owner)) for await (const record of batch.records()) records.push(record);
      await gate;
      for (const record of records.toReversed()) yield single(record);
    },
  };
}

/** The tier, with what it kept known at once, and given in its order when `gate` opens. */
export function halted(tier: LogTier, gate: Promise<void>): LogTier {
  return {
    ...passing(tier),
    async *recover(owner) {
      for await (const batch of tier.recover(owner)) {
        yield {
          ...batch,
          async *records() {
            await gate;
            yield* batch.records();
          },
        };
      }
    },
  };
}

/** Files in whose new ones nothing is read until `gate` opens. */
export function lateReads(gate: Promise<void>): DiskFiles {
  return {
    ...nodeFiles,
    create: async (path) => {
      const file = await nodeFiles.create(path);
      return { ...file, read: (into, position) => gate.then(() => file.read(into, position)) };
    },
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
