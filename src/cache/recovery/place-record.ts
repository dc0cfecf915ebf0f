/** Puts what a tier has of a chunk into the index, where the chunk stands. */
import type { ChunkKey } from "../../identity/keys.ts";
import type { FoundRecord, Tier } from "../../tier.ts";
import type { ChunkId } from "../index/chunk-id.ts";
import type { StoredChunks } from "../index/stored-chunk.ts";
import type { ChunkStore } from "../pool/chunk-store.ts";

/**
 * @returns `"needless"` when the chunk is being written, what is stored of it has other lengths, or the tier has a record of it
 *   that is as good
 */
export function placeRecord(
  store: ChunkStore,
  chunk: ChunkId,
  { tier, key, record }: { tier: Tier; key: ChunkKey; record: FoundRecord },
): "placed" | "needless" {
  const { chunks, records } = store;
  const { id, payloadBytes } = record;
  const stored = records.of(chunk, tier);
  if (stored === id) return "placed"; // it was found ahead of its turn
  if (!chunks.isVisible(chunk)) {
    if (stored !== undefined || chunks.hasSlots(chunk)) return "needless"; // a guest is writing it
    store.fill(chunk);
    chunks.setKey(chunk, key);
    setBytes(chunks, chunk, payloadBytes);
    records.add(chunk, tier, id);
    store.stored(chunk, "recovered");
  } else {
    // Adopted in the pool or saved anew: what is in memory counts. Or a rewrite that a crash cut short.
    const has = compared(chunks, chunk, payloadBytes);
    const isBetter = stored === undefined || (has !== "fewer" && (has === "more" || records.isLacking(chunk, tier)));
    if (has === "other" || !isBetter) return "needless";
    if (has === "more") {
      chunks.lackSnapshot(chunk);
      setBytes(chunks, chunk, payloadBytes);
    }
    if (stored === undefined) records.add(chunk, tier, id);
    else records.replace(chunk, tier, id);
    if (has === "fewer") records.lack(chunk, tier);
  }
  store.supersede(chunk);
  return "placed";
}

function setBytes(chunks: StoredChunks, chunk: ChunkId, payloadBytes: readonly number[]): void {
  for (const [part, bytes] of payloadBytes.entries()) chunks.setBytes(chunk, part, bytes);
}

/** What a record has, beside what is stored of a chunk: snapshots may be all that it has more, or fewer. */
function compared(
  chunks: StoredChunks,
  chunk: ChunkId,
  payloadBytes: readonly number[],
): "the same" | "more" | "fewer" | "other" {
  let more = false;
  let fewer = false;
  for (const [part, bytes] of payloadBytes.entries()) {
    const stored = chunks.bytes(chunk, part);
    if (bytes === stored) continue;
    if (!chunks.isSnapshot(chunk, part)) return "other";
    if (bytes === 0) fewer = true;
    else if (stored === 0 && chunks.slot(chunk, part) === undefined) more = true;
    else return "other";
  }
  if (more && fewer) return "other";
  return more ? "more" : fewer ? "fewer" : "the same";
}
