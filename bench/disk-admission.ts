/**
 * Does it pay to keep chunks off the disk that may never be read again? Replays traces over a memory and a disk tier.
 *
 *     npm run bench -- disk-admission [--memory 3000] [--disk 6000,12000,25000,50000] TRACE.jsonl …
 *
 * Memory is least-recently-used. The disk is what the disk tier is: a log whose oldest part goes first, with what was read
 * since it was written moved to the front. Four rules of admission:
 *
 *     all       everything that is stored is written behind
 *     evicted   what leaves memory is written
 *     read      what leaves memory after at least one read is written
 *     second    what was seen before is written, when it is stored
 *
 * Figures: blocks found in either tier per block asked for, and blocks written to the disk, moved ones included.
 */
import { readFileSync } from "node:fs";
import { basename } from "node:path";
import { parseArgs } from "node:util";
import { parseTrace, type TraceRequest } from "../src/bench/workloads/mooncake-trace.ts";

/** The disk, in blocks. */
class Log {
  written = 0;
  /** Oldest first; a value says whether it was read since it was written. */
  readonly #blocks = new Map<number, boolean>();
  readonly #capacity: number;

  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  has(block: number): boolean {
    return this.#blocks.has(block);
  }

  read(block: number): void {
    if (this.#blocks.has(block)) this.#blocks.set(block, true);
  }

  write(block: number): void {
    if (this.#blocks.has(block)) return;
    this.#append(block);
    for (const [oldest, wasRead] of this.#blocks) {
      if (this.#blocks.size <= this.#capacity) return;
      this.#blocks.delete(oldest);
      if (wasRead) this.#append(oldest);
    }
  }

  #append(block: number): void {
    this.#blocks.set(block, false);
    this.written += 1;
  }
}

const { values, positionals } = parseArgs({
  options: {
    memory: { type: "string", default: "3000" },
    disk: { type: "string", default: "6000,12000,25000,50000" },
  },
  allowPositionals: true,
});
if (positionals.length === 0)
  throw new Error("give the traces to replay: npm run bench -- disk-admission TRACE.jsonl …");
const memoryBlocks = Number(values.memory);
const diskBlocks = values.disk.split(",").map(Number);
const rules = ["all", "evicted", "read", "second"] as const;
type Rule = (typeof rules)[number];

for (const file of positionals) {
  const requests = parseTrace(readFileSync(file, "utf8"), file);
  const asked = requests.reduce((sum, { hashIds }) => sum + hashIds.length, 0);
  console.log(`\n${basename(file, ".jsonl").replaceAll("_", " ")}, ${memoryBlocks} blocks of memory\n`);
  console.log(`| admitted | ${diskBlocks.join(" | ")} |\n| --- | ${diskBlocks.map(() => "---:").join(" | ")} |`);
  for (const rule of rules) {
    const cells = diskBlocks.map((capacity) => {
      const { hits, written } = replay(requests, rule, capacity);
      return `${((hits / asked) * 100).toFixed(1)} % (${Math.round(written / 1000)} k written)`;
    });
    console.log(`| ${rule} | ${cells.join(" | ")} |`);
  }
}

function replay(requests: readonly TraceRequest[], rule: Rule, capacity: number): { hits: number; written: number } {
  const disk = new Log(capacity);
  /** Block to its reads, least recently used first. */
  const memory = new Map<number, number>();
  const seen = new Set<number>();
  let hits = 0;
  const keep = (block: number, reads: number) => {
    memory.delete(block);
    memory.set(block, reads);
    if (memory.size <= memoryBlocks) return;
    const [oldest, itsReads] = memory.entries().next().value!; // it is full
    memory.delete(oldest);
    if (rule === "evicted" || (rule === "read" && itsReads > 0)) disk.write(oldest);
  };
  for (const { hashIds } of requests) {
    const missing = hashIds.findIndex((block) => !memory.has(block) && !disk.has(block));
    const found = missing === -1 ? hashIds.length : missing;
    hits += found;
    for (let i = hashIds.length - 1; i >= 0; i -= 1) {
      const block = hashIds[i]!; // within bounds
      if (i < found) disk.read(block);
      keep(block, i < found ? (memory.get(block) ?? 0) + 1 : 0);
      if (i >= found && (rule === "all" || (rule === "second" && seen.has(block)))) disk.write(block);
      seen.add(block);
    }
  }
  return { hits, written: disk.written };
}
