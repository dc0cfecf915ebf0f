/**
 * Is the disk used as fast as it is? The disk tier beside fio on the same directory: how much of what the drive can do
 * arrives in pool slots, and what processor time it costs.
 *
 *     npm run bench -- disk [--directory DIR] [--bytes 256MiB] [--chunk 2MiB] [--depth 8] [--rounds 3]
 *
 * In each round fio writes and the tier writes behind (flush included, as fio's end_fsync), then fio reads and the tier loads into
 * slots of the pool with every checksum verified; who is first alternates, and the drive rests half a second between them. A first
 * round is left out. Block size and depth are the chunk's and
 * `--depth` for both. Without fio (`apt-get install fio`) its figures are null. Medians over the rounds.
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, statfsSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { median } from "../src/bench/statistics.ts";
import { parseBytes } from "../src/bytes.ts";
import type { RecordId } from "../src/tier.ts";
import { DiskTier } from "../src/tiers/disk/disk-tier.ts";
import { MemoryPool } from "../src/tiers/memory.ts";
import { noSignal, recordOf, recoverAll } from "../src/tiers/tier-suite.ts";
import { printLine, rounded } from "./support/timing.ts";

const { values } = parseArgs({
  options: {
    directory: { type: "string", default: tmpdir() },
    bytes: { type: "string", default: "256MiB" },
    chunk: { type: "string", default: "2MiB" },
    depth: { type: "string", default: "8" },
    rounds: { type: "string", default: "3" },
  },
});
const chunkBytes = parseBytes(values.chunk);
const depth = Number(values.depth);
const count = Math.ceil(parseBytes(values.bytes) / chunkBytes);
const totalBytes = count * chunkBytes;
const totalGiB = totalBytes / 2 ** 30;
const directory = mkdtempSync(join(values.directory, "reprise-bench-disk-"));
const pool = MemoryPool.open({ capacityBytes: Math.max(64 * 2 ** 20, 8 * depth * chunkBytes) });
const { bavail, bsize } = statfsSync(directory);
if (bavail * bsize < 3 * totalBytes) throw new Error(`${directory} has not three times ${values.bytes} free`);

const slots = Array.from({ length: 4 * depth }, () => {
  const offset = pool.allocate(chunkBytes);
  if (offset === "full") throw new Error("the pool holds four times the depth");
  return pool.view(offset, chunkBytes);
});
for (const [i, slot] of slots.entries()) fillWith(slot, i);
const records = Array.from({ length: count }, (_, i) =>
  recordOf(
    Uint32Array.from({ length: 64 }, (_, j) => i * 64 + j),
    [slots[0]!],
  ),
);

interface FioLane {
  readonly bw_bytes: number;
}
interface Run {
  readonly bytesPerSecond: number;
  readonly cpuSecondsPerGiB: number;
  /** Of them, those in the kernel. */
  readonly systemSecondsPerGiB: number;
}
const runs = { load: [] as Run[], writeBehind: [] as Run[] };
const fio = { read: [] as (Run | null)[], write: [] as (Run | null)[] };
const quietMs = 500;
let direct = true;
try {
  // One tier for all rounds, as a server has. The first round is not counted: threads start (25 ms of a processor each), code
  // is compiled, pages of the pool are touched.
  await using tier = await DiskTier.open({
    drives: [{ directory: join(directory, "tier"), capacityBytes: 2 * totalBytes + 2 ** 30 }],
    scrubBytesPerSecond: 0,
  });
  await recoverAll(tier);
  for (let round = 0; round <= Number(values.rounds); round += 1) {
    const ids: RecordId[] = [];
    const writes = [
      async () => fio.write.push(await runFio("write")),
      async () => runs.writeBehind.push(await measured(() => writeAll(tier, ids))),
    ];
    const reads = [
      async () => fio.read.push(await runFio("read")),
      async () => runs.load.push(await measured(() => readAll(tier, ids))),
    ];
    for (const pair of [writes, reads]) for (const run of round % 2 === 0 ? pair : pair.toReversed()) await run();
    direct &&= tier.stats().drives.every((drive) => drive.direct);
    for (const id of ids) tier.drop(id);
    rmSync(join(directory, "fio"), { force: true });
  }
  for (const figures of [runs.load, runs.writeBehind, fio.read, fio.write]) figures.shift();
} finally {
  await pool[Symbol.asyncDispose]();
  rmSync(directory, { recursive: true, force: true });
}

printLine(
  "disk",
  { load: besideFio(runs.load, fio.read), writeBehind: besideFio(runs.writeBehind, fio.write) },
  { directory: values.directory, chunkBytes, depth, totalBytes, rounds: Number(values.rounds), direct },
);

