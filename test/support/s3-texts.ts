/** Texts of many small chunks for a tier, and what a tier has of them. */
import { randomBytes } from "node:crypto";
import type { ChunkRecord, RecordId, Tier } from "../../src/tier.ts";
import { isRunEnd } from "../../src/tiers/s3/run-ends.ts";
import { askedKeys, noSignal, recordOf } from "../../src/tiers/tier-suite.ts";

export interface Text {
  readonly records: readonly ChunkRecord[];
  readonly payloads: readonly (readonly Uint8Array[])[];
}

let token = 0;

/** @param before the text that it goes on from; `hasEnds` false: no chunk of it ends a run */
export function textOf(
  chunks: number,
  { before, bytes = 1000, hasEnds = true }: { before?: Text; bytes?: number; hasEnds?: boolean } = {},
): Text {
  const records = [...(before?.records ?? [])];
  const payloads = [...(before?.payloads ?? [])];
  for (let i = 0; i < chunks; i += 1) {
    const each = [randomBytes(bytes), randomBytes(10)];
    payloads.push(each);
    const next = () => recordOf(Uint32Array.from([(token += 1), token]), each, records.at(-1));
    let record = next();
    while (isRunEnd(record.key) && !hasEnds) record = next(); // oxlint-disable-line no-unmodified-loop-condition -- the key changes
    records.push(record);
  }
  return { records, payloads };
}

export function partOf({ records, payloads }: Text, from: number, to: number): Text {
  return { records: records.slice(from, to), payloads: payloads.slice(from, to) };
}

/** As a cache writes: all at once, in order. */
export function writeText(tier: Tier, { records, payloads }: Text): Promise<(RecordId | "rejected")[]> {
  return Promise.all(records.map((record, i) => tier.write(record, payloads[i]!, noSignal)));
}

/** Looks a text up from a chunk on, and reads all that is found. @returns how many chunks were right */
export async function readText(tier: Tier, { records, payloads }: Text, from = 0): Promise<number> {
  const { space, root } = records[0]!;
  const keys = askedKeys(records.slice(from));
  const found = await tier.find(space, root, keys, noSignal);
  const right = await Promise.all(
    found.map(async ({ id, payloadBytes }, i) => {
      const into = payloadBytes.map((length) => new Uint8Array(length));
      if ((await tier.read(id, keys[i]!, into, noSignal)) === "gone") return false;
      if (into.some((bytes, part) => Buffer.compare(bytes, payloads[from + i]![part]!) !== 0))
        throw new Error(`chunk ${i} has other bytes`);
      return true;
    }),
  );
  const wrong = right.indexOf(false);
  return wrong === -1 ? right.length : wrong;
}
