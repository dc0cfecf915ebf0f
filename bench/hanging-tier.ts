/**
 * What do shared tiers that hang cost those who do not need them? Lookups of a 32,000-token text that is in memory, in two caches by
 * turns: one without shared tiers, one with a Valkey and another host's cache that are stopped (SIGSTOP), and an S3 that accepts
 * connections and never answers. And what a text costs that nobody has: once, and again.
 *
 *     npm run bench -- hanging-tier [--rounds 2000]
 *
 * Needs redis-server.
 */
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { percentile } from "../src/bench/statistics.ts";
import { bareRoot } from "../src/identity/keys.ts";
import { Cache } from "../src/cache/cache.ts";
import { silentLog } from "../src/log.ts";
import { parsePeerAddress } from "../src/peers/reading/address.ts";
import { PeerTier } from "../src/peers/reading/peer-tier.ts";
import type { CacheSession } from "../src/session.ts";
import { parseS3Address } from "../src/tiers/s3/address.ts";
import { S3Client } from "../src/tiers/s3/s3-client.ts";
import { S3Tier } from "../src/tiers/s3/s3-tier.ts";
import { ValueTier } from "../src/tiers/shared/value-tier.ts";
import { parseValkeyAddress } from "../src/tiers/valkey/address.ts";
import { ValkeyStore } from "../src/tiers/valkey/valkey-store.ts";
import { counting, save, testPool, testSpace, wait } from "../test/support/cache.ts";
import { startCache } from "../test/support/server.ts";
import { startStore } from "../test/support/valkey.ts";
import { printLine, rounded } from "./support/timing.ts";

const { values } = parseArgs({ options: { rounds: { type: "string", default: "2000" } } });
const rounds = Number(values.rounds);
const tokens = counting(32_000);
const session = { space: testSpace({ chunkTokens: 64 }), rank: 0, slotBytes: [4096] };

await using server = await startStore();
const maxRecordBytes = 2 ** 20;
const store = new ValkeyStore(parseValkeyAddress(`valkey://127.0.0.1:${server.port}`));
const valkey = new ValueTier({ store, keys: [], prefix: "reprise:", maxRecordBytes });
const folder = mkdtempSync(join(tmpdir(), "reprise-hanging-"));
const far = await startCache({ dataDirectory: folder, flags: ["--disk", "0", "--listen", "127.0.0.1:0"] });
const readAt = () => /read at (\S+)/.exec(far.output())?.[1];
while (readAt() === undefined) await sleep(20); // said right after it is ready
const peer = new PeerTier({ hosts: [parsePeerAddress(`peer://${readAt()}`)] });
const silent = createServer(() => {}).listen(0, "127.0.0.1");
await once(silent, "listening");
const { port } = silent.address() as AddressInfo; // it listens on a port
const bucket = parseS3Address(`s3://bucket?anonymous=yes&endpoint=http://127.0.0.1:${port}`);
const s3 = new S3Tier({ ...bucket, client: new S3Client(bucket), keys: [], maxRecordBytes });
await sleep(1000); // they are connected
const alone = await filled(await Cache.open({ pool: testPool() }));
const beside = await filled(await Cache.open({ pool: testPool(), tiers: [valkey, s3, peer], log: silentLog }));
server.process.kill("SIGSTOP");
far.signal("SIGSTOP");
try {
  const times = { alone: [] as number[], beside: [] as number[] };
  for (let round = 0; round < rounds; round += 1)
    for (const [arm, { own }] of round % 2 === 0 ? arms() : arms().toReversed())
      times[arm].push(await timed(own, tokens));
  const unknown = counting(32_000, 100_000);
  const first = await timed(beside.own, unknown);
  const again = await timed(beside.own, unknown);
  const p99 = { alone: percentile(times.alone, 0.99), beside: percentile(times.beside, 0.99) };
  printLine(
    "hanging-tier",
    {
      aloneP99Us: rounded(1000 * p99.alone),
      besideP99Us: rounded(1000 * p99.beside),
      ratio: rounded(p99.beside / p99.alone),
      unknownMs: rounded(first),
      unknownAgainMs: rounded(again),
    },
    { rounds, tokens: tokens.length },
  );
} finally {
  server.process.kill("SIGCONT");
  silent.close();
  await far.killAll();
  rmSync(folder, { recursive: true });
  await Promise.all([alone.cache.close(), beside.cache.close()]);
}

function arms(): (readonly ["alone" | "beside", { readonly own: CacheSession }])[] {
  return [
    ["alone", alone],
    ["beside", beside],
  ];
}

async function filled(cache: Cache): Promise<{ cache: Cache; own: CacheSession }> {
  const own = cache.openSession(session);
  await save(own, { view: (_offset, bytes) => new Uint8Array(bytes) }, tokens); // what the slots hold is not read
  return { cache, own };
}

async function timed(own: CacheSession, asked: Uint32Array): Promise<number> {
  const began = performance.now();
  await own.lookup(bareRoot, asked, wait);
  return performance.now() - began;
}
