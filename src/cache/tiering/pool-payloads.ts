/** A chunk's payloads in the pool, as tiers write and read them. */
import { ownedLog, type PartMemory, type RecordId, type Tier } from "../../tier.ts";
import type { ChunkId } from "../index/chunk-id.ts";
import type { ChunkStore } from "../pool/chunk-store.ts";
import { padded } from "../../pages.ts";

/** The payload of a part that the chunk has not. */
const nothing = new Uint8Array();

/** The payloads of a chunk that has all of them in the pool and is held. */
export function payloadsOf(store: ChunkStore, chunk: ChunkId): Uint8Array[] {
  return store.chunks.payloadBytes(chunk).map((bytes, part) => payload(store, chunk, { part, bytes }));
}

/** The same of parts that are to be read into their slots; undefined for those that are not. */
export function payloadsToRead(store: ChunkStore, chunk: ChunkId, parts: readonly number[]): PartMemory {
  return store.chunks
    .payloadBytes(chunk)
    .map((bytes, part) => (parts.includes(part) ? payload(store, chunk, { part, bytes }) : undefined));
}

/** With what pads it to whole pages: slots are whole pages, so that is always there, and the tiers' to use. */
function payload(
  { chunks, pool }: ChunkStore,
  chunk: ChunkId,
  { part, bytes }: { part: number; bytes: number },
): Uint8Array {
  if (bytes === 0) return nothing;
  return pool.view(chunks.slot(chunk, part)!, padded(bytes)); // it has one
}

/** A log has computed the payloads' checksums: the pool notes them, for whoever adopts it after a crash. */
export function sealPayloads(store: ChunkStore, chunk: ChunkId, { tier, id }: { tier: Tier; id: RecordId }): void {
  const checksums = ownedLog(tier)?.checksums(id);
  if (checksums !== undefined) store.seal(chunk, checksums);
}
