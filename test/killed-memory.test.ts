/** The memory tier outlives its process: whenever it is killed, what was committed is there, and nothing else is. */
import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { beforeAll, expect, onTestFinished, test } from "vitest";
import { Cache } from "../src/cache/cache.ts";
import { bareRoot } from "../src/identity/keys.ts";
import { MemoryPool } from "../src/tiers/memory.ts";
import { rememberPool } from "../src/tiers/pool/pool-file.ts";
import { loadAndVerify, testSpace, wait } from "./support/cache.ts";
import { orphanedPools, poolsOf, temporaryDirectory } from "./support/data-directory.ts";
import { rounds, seedOr, timeoutMs } from "./support/depth.ts";
import { killedSlotBytes, killedText, payloadBytesOf } from "./support/killed-text.ts";
import { seededRandom } from "./support/prompts.ts";
import { repositoryRoot } from "./support/repository.ts";

const capacityBytes = 64 * 2 ** 20;
/** Texts that fit into half the pool whatever their lengths: the ones before them may have been evicted. */
const surelyThere = 20;
const moments = rounds({ small: 10, full: 100 });
const restarts = 2 * rounds({ small: 2, full: 5 });

beforeAll(() => {
  const flags = ["--noEmit", "false", "--rootDir", ".", "--outDir", ".build", "--incremental"];
  const tsc = [
    "node_modules/typescript/bin/tsc",
    "-p",
    "tsconfig.json",
    ...flags,
    "--tsBuildInfoFile",
    ".build/info.json",
  ];
  const built = spawnSync(process.execPath, tsc, { cwd: repositoryRoot, encoding: "utf8" });
  if (built.status !== 0) throw new Error(built.stdout);
});

test.each([
  {
    what: "every text that was acknowledged, and no wrong byte",
    smallSlotBytes: killedSlotBytes,
    present: surelyThere,
  },
  { what: "no wrong byte, also while extents change their size class", smallSlotBytes: 4096, present: 0 },
])(
  `stopped at ${moments} random moments, the pool holds $what`,
  async ({ smallSlotBytes, present }) => {
    const directory = temporaryDirectory();
    const writer = await startWriter(directory, 1, smallSlotBytes);
    const random = seededRandom(seedOr(200));
    for (let moment = 0; moment < moments; moment += 1) {
      await sleep(random() * 10);
      // A process that stands still has left exactly what one that was killed then would have.
      writer.child.kill("SIGSTOP");
      await untilStopped(writer.child);
      await untilAllHeard(writer);
      const copies = copyPool(directory);
      const acknowledged = [...writer.acknowledged];
      writer.child.kill("SIGCONT");
      const whole = await verify(directory, acknowledged, copies, { smallSlotBytes });
      expect(
        (present === 0 ? [] : acknowledged.slice(-present)).filter((number) => !whole.has(number)),
        `moment ${moment}`,
      ).toEqual([]);
      rmSync(copies, { recursive: true });
    }
  },
  timeoutMs(300_000),
);

test(
  "after kill -9 the next process adopts the pool and goes on with it, and so does the one after it",
  async () => {
    const directory = temporaryDirectory();
    const random = seededRandom(seedOr(9));
    for (let round = 1; round <= restarts; round += 1) {
      const writer = await startWriter(directory, round, killedSlotBytes);
      await sleep(20 + random() * 200);
      writer.child.kill("SIGKILL");
      await writer.ended;
      expect(orphanedPools(directory)).toHaveLength(1);
      // Every second time the next writer adopts what this one adopted and changed.
      if (round % 2 === 1) continue;
      const whole = await verify(directory, writer.acknowledged, "/dev/shm", { smallSlotBytes: killedSlotBytes });
      expect(writer.acknowledged.slice(-surelyThere).filter((number) => !whole.has(number))).toEqual([]);
    }
    expect(orphanedPools(directory)).toEqual([]);
  },
  timeoutMs(120_000),
);

interface Writer {
  readonly child: ChildProcess;
  /** Numbers of the texts it has committed. */
  readonly acknowledged: number[];
  readonly ended: Promise<void>;
}

/** Starts a writer and waits until it has filled the pool once. */
async function startWriter(directory: string, seed: number, smallSlotBytes: number): Promise<Writer> {
  const program = join(repositoryRoot, ".build/test/support/pool-writer.js");
  const args = [program, directory, String(seed), String(smallSlotBytes)];
  const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
  onTestFinished(() => void child.kill("SIGKILL"));
  const acknowledged: number[] = [];
  const ended = new Promise<void>((resolve) => child.once("close", () => resolve()));
  let rest = "";
  const full = new Promise<void>((resolve) => {
    child.stdout.setEncoding("utf8").on("data", (said: string) => {
      const lines = (rest + said).split("\n");
      rest = lines.pop() ?? "";
      acknowledged.push(...lines.map(Number));
      if (acknowledged.length > 300) resolve();
    });
  });
  await Promise.race([full, ended.then(() => Promise.reject(new Error("the writer ended by itself")))]);
  return { child, acknowledged, ended };
}

async function untilStopped(child: ChildProcess): Promise<void> {
  while (!/\) T /.test(readFileSync(`/proc/${child.pid}/stat`, "latin1"))) await sleep(0);
}

/** Every turn of the event loop reads what there is: else a busy one knows only texts that were evicted long ago. */
async function untilAllHeard({ acknowledged }: Writer): Promise<void> {
  let heard: number;
  do {
    heard = acknowledged.length;
    await sleep(5);
  } while (acknowledged.length > heard);
}

/** @returns the folder of the copies */
function copyPool(directory: string): string {
  const folder = mkdtempSync("/dev/shm/reprise-test-");
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  for (const path of poolsOf(directory)) expect(spawnSync("cp", ["--sparse=always", path, folder]).status).toBe(0);
  const names = readdirSync(folder);
  expect(names).toHaveLength(1);
  rememberPool(directory, join(folder, names[0]!)); // one
  return folder;
}

/** Adopts the pool and compares every byte in it. @returns texts that are there as a whole */
async function verify(
  dataDirectory: string,
  acknowledged: readonly number[],
  directory: string,
  { smallSlotBytes }: { smallSlotBytes: number },
): Promise<ReadonlySet<number>> {
  const pool = MemoryPool.open({ dataDirectory, directory, capacityBytes });
  await using cache = await Cache.open({ pool, graceMs: 0 });
  await cache.adopted;
  cache.check();
  const session = cache.openSession({ space: testSpace(), rank: 0, slotBytes: [killedSlotBytes] });
  const small = cache.openSession({ space: testSpace({ weights: "22" }), rank: 0, slotBytes: [smallSlotBytes] });
  const last = acknowledged.at(-1)!; // it waited for the first one
  const whole = new Set<number>();
  for (let number = Math.max(0, last - 300); number < last + 3; number += 1) {
    const text = killedText(number);
    // Throws when a byte is another than was written.
    const found = await loadAndVerify(session, pool, text, { bytes: payloadBytesOf(number) });
    await loadAndVerify(small, pool, text, { bytes: 700 });
    if (found === text.length) whole.add(number);
    expect((await session.lookup(bareRoot, killedText(number + 5_000_000), wait)).hitTokens).toBe(0);
  }
  await sleep(5);
  cache.check();
  return whole;
}
