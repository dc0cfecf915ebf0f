/** The peer tier passes the suite of all tiers: written into a stand-in for the other host's cache, read over TCP, also packed. */
import type { RecordId, Tier } from "../../tier.ts";
import { tierSuite } from "../../tiers/tier-suite.ts";
import { PayloadPacker } from "../../tiers/shared/packing.ts";
import { peersOf } from "../../../test/support/peers.ts";
import { StandInCache } from "../../../test/support/stand-in-cache.ts";
import { PeerServer } from "../serving/peer-server.ts";

const capacityBytes = 4 * 1024 * 1024;

for (const compress of ["none", "lossless"] as const)
  tierSuite(compress === "none" ? "another host" : "another host that packs", async () => {
    const far = new StandInCache();
    const server = await PeerServer.listen({ cache: far, host: "127.0.0.1", port: 0 });
    return {
      capacityBytes,
      async open(): Promise<Tier> {
        const address = { host: "127.0.0.1", port: server.port, tls: undefined, token: "", compress };
        const tier = await peersOf([address], { packer: PayloadPacker.open() });
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
