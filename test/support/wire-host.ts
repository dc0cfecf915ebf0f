/**
 * A cache of real parts behind a socket, as a process of its own, for tests of guests in other languages:
 *
 *     node scripts/run-ts.mjs test/support/wire-host.ts SOCKET [MEMORY_BYTES] [DISK_DIRECTORY] [TOKEN]
 *
 * Prints "ready" when it listens, and ends with its standard input.
 */
import { Cache } from "../../src/cache/cache.ts";
import { DiskTier } from "../../src/tiers/disk/disk-tier.ts";
import { WireServer } from "../../src/wire/cache/server.ts";
import { testPool } from "./cache.ts";

const [socketPath, memoryBytes, directory, token] = process.argv.slice(2);
const pool = testPool(Number(memoryBytes ?? 64 * 2 ** 20));
const tiers =
  directory === undefined || directory === ""
    ? []
    : [await DiskTier.open({ drives: [{ directory, capacityBytes: 2 ** 30 }] })];
const cache = await Cache.open({ pool, tiers });
const server = await WireServer.listen({
  cache,
  socketPath: socketPath!, // the caller's first word
  ...(token === undefined ? {} : { token }),
});
process.stdout.write("ready\n");
process.stdin.resume();
process.stdin.on("end", () => {
  void server.close().then(() => cache.close());
});
