/**
 * Which eviction policy finds most in a full cache: replays traces and prints a table.
 *
 *     npm run bench -- eviction [--capacities 1000,3000] [--svg FILE] TRACE.jsonl …
 *
 * Traces are in Mooncake's format, 512 tokens a block; docs/eviction.md says where public ones are. The figures are the
 * blocks found per block asked for, in per cent, each counted only where all blocks before it are found too.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { basename } from "node:path";
import { parseArgs } from "node:util";
import { parseTrace, type TraceRequest } from "../src/bench/workloads/mooncake-trace.ts";
import { HazardPolicy } from "../src/cache/eviction/hazard-policy.ts";
import { Fifo, Lru, S3Fifo, Sieve, WindowTinyLfu } from "./eviction/block-caches.ts";
import { LeafLru } from "./eviction/leaf-lru.ts";
import { offlineHits } from "./eviction/offline-bound.ts";
import { plotOf, type TraceFigures } from "./eviction/plot.ts";
import { hitsInBlocks, hitsInCache } from "./eviction/replay.ts";

const { values, positionals } = parseArgs({
  options: { capacities: { type: "string", default: "1000,3000,6000,12000,25000" }, svg: { type: "string" } },
  allowPositionals: true,
});
if (positionals.length === 0) throw new Error("give the traces to replay: npm run bench -- eviction TRACE.jsonl …");
const capacities = values.capacities.split(",").map(Number);

type Replay = (requests: readonly TraceRequest[], capacity: number) => number | Promise<number>;

const policies: Readonly<Record<string, Replay>> = {
  FIFO: (requests, capacity) => hitsInBlocks(requests, new Fifo(capacity)),
  LRU: (requests, capacity) => hitsInBlocks(requests, new Lru(capacity)),
  SIEVE: (requests, capacity) => hitsInBlocks(requests, new Sieve(capacity)),
  "S3-FIFO": (requests, capacity) => hitsInBlocks(requests, new S3Fifo(capacity)),
  "W-TinyLFU": (requests, capacity) => hitsInBlocks(requests, new WindowTinyLfu(capacity)),
  "leaf-first LRU, in the cache": (requests, capacity) => hitsInCache(requests, capacity, new LeafLru()),
  "hazard, in the cache": (requests, capacity) => hitsInCache(requests, capacity, new HazardPolicy()),
  "offline bound": offlineHits,
};

const figures: TraceFigures[] = [];
for (const file of positionals) {
  const requests = parseTrace(readFileSync(file, "utf8"), file);
  const asked = requests.reduce((sum, { hashIds }) => sum + hashIds.length, 0);
  const title = basename(file, ".jsonl").replaceAll("_", " ");
  console.log(`\n${title}: ${requests.length} requests, ${asked} blocks\n`);
  console.log(`| blocks | ${capacities.join(" | ")} |\n| --- | ${capacities.map(() => "---:").join(" | ")} |`);
  const rows: { policy: string; percent: number[] }[] = [];
  for (const [policy, replay] of Object.entries(policies)) {
    const percent: number[] = [];
    for (const capacity of capacities) percent.push(((await replay(requests, capacity)) / asked) * 100);
    console.log(`| ${policy} | ${percent.map((value) => value.toFixed(1)).join(" | ")} |`);
    rows.push({ policy, percent });
  }
  figures.push({ title, rows });
}
if (values.svg !== undefined) writeFileSync(values.svg, plotOf(figures, capacities));
