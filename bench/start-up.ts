/**
 * How long does a cache take to start over a full disk, and whom does it keep waiting? A directory of ten million chunks of
 * 64 tokens is made, then a process of its own starts over it and is asked for two texts every 20 ms until all is back: one
 * that nobody has stored and, once the records are known, one that lies somewhere on the disk.
 *
 *     npm run bench -- start-up [--directory DIR] [--chunks 10000000] [--depth 100]
 *
 * The regions have their headers and contents, and holes where records would lie: a start after an orderly end reads nothing
 * else, and ten million records would take 80 GB. What is made takes 0.6 GB of disk a million chunks.
 */
import { execFileSync, fork } from "node:child_process";
import { closeSync, fsyncSync, mkdtempSync, openSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { CountingPool } from "./eviction/counting-pool.ts";
import { distributionOf } from "../src/bench/summary.ts";
import { Cache } from "../src/cache/cache.ts";
import { bareRoot, chunkKeys, rootKey } from "../src/identity/keys.ts";
import { type Tokens } from "../src/identity/tokens.ts";
import { spaceId } from "../src/identity/space.ts";
import { alignedBuffer } from "../src/tiers/disk/aligned.ts";
import { pageBytes } from "../src/pages.ts";
import { ContentsBuilder } from "../src/tiers/disk/contents.ts";
import { DiskTier } from "../src/tiers/disk/disk-tier.ts";
import { encodeHeader, headerLength, recordBytes } from "../src/tiers/disk/record.ts";
import { encodeRegionHeader, newNonce, regionName } from "../src/tiers/disk/region.ts";
import { testSpace } from "../test/support/cache.ts";
import { answerOf } from "./support/child.ts";
import { printLine, rounded } from "./support/timing.ts";

const { values } = parseArgs({
  options: {
    role: { type: "string", default: "maker" },
    directory: { type: "string", default: tmpdir() },
    chunks: { type: "string", default: "10000000" },
    depth: { type: "string", default: "100" },
  },
});
const chunks = Number(values.chunks);
const depth = Number(values.depth);
const texts = Math.ceil(chunks / depth);
const chunkTokens = 64;
const regionBytes = 256 * 1024 * 1024;
const space = testSpace({ chunkTokens });
const wait = { deadlineMs: 10_000 };

if (values.role === "starter") await start();
else await make();

async function make(): Promise<void> {
  const directory = mkdtempSync(join(values.directory, "reprise-bench-start-up-"));
  try {
    const regions = makeRegions(directory);
    execFileSync("sync");
    const args = ["--role", "starter", "--directory", directory, "--chunks", values.chunks, "--depth", values.depth];
    const starter = fork(fileURLToPath(import.meta.url), args);
    const figures = (await answerOf(starter)) as object; // made below
    printLine("start-up", figures, { directory: values.directory, chunks, depth, regions });
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** As an orderly end leaves them. @returns how many there are */
function makeRegions(directory: string): number {
  const root = rootKey(spaceId(space), bareRoot);
  const page = alignedBuffer(pageBytes);
  let [text, number] = [0, 0];
  while (text < texts) {
    number += 1;
    const contents = new ContentsBuilder();
    const nonce = newNonce();
    let end = pageBytes;
    for (; text < texts && end < regionBytes; text += 1) {
      const tokens = tokensOf(text);
      const keys = chunkKeys(root, tokens, chunkTokens);
      for (const [i, key] of keys.entries()) {
        const record = {
          space: spaceId(space),
          root,
          key,
          parent: i === 0 ? root : keys[i - 1]!, // the one before
          firstToken: i * chunkTokens,
          tokens: tokens.subarray(i * chunkTokens, (i + 1) * chunkTokens),
          payloadBytes: [1],
        };
        const totalBytes = recordBytes(record);
        const header = encodeHeader(page, record, [0n], { nonce, offset: end }, { writtenAt: Date.now(), reads: 0 });
        contents.reserve(record.space, headerLength(record));
        contents.add({ ...record, offset: end, totalBytes, header: Buffer.from(header) });
        end += totalBytes;
      }
    }
    const file = openSync(join(directory, regionName(number)), "wx", 0o600);
    encodeRegionHeader(page, { number, nonce });
    writeSync(file, page, 0, pageBytes, 0);
    const bytes = contents.encode(end, nonce);
    writeSync(file, bytes, 0, bytes.length, end);
    fsyncSync(file);
    closeSync(file);
  }
  return number;
}

async function start(): Promise<void> {
  const startedAt = performance.now();
  const elapsed = () => performance.now() - startedAt;
  const tier = await DiskTier.open({
    drives: [{ directory: values.directory, capacityBytes: 4 * 2 ** 40 }],
    scrubBytesPerSecond: 0,
  });
  await using cache = await Cache.open({ pool: new CountingPool(1000), tiers: [tier] });
  const session = cache.openSession({ space, rank: 0, slotBytes: [1] });
  const servesMs = elapsed();
  let recordsKnownMs: number | undefined;
  const back = new AbortController();
  const everythingIsBack = cache.recovered(3_600_000).then(() => {
    back.abort();
    return elapsed();
  });
  const nobodys = tokensOf(-1);
  const missed: number[] = [];
  const hit: number[] = [];
  for (let asked = 0; !back.signal.aborted; asked += 1) {
    missed.push(await timed(nobodys, 0));
    if (!tier.stats().recovering) {
      recordsKnownMs ??= elapsed();
      hit.push(await timed(tokensOf((asked * 7919) % texts), depth * chunkTokens));
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  const everythingIsBackMs = await everythingIsBack;
  process.send!({
    servesMs: rounded(servesMs),
    recordsKnownMs: rounded(recordsKnownMs ?? everythingIsBackMs),
    everythingIsBackMs: rounded(everythingIsBackMs),
    meanwhileMs: { miss: figures(missed), hit: figures(hit) },
    rssMiB: Math.round(process.memoryUsage().rss / 2 ** 20),
  }); // it was forked
  process.disconnect();

  async function timed(tokens: Tokens, expected: number): Promise<number> {
    const askedAt = performance.now();
    const { hitTokens } = await session.lookup(bareRoot, tokens, wait);
    if (hitTokens !== expected) throw new Error(`${hitTokens} tokens were found of ${expected}`);
    return performance.now() - askedAt;
  }
}

function figures(of: readonly number[]): object {
  const distribution = distributionOf(of);
  if (distribution === undefined) return { count: 0 };
  const { p50, p99 } = distribution;
  return { count: of.length, p50: rounded(p50), p99: rounded(p99), max: rounded(Math.max(...of)) };
}

/** Of one text, whole chunks. */
function tokensOf(text: number): Tokens {
  return Uint32Array.from(
    { length: depth * chunkTokens },
    (_, i) => Math.imul(text * 7919 + i + 1, 2_654_435_761) >>> 15,
  );
}
