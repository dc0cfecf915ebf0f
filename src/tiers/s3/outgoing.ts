/** Chunks on their way to the store: what is sent of each, sealed where there is a key, and what the index will say of it. */
import { HeadWriter } from "../shared/head.ts";
import { type TierKey, tagBytes } from "../shared/tier-keys.ts";
import type { ChunkRecord } from "../../tier.ts";
import { payloadChecksum } from "../payload-checksum.ts";

export interface Outgoing {
  readonly record: ChunkRecord;
  /** Of all payloads. */
  readonly bytes: number;
  /** Its first byte in the data object. */
  readonly offset: number;
  readonly prepared: Promise<{ readonly head: Buffer; readonly body: readonly Uint8Array[] }>;
}

const noTag = new Uint8Array(tagBytes);

export function outgoing(
  record: ChunkRecord,
  payloads: readonly Uint8Array[],
  { offset, key }: { offset: number; key: TierKey | undefined },
): Outgoing {
  return { record, bytes: bytesOf(record), offset, prepared: prepare(record, payloads, key) };
}

export function bytesOf({ payloadBytes }: ChunkRecord): number {
  return payloadBytes.reduce((sum, bytes) => sum + bytes, 0);
}

async function prepare(record: ChunkRecord, payloads: readonly Uint8Array[], key: TierKey | undefined) {
  const writer = new HeadWriter(key);
  const body: Uint8Array[] = [];
  const parts: { checksum: bigint; tag: Uint8Array }[] = [];
  for (const [part, bytes] of record.payloadBytes.entries()) {
    const payload = payloads[part]!.subarray(0, bytes); // one for each part
    const { sealed, tag } = writer.sealing?.seal(part + 1, payload, writer.id) ?? { sealed: payload, tag: noTag };
    if (bytes > 0) body.push(sealed);
    parts.push({ checksum: await payloadChecksum(payload), tag });
  }
  return { head: writer.encode(record, parts), body };
}
