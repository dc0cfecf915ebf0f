/**
 * Is a shared folder used through NIXL as fast as it is? The tier beside `cp` between the folder and memory, and beside plain reads and
 * writes: values as the tier stores them, every checksum verified.
 *
 *     npm run bench -- nixl [--folder FOLDER] [--library FOLDER] [--bytes 512MiB] [--chunk 4MiB] [--depth 4] [--rounds 10]
 *
 * Needs NIXL (docs/shared-tiers.md), room for three times `--bytes` in the folder and once in /dev/shm. In each round all write, then
 * all read; who is first goes round. A first round is left out. A chunk of 4 MiB less a page is one value. Files are read right after
 * they were written, so where they fit into memory it is the page cache that is measured. Medians of the rounds' rates, and of the
 * ratios within a round.
 */
import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { open } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs, promisify } from "node:util";
import { median } from "../src/bench/statistics.ts";
import { parseBytes } from "../src/bytes.ts";
import { silentLog } from "../src/log.ts";
import type { RecordId } from "../src/tier.ts";
import { parseNixlAddress } from "../src/tiers/nixl/address.ts";
import { findNixl } from "../src/tiers/nixl/library.ts";
import { NixlStore } from "../src/tiers/nixl/nixl-store.ts";
import { ValueTier } from "../src/tiers/shared/value-tier.ts";
import { noSignal, recordOf } from "../src/tiers/tier-suite.ts";
import { printLine, rounded } from "./support/timing.ts";

const { values } = parseArgs({
  options: {
    folder: { type: "string", default: tmpdir() },
    library: { type: "string" },
    bytes: { type: "string", default: "512MiB" },
    chunk: { type: "string", default: "4MiB" },
    depth: { type: "string", default: "4" },
    rounds: { type: "string", default: "10" },
  },
});
const depth = Number(values.depth);
const chunkBytes = parseBytes(values.chunk) - 4096;
const count = Math.ceil(parseBytes(values.bytes) / chunkBytes);
const totalGB = (count * chunkBytes) / 1e9;

interface Run {
  readonly gigabytesPerSecond: number;
  /** Of this process; of `cp` it is not known. */
  readonly cores: number;
}
const arms = ["tier", "cp", "plain"] as const;
type Arm = (typeof arms)[number];
type What = "write" | "read";
const runs: Record<What, Record<Arm, Run[]>> = {
  write: { tier: [], cp: [], plain: [] },
  read: { tier: [], cp: [], plain: [] },
};

const folder = mkdtempSync(join(values.folder, "reprise-bench-nixl-"));
const memory = mkdtempSync(join("/dev/shm", "reprise-bench-nixl-"));
try {
  await measureAll();
} finally {
  for (const each of [folder, memory]) rmSync(each, { recursive: true, force: true });
}

