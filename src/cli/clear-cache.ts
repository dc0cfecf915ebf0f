/**
 * `reprise cache clear`: empties a cache that runs through its socket; where none runs, takes the data directory and
 * removes the records itself.
 */
import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import { formatBytes } from "../bytes.ts";
import type { Config } from "../config.ts";
import { DirectoryLock } from "../tiers/disk/directory-lock.ts";
import { DiskTier } from "../tiers/disk/disk-tier.ts";
import { CacheControl } from "../wire/control.ts";
import { socketPathOf } from "./cache-host.ts";

/** @throws RepriseError CACHE_UNAVAILABLE, DATA_DIRECTORY_IN_USE, TIER_UNAVAILABLE */
export async function clearCache(config: Pick<Config, "dataDir" | "socket">): Promise<number> {
  await using running = await CacheControl.connect(socketPathOf(config));
  if (running === undefined) {
    process.stdout.write(`Cleared ${formatBytes(await clearDirectory(config))} on disk; no cache was running.\n`);
    return 0;
  }
  const { bytesByTier, chunksInUse } = await running.clear();
  const freed = Object.entries(bytesByTier).map(
    ([tier, bytes]) => `${formatBytes(bytes)} ${tier === "memory" ? "in" : "on"} ${tier}`,
  );
  const rest = chunksInUse === 0 ? "" : `; chunks in use, to go when they are released: ${chunksInUse}`;
  process.stdout.write(`Cleared ${freed.join(", ")}${rest}.\n`);
  return 0;
}

/** Removes the records of a data directory that nobody owns. @returns bytes */
async function clearDirectory({ dataDir }: Pick<Config, "dataDir">): Promise<number> {
  const directory = resolve(dataDir);
  const diskDirectory = join(directory, "disk");
  if (!existsSync(diskDirectory)) return 0;
  using _lock = DirectoryLock.take(directory);
  // Nothing is written: whatever the capacity was, all of it goes.
  await using disk = await DiskTier.open({ directory: diskDirectory, capacityBytes: Number.MAX_SAFE_INTEGER });
  const { usedBytes } = disk.stats();
  await disk.clear();
  return usedBytes;
}
