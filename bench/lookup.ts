/**
 * What does it cost to ask whether a long prompt is known? A 32,000-token prompt that is fully present, looked up in the
 * cache's own process and from another one through the unix socket, as engines do.
 *
 *     npm run bench -- lookup
 *
 * The plain comparison of the same tokens in the same run says what no lookup that is exact can be faster than.
 */
import { fork } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { bareRoot } from "../src/identity/keys.ts";
import { Cache } from "../src/cache/cache.ts";
import type { CacheSession } from "../src/session.ts";
import { connectCache } from "../src/wire/guest/link.ts";
import { WireServer } from "../src/wire/cache/server.ts";
import { counting, save, temporaryFolder, testPool, testSpace, wait } from "../test/support/cache.ts";
import { microseconds, printLine, timesOf } from "./support/timing.ts";

const promptTokens = 32_000;
const chunkTokens = 64;
const rounds = 1000;
const payloadBytes = 512;

const tokens = counting(promptTokens);
const session = { space: testSpace({ chunkTokens }), rank: 0, slotBytes: [4096] };
const [, , role, socketPath = ""] = process.argv;
await (role === "host" ? host() : measure());

async function measure(): Promise<void> {
  const { cache, own } = await openFilledCache();
  const inProcess = await timesOf(rounds, () => mustHit(own));
  await cache.close();

  using folder = temporaryFolder();
  const path = join(folder.path, "cache.sock");
  const child = fork(process.argv[1] ?? "", ["host", path]);
  await once(child, "message");
  const remote = await connectCache({ ...session, socketPath: path });
  const throughSocket = await timesOf(rounds, () => mustHit(remote));
  await remote.close();
  child.send("end");
  await once(child, "exit");

  const copy = tokens.slice();
  const comparison = await timesOf(rounds, () => Buffer.compare(bytesOf(tokens), bytesOf(copy)));
  printLine(
    "lookup",
    {
      inProcess: microseconds(inProcess),
      throughSocket: microseconds(throughSocket),
      plainComparison: microseconds(comparison),
    },
    { promptTokens, chunkTokens, hitTokens: promptTokens, rounds },
  );
}

/** The cache in a process of its own, until it is told to end. */
async function host(): Promise<void> {
  const { cache } = await openFilledCache();
  const server = await WireServer.listen({ socketPath, cache });
  process.send?.("listening");
  await once(process, "message");
  await server[Symbol.asyncDispose]();
  await cache.close();
  process.disconnect();
}

async function openFilledCache(): Promise<{ cache: Cache; own: CacheSession }> {
  const pool = testPool();
  const cache = await Cache.open({ pool });
  const own = cache.openSession(session);
  await save(own, pool, tokens, { bytes: payloadBytes });
  return { cache, own };
}

async function mustHit(asked: CacheSession): Promise<void> {
  const { hitTokens } = await asked.lookup(bareRoot, tokens, wait);
  if (hitTokens !== promptTokens) throw new Error(`${hitTokens} of ${promptTokens} tokens were found`);
}

function bytesOf(text: Uint32Array): Uint8Array {
  return new Uint8Array(text.buffer, text.byteOffset, text.byteLength);
}
