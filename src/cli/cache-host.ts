/**
 * The cache of this host as the command line builds it: the data directory that is owned, the pool, the disk tier, the
 * cache over both, and the socket where engines reach it.
 *
 *     dataDir/  lock        held while a server lives
 *               secret      32 random bytes, 0600: what tenants' salts are derived with
 *               disk/       the disk tier, unless --disk names other directories
 *               cache.sock  where engines connect, unless --socket says otherwise
 */
import { randomBytes } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { Cache } from "../cache/cache.ts";
import type { CacheStats } from "../cache/counters.ts";
import { within } from "../cache/deadline.ts";
import type { Slot } from "../cache/session.ts";
import type { PoolStats } from "../cache/slot-pool.ts";
import type { TierStats } from "../tier.ts";
import { formatBytes } from "../bytes.ts";
import type { Config } from "../config.ts";
import { availableMemoryBytes } from "../engines/llama/machine.ts";
import { codeOf, describe, RepriseError } from "../errors.ts";
import type { Log } from "../log.ts";
import { extentBytes } from "../ffi/pool-mapping.ts";
import { DirectoryLock } from "../tiers/disk/directory-lock.ts";
import { DiskTier } from "../tiers/disk/disk-tier.ts";
import type { Resized } from "../http/cache-size.ts";
import { MemoryPool, type PoolPlace } from "../tiers/memory.ts";
import { WireServer } from "../wire/server.ts";

const secretBytes = 32;
/** How long a resize is waited for before the answer is that it goes on. */
const resizeMs = 10_000;

export interface CacheHostOptions {
  readonly config: Pick<Config, "dataDir" | "memory" | "poolDir" | "disk" | "socket">;
  readonly log: Log;
}

export interface CacheHostStats extends Omit<CacheStats, "memory" | "tiers"> {
  readonly tiers: { readonly [tier: string]: PoolStats | TierStats };
  /** Chunks that a power cut would lose now: not yet written below the pool. */
  readonly unsavedChunks: number;
}

export class CacheHost implements AsyncDisposable {
  readonly cache: Cache;
  readonly socketPath: string;
  /** What tenants' salts are derived with; it stays the same as long as the data directory lives. */
  readonly secret: Buffer;
  readonly #server: WireServer;
  readonly #pool: MemoryPool;
  readonly #lock: DirectoryLock;
  readonly #config: CacheHostOptions["config"];
  readonly #directory: string;

  private constructor(parts: {
    cache: Cache;
    pool: MemoryPool;
    server: WireServer;
    lock: DirectoryLock;
    secret: Buffer;
    socketPath: string;
    config: CacheHostOptions["config"];
    directory: string;
  }) {
    this.cache = parts.cache;
    this.#pool = parts.pool;
    this.#server = parts.server;
    this.#lock = parts.lock;
    this.#config = parts.config;
    this.#directory = parts.directory;
    this.secret = parts.secret;
    this.socketPath = parts.socketPath;
  }

  /**
   * Takes the data directory, opens the tiers over what they kept, and listens.
   *
   * @throws RepriseError DATA_DIRECTORY_IN_USE, NOT_ENOUGH_MEMORY, ADDRESS_IN_USE, BAD_CONFIG
   */
  static async open({ config, log }: CacheHostOptions): Promise<CacheHost> {
    const directory = resolve(config.dataDir);
    makePrivateDirectory(directory);
    const undo: (() => Promise<void> | void)[] = [];
    try {
      const lock = DirectoryLock.take(directory);
      undo.push(() => lock[Symbol.dispose]());
      const secret = readOrMakeSecret(join(directory, "secret"));
      const place = poolPlace(config, directory);
      mustFit(config.memory, place, place.heldBytes);
      const pool = MemoryPool.open({
        dataDirectory: directory,
        capacityBytes: config.memory,
        maximumBytes: place.maximumBytes,
        directory: place.directory,
        log: log.named("memory"),
      });
      undo.push(() => pool[Symbol.asyncDispose]());
      const tiers = await openDisk(config.disk, directory, log);
      undo.push(...tiers.map((tier) => () => tier[Symbol.asyncDispose]()));
      const cache = await Cache.open({ pool, tiers, log: log.named("cache") });
      undo.push(() => cache.close());
      const socketPath = socketPathOf(config);
      // An adopted pool may have more in it than this configuration allows.
      if (pool.stats().capacityBytes > config.memory) void cache.resize(config.memory);
      mkdirSync(dirname(socketPath), { recursive: true, mode: 0o700 });
      const server = await WireServer.listen({ cache, socketPath, log: log.named("wire") });
      return new CacheHost({ cache, pool, server, lock, secret, socketPath, config, directory });
    } catch (error) {
      for (const step of undo.toReversed()) await step();
      throw error;
    }
  }

  /** The bytes of a leased slot. */
  slotView({ offset, bytes }: Slot): Uint8Array {
    return this.#pool.view(offset, bytes);
  }

  /** What `/cache/stats` answers. */
  stats(): CacheHostStats {
    const { memory, tiers, writeBehind, ...rest } = this.cache.stats();
    const unsavedChunks = writeBehind.chunks + writeBehind.waitingChunks;
    return { tiers: { memory, ...tiers }, unsavedChunks, writeBehind, ...rest };
  }