async function measureAll(): Promise<void> {
  const address = parseNixlAddress(`nixl://posix${folder}/tier?transfers=${depth}`);
  const library = findNixl(values.library, address.plugin);
  const slots = Array.from({ length: depth }, () => randomBytes(chunkBytes));
  const records = Array.from({ length: count }, (_, i) => recordOf(Uint32Array.from([i]), [slots[0]!]));
  mkdirSync(join(memory, "files"));
  for (let i = 0; i < count; i += 1) writeFileSync(join(memory, "files", String(i)), slots[i % depth]!);
  makeFolders(join(folder, "tier"));
  for (let round = 0; round <= Number(values.rounds); round += 1) {
    for (const each of readdirSync(join(folder, "tier"), { recursive: true, withFileTypes: true }))
      if (each.isFile()) rmSync(join(each.parentPath, each.name));
    for (const each of ["cp", "plain"]) {
      rmSync(join(folder, each), { recursive: true, force: true });
      mkdirSync(join(folder, each), { mode: 0o700 });
    }
    const store = new NixlStore({ address, library, log: silentLog });
    await using tier = new ValueTier({ store, keys: [], prefix: "", maxRecordBytes: 2 ** 30 });
    await warmUp(tier);
    const ids: RecordId[] = [];
    const work: Record<Arm, (what: What) => Promise<void>> = {
      tier: (what) => eachChunk(slots, (slot, i) => throughTier(tier, what, { ids, i, slot })),
      cp: (what) => copy(what),
      plain: (what) => eachChunk(slots, (slot, i) => plainly(what, join(folder, "plain", String(i)), slot)),
    };
    for (const what of ["write", "read"] as const)
      for (let i = 0; i < arms.length; i += 1) {
        const arm = arms[(round + i) % arms.length]!;
        await promisify(execFile)("sync", ["-f", folder]); // what one has written, another does not wait for
        runs[what][arm].push(await measured(() => work[arm](what)));
      }
  }
  for (const what of ["write", "read"] as const) for (const arm of arms) runs[what][arm].shift();
  printLine(
    "nixl",
    { write: besideOthers(runs.write), read: besideOthers(runs.read) },
    { chunkBytes, depth, count, rounds: Number(values.rounds), folder: values.folder },
  );

  async function throughTier(
    tier: ValueTier,
    what: What,
    { ids, i, slot }: { ids: RecordId[]; i: number; slot: Buffer },
  ): Promise<void> {
    if (what === "read") {
      if ((await tier.read(ids[i]!, records[i]!.key, [slot], noSignal)) !== "read") throw new Error("it is there");
      return;
    }
    const id = await tier.write(records[i]!, [slot], noSignal);
    if (id === "rejected") throw new Error("there is room");
    ids[i] = id;
  }
}

/** Those that a folder has when it has been used for a while. */
function makeFolders(folder: string): void {
  for (let i = 0; i < 4096; i += 1)
    mkdirSync(join(folder, (i >> 8).toString(16), (i & 255).toString(16).padStart(2, "0")), {
      recursive: true,
      mode: 0o700,
    });
}

/** All threads are there. */
async function warmUp(tier: ValueTier): Promise<void> {
  const payload = randomBytes(4096);
  await Promise.all(
    Array.from({ length: 8 * depth }, async (_, i) => {
      const record = recordOf(Uint32Array.from([1_000_000 + i]), [payload]);
      const id = await tier.write(record, [payload], noSignal);
      if (id !== "rejected") await tier.read(id, record.key, [new Uint8Array(4096)], noSignal);
    }),
  );
}

async function eachChunk(slots: readonly Buffer[], work: (slot: Buffer, i: number) => Promise<void>): Promise<void> {
  let next = 0;
  await Promise.all(
    slots.map(async (slot) => {
      for (let i = next++; i < count; i = next++) await work(slot, i);
    }),
  );
}

async function copy(what: What): Promise<void> {
  const [from, to] =
    what === "write"
      ? [join(memory, "files"), join(folder, "cp")]
      : [join(folder, "cp", "files"), join(memory, "back")];
  await promisify(execFile)("cp", ["-r", "--reflink=never", from, to]);
  if (what === "read") rmSync(to, { recursive: true });
}

async function plainly(what: What, path: string, slot: Buffer): Promise<void> {
  const file = await open(path, what === "write" ? "wx" : "r");
  if (what === "write") await file.write(slot);
  else await file.read(slot);
  await file.close();
}

async function measured(work: () => Promise<void>): Promise<Run> {
  const [cpu, began] = [process.cpuUsage(), performance.now()];
  await work();
  const [used, ms] = [process.cpuUsage(cpu), performance.now() - began];
  return { gigabytesPerSecond: totalGB / (ms / 1000), cores: (used.user + used.system) / 1000 / ms };
}

function besideOthers({ tier, cp, plain }: Record<Arm, readonly Run[]>): object {
  const rate = (list: readonly Run[]) => rounded(median(list.map(({ gigabytesPerSecond }) => gigabytesPerSecond)));
  const share = (others: readonly Run[]) =>
    rounded(median(tier.map((run, i) => run.gigabytesPerSecond / others[i]!.gigabytesPerSecond)));
  return {
    shareOfCp: share(cp),
    shareOfPlain: share(plain),
    gigabytesPerSecond: rate(tier),
    cpGigabytesPerSecond: rate(cp),
    plainGigabytesPerSecond: rate(plain),
    cores: rounded(median(tier.map(({ cores }) => cores))),
  };
}
