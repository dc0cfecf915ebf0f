/** The peer tier passes the suite of all tiers: written into a stand-in for the other host's cache, read over TCP. */
import type { ChunkInReading } from "../../cache/sessions/reads-by-key.ts";
import type { ChunkKey } from "../../identity/keys.ts";
import type { ChunkRecord, RecordId, Tier } from "../../tier.ts";
import { tierSuite } from "../../tiers/tier-suite.ts";
import { peersOf } from "../../../test/support/peers.ts";
import { PeerServer } from "../serving/peer-server.ts";

const capacityBytes = 4 * 1024 * 1024;

/** Chunks by key, as a host's cache gives them. */
class StandIn {
  readonly chunks = new Map<ChunkKey, { record: ChunkRecord; payloads: readonly Uint8Array[] }>();

  reads() {
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
        return {
          payloadBytes: chunk.record.payloadBytes,
          isInPool: () => true,
          payload: (part) => Promise.resolve(chunk.payloads[part]),
          checksum: () => undefined,
          noteChecksum: () => {},
          release: () => {},
        };
      },
      close: () => {},
    };
  }
}

tierSuite("another host", async () => {
  const far = new StandIn();
  const server = await PeerServer.listen({ cache: far, host: "127.0.0.1", port: 0 });
  return {
    capacityBytes,
    async open(): Promise<Tier> {
      const tier = await peersOf([{ host: "127.0.0.1", port: server.port, tls: undefined, token: "" }]);
      return {
        name: tier.name,
        find: (...args) => tier.find(...args),
        read: (...args) => tier.read(...args),
        write(record, payloads) {
          if (record.payloadBytes.reduce((sum, bytes) => sum + bytes, 0) > capacityBytes)
            return Promise.resolve("rejected");
          const copies = payloads.map((payload, part) => payload.slice(0, record.payloadBytes[part]));
          far.chunks.set(record.key, { record, payloads: copies });
          return Promise.resolve((16 * far.chunks.size) as RecordId); // the first host's
        },
        stats: () => ({ ...tier.stats(), records: far.chunks.size }),
        [Symbol.asyncDispose]: () => tier[Symbol.asyncDispose](),
      };
    },
    dispose: () => server.close(),
  };
});
