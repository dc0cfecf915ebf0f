/** Chunks on their way to the store: what is sent of each, and what the index will say of it. */
import type { ChunkRecord } from "../../tier.ts";
import type { PayloadPacker } from "../shared/packing.ts";
import { prepared, type PreparedRecord } from "../shared/payloads.ts";
import type { TierKey } from "../shared/tier-keys.ts";

export interface Outgoing {
  readonly record: ChunkRecord;
  /** Of all payloads, as they are in the slot. */
  readonly bytes: number;
  readonly prepared: Promise<PreparedRecord>;
}

export interface OutgoingOptions {
  /** Seals what is written. */
  readonly key: TierKey | undefined;
  /** Packs what is written; undefined: nothing is packed. */
  readonly packer: PayloadPacker | undefined;
}

export function outgoing(record: ChunkRecord, payloads: readonly Uint8Array[], options: OutgoingOptions): Outgoing {
  return { record, bytes: bytesOf(record), prepared: prepared(record, payloads, options) };
}

export function bytesOf({ payloadBytes }: ChunkRecord): number {
  return payloadBytes.reduce((sum, bytes) => sum + bytes, 0);
}
