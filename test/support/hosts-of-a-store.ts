/**
 * Two caches over one shared store, each behind a socket of its own, for tests of guests in other languages:
 *
 *     node scripts/run-ts.mjs test/support/hosts-of-a-store.ts FIRST_SOCKET SECOND_SOCKET
 *
 * Prints "ready" when they listen, and ends with its standard input. Each line there is answered with one:
 *
 *     hold     from now on the store does not tell the second what it has      held
 *     open     now it does                                                     opened
 *     asked    how often the second has asked the store                        a number
 *     flush    the first has written all it has to the store                   flushed
 */
import { createInterface } from "node:readline";
import { Cache } from "../../src/cache/cache.ts";
import { WireServer } from "../../src/wire/cache/server.ts";
import { testPool } from "./cache.ts";
import { gated } from "./late-tier.ts";
import { SharedStore, SharedTier } from "./shared-tier.ts";

const store = new SharedStore();
const [first, second] = [new SharedTier(store, "valkey"), new SharedTier(store, "valkey")];
const [own, others] = await Promise.all([hostOf(first, process.argv[2]!), hostOf(second, process.argv[3]!)]); // the caller's words
let gate = gated();
process.stdout.write("ready\n");
for await (const line of createInterface({ input: process.stdin })) process.stdout.write(`${await answer(line)}\n`);
for (const { server, cache } of [own, others]) {
  await server.close();
  await cache.close();
}

async function hostOf(tier: SharedTier, socketPath: string) {
  const cache = await Cache.open({ pool: testPool(64 * 2 ** 20), tiers: [tier] });
  return { cache, server: await WireServer.listen({ cache, socketPath }) };
}

async function answer(line: string): Promise<string> {
  switch (line) {
    case "hold":
      gate = gated();
      second.beforeFind = () => gate.promise;
      return "held";
    case "open":
      gate.open();
      second.beforeFind = async () => {};
      return "opened";
    case "asked":
      return String(second.counts.finds);
    case "flush":
      await own.cache.flush();
      return "flushed";
    default:
      throw new Error(`no such word: ${line}`);
  }
}
