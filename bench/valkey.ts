/**
 * Is a Valkey used as fast as it is? The tier beside the store's own tool, redis-benchmark, on one server: values as the tier
 * stores them, as many at a time, every checksum verified.
 *
 *     npm run bench -- valkey [--bytes 512MiB] [--chunk 4MiB] [--depth 4] [--rounds 10] [--sealed]
 *
 * Needs redis-server and redis-benchmark. In each round both write, then both read; who is first alternates. A first round is left
 * out. A chunk of 4 MiB less a page is one value. Medians of the rounds' rates, and of the ratios within a round.
 */
import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { parseArgs, promisify } from "node:util";
import { median } from "../src/bench/statistics.ts";
import { parseBytes } from "../src/bytes.ts";
import type { RecordId } from "../src/tier.ts";
import { TierKey } from "../src/tiers/shared/tier-keys.ts";
import { ValueTier } from "../src/tiers/shared/value-tier.ts";
import { noSignal, recordOf } from "../src/tiers/tier-suite.ts";
import { parseValkeyAddress } from "../src/tiers/valkey/address.ts";
import { ValkeyStore } from "../src/tiers/valkey/valkey-store.ts";
import { startStore } from "../test/support/valkey.ts";
import { printLine, rounded } from "./support/timing.ts";

const { values } = parseArgs({
  options: {
    bytes: { type: "string", default: "512MiB" },
    chunk: { type: "string", default: "4MiB" },
    depth: { type: "string", default: "4" },
    rounds: { type: "string", default: "10" },
    sealed: { type: "boolean", default: false },
  },
});
const depth = Number(values.depth);
const chunkBytes = parseBytes(values.chunk) - 4096;
const count = Math.ceil(parseBytes(values.bytes) / chunkBytes);
const totalGB = (count * chunkBytes) / 1e9;

interface Run {
  readonly gigabytesPerSecond: number;
  readonly cpuSecondsPerGB: number;
}
type Arm = "tier" | "tool";
const runs = { write: { tier: [] as Run[], tool: [] as Run[] }, read: { tier: [] as Run[], tool: [] as Run[] } };

await using server = await startStore({ maxmemory: String(4 * count * chunkBytes + 2 ** 28) });
const store = new ValkeyStore(parseValkeyAddress(`valkey://127.0.0.1:${server.port}?connections=${depth}`));
const keys = values.sealed ? [new TierKey(randomBytes(32))] : [];
await using tier = new ValueTier({ store, keys, prefix: "reprise:", maxRecordBytes: 2 ** 30 });
const slots = Array.from({ length: depth }, () => randomBytes(chunkBytes));
const records = Array.from({ length: count }, (_, i) => recordOf(Uint32Array.from([i]), [slots[0]!]));
await new Promise((connected) => setTimeout(connected, 500));

for (let round = 0; round <= Number(values.rounds); round += 1) {
  await server.command("FLUSHALL"); // each writing of a record has pieces of its own
  const ids: RecordId[] = [];
  const arms: readonly Arm[] = round % 2 === 0 ? ["tool", "tier"] : ["tier", "tool"];
  for (const what of ["write", "read"] as const)
    for (const arm of arms)
      runs[what][arm].push(arm === "tool" ? await runTool(what) : await measured(() => runTier(what, ids)));
}
for (const { tier: ours, tool } of [runs.write, runs.read]) for (const list of [ours, tool]) list.shift();
printLine(
  "valkey",
  { write: besideTool(runs.write), read: besideTool(runs.read) },
  { chunkBytes, depth, count, rounds: Number(values.rounds), sealed: values.sealed },
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

async function measured(work: () => Promise<void>): Promise<Run> {
  const [cpu, began] = [process.cpuUsage(), performance.now()];
  await work();
  const [used, ms] = [process.cpuUsage(cpu), performance.now() - began];
  return { gigabytesPerSecond: totalGB / (ms / 1000), cpuSecondsPerGB: (used.user + used.system) / 1e6 / totalGB };
}

async function runTool(what: "write" | "read"): Promise<Run> {
  const words = ["-p", String(server.port), "-d", String(chunkBytes), "--csv"];
  const bench = (...more: readonly string[]) => promisify(execFile)("redis-benchmark", [...words, ...more]);
  // It writes other names each time, as the tier does, and reads one that is there.
  if (what === "read") await bench("-t", "set", "-n", "1", "-c", "1");
  const kind = what === "write" ? ["-t", "set", "-r", "1000000000"] : ["-t", "get"];
  const { stdout } = await bench(...kind, "-n", String(count), "-c", String(depth));
  const perSecond = Number(/^"(?:SET|GET)[^"]*","([\d.]+)"/m.exec(stdout)?.[1]);
  return { gigabytesPerSecond: (perSecond * chunkBytes) / 1e9, cpuSecondsPerGB: Number.NaN };
}

function besideTool({ tier: ours, tool }: { tier: readonly Run[]; tool: readonly Run[] }): object {
  const rate = (list: readonly Run[]) => rounded(median(list.map(({ gigabytesPerSecond }) => gigabytesPerSecond)));
  return {
    share: rounded(median(ours.map((run, i) => run.gigabytesPerSecond / tool[i]!.gigabytesPerSecond))),
    gigabytesPerSecond: rate(ours),
    toolGigabytesPerSecond: rate(tool),
    cpuSecondsPerGB: rounded(median(ours.map(({ cpuSecondsPerGB }) => cpuSecondsPerGB))),
  };
}
