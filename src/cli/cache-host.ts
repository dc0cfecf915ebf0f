/**
 * The cache of this host as the command line builds it: the data directory that is owned, the pool, the disk tier, the
 * cache over both, and the socket where engines reach it.
 *
 *     dataDir/  lock        held while a server lives
 *               secret      32 random bytes, 0600: what tenants' salts are derived with
 *               pool        the path of the memory tier's file
 *               drives      where --disk has kept records elsewhere
 *               models.json what people call the models of the spaces
 *               disk/       the disk tier, unless --disk names other directories
 *               cache.sock  where engines connect, unless --socket says otherwise
 *
 * A tier whose drive is full, read-only or broken is left out, with a warning: the cache is smaller, and nobody's request fails.
 */
import { dirname, join, resolve } from "node:path";
import { Cache } from "../cache/cache.ts";
import { cacheFigures, type CacheStats } from "../cache/cache-stats.ts";
import { figureSource, type FigureSource } from "../figures.ts";
import { diskFigures } from "../tiers/disk/disk-figures.ts";
import { within } from "../deadline.ts";
import type { SpaceId } from "../identity/space.ts";
import type { Slot } from "../session.ts";
import type { PoolStats } from "../cache/pool/slot-pool.ts";
import type { Tier, TierStats } from "../tier.ts";
import { formatBytes } from "../bytes.ts";
import type { Config } from "../config.ts";
import { availableMemoryBytes } from "../engines/llama/model/machine.ts";
import { codeOf, describe, RepriseError } from "../errors.ts";
import type { Log } from "../log.ts";
import { extentBytes } from "../ffi/pool-mapping.ts";
import type { DiskTierStats } from "../tiers/disk/disk-stats.ts";
import { DiskTier } from "../tiers/disk/disk-tier.ts";
import type { Resized } from "../http/admin/cache-size.ts";
import { EventLoopDelay, processFigures } from "../http/metrics/event-loop-delay.ts";
import { MemoryPool, type PoolPlace } from "../tiers/memory.ts";
import { WireServer, type WireServerOptions } from "../wire/cache/server.ts";
import type { PeerServer, PeerServerStats } from "../peers/serving/peer-server.ts";
import { mustFitSocketAddress } from "../wire/socket-place.ts";
import { DataDirectory, isDriveFault } from "./data-directory.ts";
import { ModelNames } from "./model-names.ts";
import { listenForPeers, type ListenSetting, readListening } from "./listen-for-peers.ts";
import { rememberDrives, rememberedDrives } from "./remembered-drives.ts";
import { openSharedTiers } from "./shared-tiers.ts";
import { SocketFolder, sweepSocketFolders } from "./socket-folder.ts";

const dayMs = 24 * 3_600_000;
/** How long a resize is waited for before the answer is that it goes on. */
const resizeMs = 10_000;

export interface CacheHostOptions {
  readonly config: Pick<Config, "dataDir" | "memory" | "poolDir" | "disk" | "scrubDays" | "socket"> &
    Partial<Pick<Config, "tier" | "tierKeyFile" | "mooncakePython" | ListenSetting>>;
  readonly log: Log;
}

export interface CacheHostStats extends Omit<CacheStats, "memory" | "tiers"> {
  readonly tiers: { readonly [tier: string]: PoolStats | TierStats };
  /** What other hosts read; undefined: they cannot. */
  readonly peers?: PeerServerStats;
  /** Chunks that a power cut would lose now: not yet written below the pool. */
  readonly unsavedChunks: number;
}

interface Door {
  readonly server: WireServer;
  /** The socket's own folder, when it could not lie where it should. */
  readonly folder: SocketFolder | undefined;
}

export class CacheHost implements AsyncDisposable {
  readonly cache: Cache;
  readonly socketPath: string;
  /** What tenants' salts are derived with. */
  readonly secret: Buffer;
  readonly #server: WireServer;
  readonly #peers: PeerServer | undefined;
  readonly #socketFolder: SocketFolder | undefined;
  /** Ends what goes on beside the cache. */
  readonly #ending = new AbortController();
  /** Resolves when the folders of dead caches' sockets are gone. */
  readonly swept: Promise<void>;
  readonly #pool: MemoryPool;
  readonly #directory: DataDirectory;
  readonly #names: ModelNames | undefined;
  readonly #config: CacheHostOptions["config"];
  readonly #delay = EventLoopDelay.start();

