/**
 * Is a pool of Mooncake's used as fast as it is? The tier beside Mooncake's own Python client, on one pool: values as the tier stores
 * them, as many at a time, every checksum verified.
 *
 *     REPRISE_TEST_MOONCAKE=PYTHON npm run bench -- mooncake [--bytes 256MiB] [--chunk 4MiB] [--depth 4] [--rounds 10] [--sealed]
 *
 * Needs a Python with Mooncake's wheel. In each round both write, then both read; who is first alternates. A first round is left out.
 * A chunk of 4 MiB less a page is one value. The other client puts and gets a value by a call, from as many threads, out of and into
 * memory that is registered, and looks at nothing. Then each reads one value at a time, for the latency. Medians of the rounds' rates
 * and times, and of the ratios within a round.
 */
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";
import { median } from "../src/bench/statistics.ts";
import { parseBytes } from "../src/bytes.ts";
import type { RecordId } from "../src/tier.ts";
import { parseMooncakeAddress } from "../src/tiers/mooncake/address.ts";
import { MooncakeStore } from "../src/tiers/mooncake/mooncake-store.ts";
import { TierKey } from "../src/tiers/shared/tier-keys.ts";
import { ValueTier } from "../src/tiers/shared/value-tier.ts";
import { noSignal, recordOf } from "../src/tiers/tier-suite.ts";
import { python, startPool } from "../test/support/mooncake.ts";
import { repositoryRoot } from "../test/support/repository.ts";
import { printLine, rounded } from "./support/timing.ts";

const { values } = parseArgs({
  options: {
    bytes: { type: "string", default: "256MiB" },
    chunk: { type: "string", default: "4MiB" },
    depth: { type: "string", default: "4" },
    rounds: { type: "string", default: "10" },
    sealed: { type: "boolean", default: false },
  },
});
const depth = Number(values.depth);
const rounds = Number(values.rounds);
const chunkBytes = parseBytes(values.chunk) - 4096;
const count = Math.ceil(parseBytes(values.bytes) / chunkBytes);
const totalGB = (count * chunkBytes) / 1e9;

interface Run {
  readonly gigabytesPerSecond: number;
  readonly cpuSecondsPerGB: number;
}
type Arm = "tier" | "tool";
const runs = { write: { tier: [] as Run[], tool: [] as Run[] }, read: { tier: [] as Run[], tool: [] as Run[] } };
const latencies = { tier: [] as number[], tool: [] as number[] };

// Room for all rounds: neither waits for what Mooncake evicts.
await using pool = await startPool({ bytes: Math.ceil((2 * (rounds + 1) * count * chunkBytes + 2 ** 28) * 1.2) });
const store = new MooncakeStore(parseMooncakeAddress(pool.address));
const keys = values.sealed ? [new TierKey(randomBytes(32))] : [];
await using tier = new ValueTier({ store, keys, prefix: "reprise:", maxRecordBytes: 2 ** 30 });
const tool = startTool();
const slots = Array.from({ length: depth }, () => randomBytes(chunkBytes));
const records = Array.from({ length: count }, (_, i) => recordOf(Uint32Array.from([i]), [slots[0]!]));
while (!(await store.getAll(["nobody's"], 1, noSignal).then(() => true, () => false))) await new Promise(setImmediate); // prettier-ignore

for (let round = 0; round <= rounds; round += 1) {
  const ids: RecordId[] = [];
  const arms: readonly Arm[] = round % 2 === 0 ? ["tool", "tier"] : ["tier", "tool"];
  for (const what of ["write", "read"] as const)
    for (const arm of arms)
      runs[what][arm].push(arm === "tool" ? await tool.run(what, round) : await measured(() => runTier(what, ids)));
  for (const arm of arms) latencies[arm].push(arm === "tool" ? await tool.latencyMs(round) : await latencyMs(ids));
}
for (const each of [runs.write, runs.read, { tier: latencies.tier, tool: latencies.tool }])
  for (const list of [each.tier, each.tool]) list.shift();
tool.end();
printLine(
  "mooncake",
  {
    write: besideTool(runs.write),
    read: besideTool(runs.read),
    readLatencyMs: rounded(median(latencies.tier)),
    toolReadLatencyMs: rounded(median(latencies.tool)),
  },
  { chunkBytes, depth, count, rounds, sealed: values.sealed },
);

async function runTier(what: "write" | "read", ids: RecordId[]): Promise<void> {
  let next = 0;
  await Promise.all(
    slots.map(async (slot) => {
      for (let i = next++; i < count; i = next++) {
        if (what === "write") {
          const id = await tier.write(records[i]!, [slot], noSignal);
          if (id === "rejected") throw new Error("there is room");
          ids[i] = id;
        } else if ((await tier.read(ids[i]!, records[i]!.key, [slot], noSignal)) !== "read")
          throw new Error("it is there");
      }
    }),
  );
}

async function latencyMs(ids: readonly RecordId[]): Promise<number> {
  const times: number[] = [];
  for (let i = 0; i < Math.min(20, count); i += 1) {
    const began = performance.now();
    await tier.read(ids[i]!, records[i]!.key, [slots[0]!], noSignal);
    times.push(performance.now() - began);
  }
  return median(times);
}

/** Processor time of both of our processes. */
async function measured(work: () => Promise<void>): Promise<Run> {
  const cpu = () => (process.cpuUsage().user + process.cpuUsage().system) / 1e6 + cpuSecondsOf(store.pid!);
  const [before, began] = [cpu(), performance.now()];
  await work();
  const [used, ms] = [cpu() - before, performance.now() - began];
  return { gigabytesPerSecond: totalGB / (ms / 1000), cpuSecondsPerGB: used / totalGB };
}

function cpuSecondsOf(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8")
    .replace(/^.*\) /, "")
    .split(" ");
  return (Number(fields[11]) + Number(fields[12])) / 100; // utime and stime, in ticks
}

/** Mooncake's own client: a program that reads what to do, a line each, and answers with seconds. */
function startTool() {
  const program = join(repositoryRoot, "bench", "support", "mooncake_tool.py");
  const args = [program, String(pool.port), String(chunkBytes), String(count), String(depth)];
  const child = spawn(python, args, { stdio: ["pipe", "pipe", "ignore"] });
  const lines = createInterface({ input: child.stdout });
  const ask = async (line: string): Promise<number[]> => {
    child.stdin.write(`${line}\n`);
    const [answer] = (await once(lines, "line")) as [string];
    return answer.split(" ").map(Number);
  };
  return {
    async run(what: "write" | "read", round: number): Promise<Run> {
      const [seconds, cpu] = await ask(`${what} ${round}`);
      return { gigabytesPerSecond: totalGB / seconds!, cpuSecondsPerGB: cpu! / totalGB };
    },
    async latencyMs(round: number): Promise<number> {
      return (await ask(`latency ${round}`))[0]! * 1000;
    },
    end: () => child.kill(),
  };
}

function besideTool({ tier: ours, tool: theirs }: { tier: readonly Run[]; tool: readonly Run[] }): object {
  const middle = (list: readonly Run[], of: keyof Run) => rounded(median(list.map((run) => run[of])));
  return {
    share: rounded(median(ours.map((run, i) => run.gigabytesPerSecond / theirs[i]!.gigabytesPerSecond))),
    gigabytesPerSecond: middle(ours, "gigabytesPerSecond"),
    toolGigabytesPerSecond: middle(theirs, "gigabytesPerSecond"),
    cpuSecondsPerGB: middle(ours, "cpuSecondsPerGB"),
    toolCpuSecondsPerGB: middle(theirs, "cpuSecondsPerGB"),
  };
}
