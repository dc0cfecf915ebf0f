/**
 * What a chunk costs the index: memory per chunk of 64 tokens, and the time to add and to find one.
 *
 *     npm run bench -- index-memory [--chunks 1000000] [--depth 100] [--json FILE]
 *
 * Every chunk has all that one can have: its tokens, its key, a slot in the pool, an entry with the eviction policy and a
 * record in a tier below. Texts are `--depth` chunks long, so that the root has chunks/depth children. The pool and the
 * tier count and hold nothing; what is measured is the process's memory beyond what it had before.
 */
import { writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { CountingPool } from "./eviction/counting-pool.ts";
import { CountingTier } from "./index-memory/counting-tier.ts";
import { Cache } from "../src/cache/cache.ts";
import { bareRoot } from "../src/identity/keys.ts";
import { type Tokens } from "../src/identity/tokens.ts";
import { testSpace } from "../test/support/cache.ts";

const { values } = parseArgs({
  options: {
    chunks: { type: "string", default: "1000000" },
    depth: { type: "string", default: "100" },
    json: { type: "string" },
  },
});
const chunks = Number(values.chunks);
const depth = Number(values.depth);
const wait = { deadlineMs: 60_000 };

await using cache = await Cache.open({
  pool: new CountingPool(chunks),
  tiers: [new CountingTier()],
  writeBehindBytes: depth,
});
const session = cache.openSession({ space: testSpace({ chunkTokens: 64 }), rank: 0, slotBytes: [1] });
await store(textOf(-1));
collect();
const before = process.memoryUsage();
let addedMs = 0;
let slowestMs = 0;
for (let text = 0; text < Math.floor(chunks / depth) - 1; text += 1) {
  const tokens = textOf(text);
  const started = performance.now();
  await store(tokens);
  const took = performance.now() - started;
  addedMs += took;
  slowestMs = Math.max(slowestMs, took);
}
await cache.flush();
collect();
const after = process.memoryUsage();
const { chunks: indexed, evictedChunks, tiers } = cache.stats();
const lookups: number[] = [];
for (let i = 0; i < 2000; i += 1) {
  const tokens = textOf((i * 7919) % (Math.floor(chunks / depth) - 1));
  const lookupStarted = performance.now();
  const { hitTokens } = await session.lookup(bareRoot, tokens, wait);
  lookups.push((performance.now() - lookupStarted) * 1000);
  if (hitTokens !== tokens.length) throw new Error(`${hitTokens} of ${tokens.length} tokens were found`);
}
const added = indexed - depth;
const result = {
  chunks: indexed,
  records: tiers.disk?.records,
  evictedChunks,
  rssBytesPerChunk: Math.round((after.rss - before.rss) / added),
  heapBytesPerChunk: Math.round((after.heapUsed - before.heapUsed) / added),
  arrayBytesPerChunk: Math.round((after.arrayBuffers - before.arrayBuffers) / added),
  rssMiB: Math.round(after.rss / 2 ** 20),
  addMicrosPerChunk: Number(((addedMs * 1000) / added).toFixed(1)),
  slowestTextMs: Number(slowestMs.toFixed(1)),
  lookupMicrosMedian: Math.round(lookups.toSorted((a, b) => a - b)[1000]!), // 2000 of them
};
console.log(JSON.stringify(result, null, 2));
if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(result, null, 2)}\n`);

async function store(tokens: Tokens): Promise<void> {
  const { parts: reserved } = await session.reserve(bareRoot, tokens, wait);
  await session.commit(
    reserved.map(({ lease }) => ({ lease, bytes: 1 })),
    wait,
  );
}

function textOf(text: number): Tokens {
  const tokens = new Uint32Array(depth * 64);
  for (let i = 0; i < tokens.length; i += 1) tokens[i] = Math.imul(text + 2, 2_654_435_761 + i) >>> 14;
  return tokens;
}

function collect(): void {
  setFlagsFromString("--expose-gc");
  const gc = runInNewContext("gc") as () => void; // what the flag makes there
  gc();
  gc();
}
