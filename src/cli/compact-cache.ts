/**
 * `reprise cache compact`: has a cache that runs compact its disk through the socket; where none runs, takes the data
 * directory and does it itself. There no cache knows what was dropped, and what the records themselves say has to do
 * (unreachable.ts).
 */
import { existsSync, lstatSync, readdirSync } from "node:fs";
import { join, resolve } from "node:path";
import { formatBytes } from "../bytes.ts";
import type { Config } from "../config.ts";
import { createLog } from "../log.ts";
import type { RecordBatch, StoredRecord } from "../tier.ts";
import { DiskTier } from "../tiers/disk/disk-tier.ts";
import { unreachableRecords } from "../tiers/disk/unreachable.ts";
import { CacheControl } from "../wire/guest/control.ts";
import { diskDirectories, socketPathOf } from "./cache-host.ts";
import { lockIfThere, mustBeThere } from "./data-directory.ts";

const mebibyte = 1024 * 1024;

/** @throws RepriseError BAD_CONFIG (no such directory), CACHE_UNAVAILABLE, DATA_DIRECTORY_IN_USE, TIER_UNAVAILABLE */
export async function compactCache(config: Pick<Config, "dataDir" | "disk" | "socket" | "logLevel">): Promise<number> {
  await using running = await CacheControl.connect(socketPathOf(config));
  if (running === undefined) {
    const freed = await compactDirectories(config);
    process.stdout.write(`${linesOf(freed)}No cache was running.\n`);
    return 0;
  }
  const { freedBytes, movedBytes } = await running.compact();
  process.stdout.write(linesOf(freedBytes, movedBytes));
  return 0;
}

function linesOf(freed: Readonly<Record<string, number>>, moved: Readonly<Record<string, number>> = {}): string {
  const lines = Object.entries(freed).map(([directory, bytes]) => {
    const price = (moved[directory] ?? 0) > 0 ? `, ${formatBytes(moved[directory]!)} written anew` : ""; // above 0
    return `${directory}: ${bytes === 0 ? "nothing to give back" : `${formatBytes(bytes)} given back`}${price}.\n`;
  });
  return lines.length === 0 ? "There is no disk tier here.\n" : lines.join("");
}

/** Compacts the drives of a data directory that nobody owns. @returns by how much the files of each became smaller */
async function compactDirectories(
  config: Pick<Config, "dataDir" | "disk" | "logLevel">,
): Promise<Record<string, number>> {
  const directories = diskDirectories(config).filter((each) => existsSync(each));
  if (directories.length === 0) {
    mustBeThere(resolve(config.dataDir));
    return {};
  }
  using _lock = await lockIfThere(config.dataDir);
  const before = directories.map(bytesIn);
  const most = Math.max(...before);
  const tier = await DiskTier.open({
    // Whatever the capacity was, nothing is evicted; what is written anew needs a region of room until its source goes.
    drives: directories.map((each) => ({ directory: each, capacityBytes: Number.MAX_SAFE_INTEGER })),
    regionBytes: Math.min(256 * mebibyte, Math.max(4 * mebibyte, Math.ceil(most / 8))),
    scrubBytesPerSecond: 0,
    log: createLog({ level: config.logLevel }),
  });
  try {
    const batches: RecordBatch[] = [];
    for await (const batch of tier.recover({ isWanted: () => true, onEvicted() {}, onMoved() {} })) batches.push(batch);
    for (const id of await unreachableRecords(recordsOf(batches))) tier.drop(id);
    await tier.compact(new AbortController().signal);
  } finally {
    await tier[Symbol.asyncDispose]();
  }
  return Object.fromEntries(
    directories.map((each, i) => [each, Math.max(0, before[i]! - bytesIn(each))]), // one each
  );
}

async function* recordsOf(batches: readonly RecordBatch[]): AsyncGenerator<StoredRecord, void, void> {
  for (const batch of batches) yield* batch.records();
}

function bytesIn(directory: string): number {
  return readdirSync(directory).reduce((sum, name) => sum + lstatSync(join(directory, name)).size, 0);
}
