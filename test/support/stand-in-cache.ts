/** Chunks by key, as a host's cache gives them to others: what they are and how many are being read is the test's to say and to see. */
import type { ChunkInReading } from "../../src/cache/sessions/reads-by-key.ts";
import type { ChunkKey } from "../../src/identity/keys.ts";
import type { ReadCache } from "../../src/peers/serving/peer-connection.ts";
import type { ChunkRecord } from "../../src/tier.ts";

export class StandInCache implements ReadCache {
  readonly chunks = new Map<ChunkKey, { record: ChunkRecord; payloads: readonly Uint8Array[] }>();
  leases = 0;

  reads() {
    let held = 0;
    const letGo = (leases: number) => {
      this.leases -= leases;
      held -= leases;
    };
    return {
      find: (space: string, root: string, keys: Iterable<ChunkKey>) => {
        const found: (readonly number[])[] = [];
        for (const key of keys) {
          const chunk = this.chunks.get(key);
          if (chunk === undefined || chunk.record.space !== space || chunk.record.root !== root) break;
          found.push(chunk.record.payloadBytes);
        }
        return found;
      },
      read: (key: ChunkKey): ChunkInReading | undefined => {
        const chunk = this.chunks.get(key);
        if (chunk === undefined) return undefined;
        letGo(-1);
        return {
          payloadBytes: chunk.record.payloadBytes,
          isInPool: () => true,
          payload: (part) => Promise.resolve(chunk.payloads[part]),
          checksum: () => undefined,
          noteChecksum: () => {},
          release: () => letGo(Math.min(1, held)), // as the cache does: none is left when the connection has ended
        };
      },
      close: () => letGo(held),
    };
  }
}
