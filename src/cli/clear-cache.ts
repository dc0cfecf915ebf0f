/**
 * `reprise cache clear`: empties a cache that runs through its socket; where none runs, takes the data directory and
 * removes the records itself.
 */
import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { formatBytes } from "../bytes.ts";
import type { Config } from "../config.ts";
import { whereIs } from "../tier.ts";
import { DiskTier } from "../tiers/disk/disk-tier.ts";
import { CacheControl } from "../wire/guest/control.ts";
import { diskDirectories, socketPathOf } from "./cache-host.ts";
import { lockIfThere, mustBeThere } from "./data-directory.ts";

/** @throws RepriseError BAD_CONFIG (no such directory), CACHE_UNAVAILABLE, DATA_DIRECTORY_IN_USE, TIER_UNAVAILABLE */
export async function clearCache(config: Pick<Config, "dataDir" | "disk" | "socket">): Promise<number> {
  await using running = await CacheControl.connect(socketPathOf(config));
  if (running === undefined) {
    process.stdout.write(`Cleared ${formatBytes(await clearDirectory(config))} on disk; no cache was running.\n`);
    return 0;
  }
  const { bytesByTier, chunksInUse } = await running.clear();
  const freed = Object.entries(bytesByTier).map(([tier, bytes]) => `${formatBytes(bytes)} ${whereIs(tier)}`);
  const rest = chunksInUse === 0 ? "" : `; chunks in use, to go when they are released: ${chunksInUse}`;
  process.stdout.write(`Cleared ${freed.join(", ")}${rest}.\n`);
  return 0;
}

/** Removes the records of a data directory that nobody owns, and of its drives. @returns bytes */
async function clearDirectory(config: Pick<Config, "dataDir" | "disk">): Promise<number> {
  const directories = diskDirectories(config).filter((each) => existsSync(each));
  if (directories.length === 0) {
    mustBeThere(resolve(config.dataDir));
    return 0;
  }
  using _lock = await lockIfThere(config.dataDir);
  // Nothing is written: whatever the capacity was, all of it goes.
  const drives = directories.map((each) => ({ directory: each, capacityBytes: Number.MAX_SAFE_INTEGER }));
  await using disk = await DiskTier.open({ drives });
  const { usedBytes } = disk.stats();
  await disk.clear();
  return usedBytes;
}