/** Stored and flushed. */
async function writeAll(tier: DiskTier, ids: RecordId[]): Promise<void> {
  await inParallel(async (i, slot) => {
    const id = await tier.write(records[i]!, [slot], noSignal);
    if (id === "rejected") throw new Error("there is room");
    ids[i] = id;
  });
  await tier.flush();
}

async function readAll(tier: DiskTier, ids: readonly RecordId[]): Promise<void> {
  await inParallel(async (i, slot) => {
    if ((await tier.read(ids[i]!, records[i]!.key, [slot], noSignal)) !== "read") throw new Error("it is there");
  });
}

/** The drive does nothing: what was removed before is discarded, and a virtual drive's allowance for bursts is back. */
async function quiet(): Promise<void> {
  spawnSync("sync");
  await new Promise((resolve) => setTimeout(resolve, quietMs));
}

/** Every record once, `depth` of them at a time, each with a slot of its own. */
async function inParallel(one: (i: number, slot: Uint8Array) => Promise<void>): Promise<void> {
  let next = 0;
  const writeAll = async (slot: Uint8Array) => {
    for (let i = (next += 1) - 1; i < count; i = (next += 1) - 1) await one(i, slot);
  };
  await Promise.all(slots.slice(0, depth).map(writeAll));
}

async function measured(work: () => Promise<void>): Promise<Run> {
  await quiet();
  const startedAt = performance.now();
  const cpu = process.cpuUsage();
  await work();
  const seconds = (performance.now() - startedAt) / 1000;
  const { user, system } = process.cpuUsage(cpu);
  return {
    bytesPerSecond: totalBytes / seconds,
    cpuSecondsPerGiB: (user + system) / 1e6 / totalGiB,
    systemSecondsPerGiB: system / 1e6 / totalGiB,
  };
}

/** fio doing the same to a file of its own, or null without fio. */
async function runFio(mode: "read" | "write"): Promise<Run | null> {
  await quiet();
  const done = spawnSync(
    "fio",
    [
      "--name=beside",
      `--filename=${join(directory, "fio")}`,
      `--size=${totalBytes}`,
      `--rw=${mode}`,
      `--bs=${chunkBytes}`,
      `--iodepth=${depth}`,
      "--ioengine=libaio",
      "--direct=1",
      "--end_fsync=1",
      "--output-format=json",
    ],
    { encoding: "utf8" },
  );
  if (done.status !== 0) return null;
  const { jobs } = JSON.parse(done.stdout) as {
    jobs: { usr_cpu: number; sys_cpu: number; job_runtime: number; read: FioLane; write: FioLane }[];
  };
  const [job] = jobs;
  if (job === undefined) return null;
  const secondsPerGiB = (percent: number) => (percent / 100) * (job.job_runtime / 1000 / totalGiB);
  return {
    bytesPerSecond: job[mode].bw_bytes,
    cpuSecondsPerGiB: secondsPerGiB(job.usr_cpu + job.sys_cpu),
    systemSecondsPerGiB: secondsPerGiB(job.sys_cpu),
  };
}

function besideFio(of: readonly Run[], beside: readonly (Run | null)[]): object {
  const known = beside.filter((run) => run !== null);
  const shares = of.flatMap(({ bytesPerSecond }, i) => {
    const fioRun = beside[i];
    return fioRun ? [bytesPerSecond / fioRun.bytesPerSecond] : [];
  });
  const ofAll = (runs: readonly Run[], figure: keyof Run) =>
    runs.length === 0 ? null : rounded(median(runs.map((run) => run[figure])));
  const MBps = (runs: readonly Run[]) =>
    runs.length === 0 ? null : rounded(median(runs.map((run) => run.bytesPerSecond)) / 1e6);
  return {
    MBps: MBps(of),
    fioMBps: MBps(known),
    ofFio: shares.length === 0 ? null : rounded(median(shares)),
    cpuSecondsPerGiB: ofAll(of, "cpuSecondsPerGiB"),
    ofThemInKernel: ofAll(of, "systemSecondsPerGiB"),
    fioCpuSecondsPerGiB: ofAll(known, "cpuSecondsPerGiB"),
  };
}

function fillWith(slot: Uint8Array, seed: number): void {
  const words = new Uint32Array(slot.buffer, slot.byteOffset, slot.length / 4);
  for (let i = 0; i < words.length; i += 1) words[i] = Math.imul(i + seed * 7919 + 1, 2654435761);
}
