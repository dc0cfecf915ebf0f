/** Caches that read from each other, in one process: each with a pool, a session, and a port where others read. */
import { Cache } from "../../src/cache/cache.ts";
import { bareRoot } from "../../src/identity/keys.ts";
import type { SpaceDescription } from "../../src/identity/space.ts";
import type { Tier } from "../../src/tier.ts";
import { MemoryPool } from "../../src/tiers/memory.ts";
import type { PeerAddress } from "../../src/peers/reading/address.ts";
import { PeerTier, type PeerTierOptions } from "../../src/peers/reading/peer-tier.ts";
import { PeerServer, type PeerServerOptions } from "../../src/peers/serving/peer-server.ts";
import { counting, loadAndVerify, save, slotBytes, testSpace, wait } from "./cache.ts";

export interface TestHost extends AsyncDisposable {
  readonly cache: Cache;
  readonly pool: MemoryPool;
  readonly server: PeerServer;
  readonly address: PeerAddress;
  /** Stores a text of so many tokens, with payloads of so many bytes. */
  save(length: number, bytes?: number, first?: number): Promise<number>;
  /** Loads it and compares every byte. @returns tokens */
  load(length: number, bytes?: number, first?: number): Promise<number>;
  hitTokens(length: number, first?: number): Promise<number>;
}

export interface TestHostOptions {
  readonly tiers?: readonly Tier[];
  readonly server?: Partial<PeerServerOptions>;
  readonly space?: Partial<SpaceDescription>;
  readonly slotBytes?: number;
  readonly poolBytes?: number;
  readonly retryMs?: number;
}

export async function startHost(options: TestHostOptions = {}): Promise<TestHost> {
  const slot = options.slotBytes ?? slotBytes;
  const pool = MemoryPool.open({ capacityBytes: options.poolBytes ?? 64 * 1024 * 1024 });
  const cache = await Cache.open({
    pool,
    tiers: options.tiers ?? [],
    foundByKey: true,
    retryMs: options.retryMs ?? 100,
  });
  const session = cache.openSession({ space: testSpace(options.space), rank: 0, slotBytes: [slot] });
  const server = await PeerServer.listen({ cache, host: "127.0.0.1", port: 0, ...options.server });
  return {
    cache,
    pool,
    server,
    address: { host: "127.0.0.1", port: server.port, tls: undefined, token: "" },
    save: (length, bytes = 512, first = 1) => save(session, pool, counting(length, first), { bytes }),
    load: (length, bytes = 512, first = 1) => loadAndVerify(session, pool, counting(length, first), { bytes }),
    hitTokens: async (length, first = 1) => (await session.lookup(bareRoot, counting(length, first), wait)).hitTokens,
    async [Symbol.asyncDispose]() {
      await server.close();
      cache.check();
      await cache.close();
    },
  };
}

/** A tier over these hosts, once all of them are there. */
export async function peersOf(
  hosts: readonly PeerAddress[],
  options: Partial<PeerTierOptions> = {},
): Promise<PeerTier> {
  const tier = new PeerTier({ hosts, reconnectMs: 20, ...options });
  await allThere(tier);
  return tier;
}

export async function allThere(tier: PeerTier): Promise<void> {
  const began = performance.now();
  while (Object.values(tier.stats().hosts).includes("away")) {
    if (performance.now() - began > 5000) throw new Error("a host is not there");
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