  /** Resolves when no guest has been connected for so long. Never when the signal fires before. */
  unusedFor(milliseconds: number, signal: AbortSignal): Promise<"unused"> {
    return this.#server.unusedFor(milliseconds, signal);
  }

  /**
   * Moves the memory tier's capacity. What is in use goes later: the answer then says "shrinking".
   *
   * @throws RepriseError BAD_REQUEST (field `memory`), NOT_ENOUGH_MEMORY
   */
  async resize(capacityBytes: number): Promise<Resized> {
    const { maximumBytes, capacityBytes: now, allocatedBytes } = this.#pool.stats();
    if (capacityBytes < extentBytes || capacityBytes > maximumBytes)
      throw new RepriseError(
        "BAD_REQUEST",
        `memory: ${formatBytes(capacityBytes)} cannot be had: a pool in ${dirname(this.#pool.path)} may have ` +
          `${formatBytes(extentBytes)} to ${formatBytes(maximumBytes)}`,
        { field: "memory" },
      );
    if (capacityBytes < now && this.#server.hasPinnedPool)
      throw new RepriseError(
        "BAD_REQUEST",
        "memory: an engine that has registered the pool with its GPU is connected, so that its pages cannot be given back: " +
          "end it first, or restart the cache with another --memory",
        { field: "memory" },
      );
    if (capacityBytes > now) mustFit(capacityBytes, poolPlace(this.#config, this.#directory), allocatedBytes);
    const done = await within(this.cache.resize(capacityBytes), resizeMs);
    return { state: done === "late" ? "shrinking" : "done", memory: this.#pool.stats() };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server[Symbol.asyncDispose]();
    await this.cache.close();
    this.#lock[Symbol.dispose]();
  }
}

/** Where the cache of this configuration listens. */
export function socketPathOf(config: Pick<Config, "dataDir" | "socket">): string {
  return config.socket === "" ? join(resolve(config.dataDir), "cache.sock") : resolve(config.socket);
}

function makePrivateDirectory(directory: string): void {
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw new RepriseError("BAD_CONFIG", `--data-dir ${directory} cannot be made: ${describe(error)}`, {
      cause: error,
    });
  }
}

function readOrMakeSecret(path: string): Buffer {
  try {
    writeFileSync(path, randomBytes(secretBytes), { flag: "wx", mode: 0o600, flush: true });
  } catch (error) {
    if (codeOf(error) !== "EEXIST")
      throw new RepriseError("BAD_CONFIG", `cannot write ${path}: ${describe(error)}`, { cause: error });
  }
  const secret = readFileSync(path);
  if (secret.length !== secretBytes)
    throw new RepriseError(
      "BAD_CONFIG",
      `${path} is damaged: it has ${secret.length} bytes instead of ${secretBytes}; remove it to make a new one`,
    );
  return secret;
}

function poolPlace({ memory, poolDir }: Pick<Config, "memory" | "poolDir">, dataDirectory: string): PoolPlace {
  try {
    return MemoryPool.place({
      dataDirectory,
      wantedBytes: memory,
      ...(poolDir === "" ? {} : { directory: resolve(poolDir) }),
    });
  } catch (error) {
    throw new RepriseError("BAD_CONFIG", `--pool-dir ${poolDir} cannot be used: ${describe(error)}`, { cause: error });
  }
}

/** The pool takes its pages as it fills: what it may ever need must be there now. `held`: what it has already. */
function mustFit(wanted: number, { directory, pages, freeBytes }: PoolPlace, held: number): void {
  // Pages of hugetlbfs were taken from the rest when their store was filled.
  const memoryBytes = pages.areReserved ? freeBytes : availableMemoryBytes();
  if (wanted <= held + Math.min(freeBytes, memoryBytes)) return;
  throw new RepriseError(
    "NOT_ENOUGH_MEMORY",
    `--memory ${formatBytes(wanted)} does not fit: ${directory} has ${formatBytes(freeBytes)} free, and the machine has ` +
      `${formatBytes(memoryBytes)} of memory to give. Use a smaller --memory, or make ${directory} larger ` +
      `(docker run --shm-size, or an emptyDir with medium: Memory)`,
  );
}

/** Where the disk tier may have left records: what the settings name, and the data directory, whatever they say now. */
export function diskDirectories({ dataDir, disk }: Pick<Config, "dataDir" | "disk">): string[] {
  const dataDirectory = resolve(dataDir);
  const named = disk.map(({ directory }) => diskDirectory(directory, dataDirectory));
  return [...new Set([diskDirectory(undefined, dataDirectory), ...named])];
}

function diskDirectory(named: string | undefined, dataDirectory: string): string {
  return named === undefined ? join(dataDirectory, "disk") : resolve(named);
}

/** The drives that were asked for; a size without a directory means the data directory's. None when all is 0. */
async function openDisk(settings: Config["disk"], dataDirectory: string, log: Log): Promise<DiskTier[]> {
  const drives = settings
    .filter(({ bytes }) => bytes > 0)
    .map(({ directory, bytes }) => ({ directory: diskDirectory(directory, dataDirectory), capacityBytes: bytes }));
  const twice = drives.find(({ directory }, i) => drives.findIndex((each) => each.directory === directory) < i);
  if (twice !== undefined)
    throw new RepriseError("BAD_CONFIG", `--disk names ${twice.directory} twice: give each directory one size`);
  return drives.length === 0 ? [] : [await DiskTier.open({ drives, log: log.named("disk") })];
}