  private constructor(parts: {
    cache: Cache;
    pool: MemoryPool;
    door: Door;
    peers: PeerServer | undefined;
    config: CacheHostOptions["config"];
    directory: DataDirectory;
    names: ModelNames | undefined;
    log: Log;
  }) {
    this.cache = parts.cache;
    this.#pool = parts.pool;
    this.#server = parts.door.server;
    this.#peers = parts.peers;
    this.#socketFolder = parts.door.folder;
    this.#config = parts.config;
    this.#directory = parts.directory;
    this.#names = parts.names;
    this.secret = parts.directory.secret;
    this.socketPath = parts.door.server.socketPath;
    this.swept = sweepSocketFolders({ signal: this.#ending.signal, log: parts.log });
  }

  /**
   * Takes the data directory, opens the tiers over what they kept, and listens.
   *
   * @throws RepriseError DATA_DIRECTORY_IN_USE, NOT_ENOUGH_MEMORY, ADDRESS_IN_USE, BAD_CONFIG
   */
  static async open({ config, log }: CacheHostOptions): Promise<CacheHost> {
    mustFitSocketAddress(socketPathOf(config));
    const listening = readListening(config);
    const undo: (() => Promise<void> | void)[] = [];
    try {
      const directory = await DataDirectory.take(config.dataDir, log);
      undo.push(() => directory[Symbol.dispose]());
      const place = await poolPlace(config, directory.path);
      mustFit(config.memory, place, place.heldBytes);
      const pool = openPool(config, { place, directory, log: log.named("memory") });
      undo.push(() => pool[Symbol.asyncDispose]());
      const tiers: Tier[] = await openDisk(config, directory, log);
      undo.push(async () => void (await Promise.all(tiers.map((tier) => tier[Symbol.asyncDispose]()))));
      tiers.push(...openSharedTiers(config, log));
      const foundByKey = listening !== undefined;
      const cache = await Cache.open({ pool, tiers, foundByKey, log: log.named("cache") });
      undo.push(() => cache.close());
      // An adopted pool may have more in it than this configuration allows.
      if (pool.stats().capacityBytes > config.memory) void cache.resize(config.memory);
      const peers = await listenForPeers(listening, cache, log);
      undo.push(() => peers?.close());
      const names = directory.isReadOnly ? undefined : ModelNames.open(directory.path, log);
      const onSession = (space: SpaceId, model: string) => names?.note(space, model);
      const door = await listen({ socketPath: socketPathOf(config), cache, onSession, log: log.named("wire") }, config);
      return new CacheHost({ cache, pool, door, peers, config, directory, names, log });
    } catch (error) {
      for (const step of undo.toReversed()) await step();
      throw error;
    }
  }

  /** The bytes of a leased slot. */
  slotView({ offset, bytes }: Slot): Uint8Array {
    return this.#pool.view(offset, bytes);
  }

  /** Where other hosts read, as `--listen` says it, with the port that was taken. */
  get peerAddress(): string | undefined {
    return this.#peers?.address;
  }

  /** What `/cache/stats` answers. */
  stats(): CacheHostStats {
    const { memory, tiers, writeBehind, ...rest } = this.cache.stats();
    const unsavedChunks = writeBehind.chunks + writeBehind.waitingChunks;
    const peers = this.#peers === undefined ? {} : { peers: this.#peers.stats() };
    return { tiers: { memory, ...tiers }, unsavedChunks, ...peers, writeBehind, ...rest };
  }

  /** What `/metrics` shows of the cache, its tiers, and the process that they are in. */
  figures(): FigureSource[] {
    return [
      figureSource(cacheFigures, () => this.cache.stats()),
      figureSource(diskFigures, () => this.cache.stats().tiers.disk as DiskTierStats | undefined), // the tier of this name
      figureSource(processFigures, () => this.#delay),
    ];
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
    if (capacityBytes < now && this.#server.hasRegisteredPool)
      throw new RepriseError(
        "BAD_REQUEST",
        "memory: an engine that has registered the pool with its GPU is connected, so that its pages cannot be given back: " +
          "end it first, or restart the cache with another --memory",
        { field: "memory" },
      );
    if (capacityBytes > now)
      mustFit(capacityBytes, await poolPlace(this.#config, this.#directory.path), allocatedBytes);
    const done = await within(this.cache.resize(capacityBytes), resizeMs);
    return { state: done === "late" ? "shrinking" : "done", memory: this.#pool.stats() };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ending.abort();
    this.#delay[Symbol.dispose]();
    await this.#peers?.close();
    await this.#server[Symbol.asyncDispose]();
    this.#socketFolder?.[Symbol.dispose]();
    await this.swept;
    await this.cache.close();
    await this.#names?.written();
    this.#directory[Symbol.dispose]();
  }
}

/** Where the cache of this configuration listens. */
export function socketPathOf(config: Pick<Config, "dataDir" | "socket">): string {
  return config.socket === "" ? join(resolve(config.dataDir), "cache.sock") : resolve(config.socket);
}

function openPool(
  config: CacheHostOptions["config"],
  parts: { place: PoolPlace; directory: DataDirectory; log: Log },
): MemoryPool {
  const { place, directory, log } = parts;
  try {
    return MemoryPool.open({
      ...(directory.isReadOnly ? {} : { dataDirectory: directory.path }),
      capacityBytes: config.memory,
      maximumBytes: place.maximumBytes,
      directory: place.directory,
      log,
    });
  } catch (error) {
    if (error instanceof RepriseError) throw error;
    throw new RepriseError("BAD_CONFIG", `no pool can be made in ${place.directory}`, { cause: error });
  }
}

/** Where the drive of the data directory takes no socket, the socket lies in a folder of its own, which goes with the server. */
async function listen(
  options: WireServerOptions & { readonly log: Log },
  config: Pick<Config, "socket">,
): Promise<Door> {
  const { socketPath, log } = options;
  try {
    return { server: await WireServer.listen(options), folder: undefined };
  } catch (error) {
    if (config.socket !== "" || !isDriveFault(error)) {
      if (error instanceof RepriseError) throw error;
      throw new RepriseError("BAD_CONFIG", `no socket can be made at ${socketPath}`, { cause: error });
    }
    const door = await listenElsewhere(options);
    log.warn(
      `no socket can be made at ${socketPath}: ${describe(error)}; engines reach the cache in ${dirname(door.server.socketPath)}`,
    );
    return door;
  }
}

async function listenElsewhere(options: WireServerOptions): Promise<Door> {
  let folder: SocketFolder | undefined;
  try {
    folder = SocketFolder.make();
    const server = await WireServer.listen({ ...options, socketPath: folder.socketPath });
    return { server, folder };
  } catch (cause) {
    folder?.[Symbol.dispose]();
    throw new RepriseError(
      "BAD_CONFIG",
      `no socket can be made at ${options.socketPath}, nor in the folder for temporary files: give another place with --socket`,
      {
        cause,
      },
    );
  }
}

async function poolPlace(
  { memory, poolDir }: Pick<Config, "memory" | "poolDir">,
  dataDirectory: string,
): Promise<PoolPlace> {
  try {
    return await MemoryPool.place({
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

/** Where the disk tier may have left records: the data directory, what the settings name, and what earlier ones named. */
export function diskDirectories({ dataDir, disk }: Pick<Config, "dataDir" | "disk">): string[] {
  const dataDirectory = resolve(dataDir);
  const named = disk.map(({ directory }) => diskDirectory(directory, dataDirectory));
  return [...new Set([diskDirectory(undefined, dataDirectory), ...named, ...rememberedDrives(dataDirectory)])];
}

function diskDirectory(named: string | undefined, dataDirectory: string): string {
  return named === undefined ? join(dataDirectory, "disk") : resolve(named);
}

function elsewhere(drives: readonly { readonly directory: string }[], dataDirectory: string): string[] {
  return drives.map(({ directory }) => directory).filter((each) => each !== diskDirectory(undefined, dataDirectory));
}

/**
 * The drives that were asked for; a size without a directory means the data directory's. None when all is 0, or when none of them
 * works now: what is stored is then kept in memory alone.
 */
async function openDisk(
  { disk, scrubDays }: Pick<Config, "disk" | "scrubDays">,
  dataDirectory: DataDirectory,
  log: Log,
): Promise<DiskTier[]> {
  const drives = disk
    .filter(({ bytes, directory }) => bytes > 0 && (directory !== undefined || !dataDirectory.isReadOnly))
    .map(({ directory, bytes }) => ({ directory: diskDirectory(directory, dataDirectory.path), capacityBytes: bytes }));
  const twice = drives.find(({ directory }, i) => drives.findIndex((each) => each.directory === directory) < i);
  if (twice !== undefined)
    throw new RepriseError("BAD_CONFIG", `--disk names ${twice.directory} twice: give each directory one size`);
  if (drives.length === 0) return [];
  if (!dataDirectory.isReadOnly) await rememberDrives(dataDirectory.path, elsewhere(drives, dataDirectory.path), log);
  try {
    const scrub = scrubDays === 0 ? { scrubBytesPerSecond: 0 } : { scrubEveryMs: scrubDays * dayMs };
    return [await DiskTier.open({ drives, ...scrub, log: log.named("disk") })];
  } catch (error) {
    if (codeOf(error) !== "TIER_UNAVAILABLE") throw error;
    if (!isDriveFault(error)) throw new RepriseError("BAD_CONFIG", describe(error));
    log.warn(`${describe(error)}; going on without a disk tier`);
    return [];
  }
}
