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
import type { Slot } from "../cache/session.ts";
import { formatBytes } from "../bytes.ts";
import type { Config } from "../config.ts";
import { availableMemoryBytes } from "../engines/llama/machine.ts";
import { codeOf, describe, RepriseError } from "../errors.ts";
import type { Log } from "../log.ts";
import { DirectoryLock } from "../tiers/disk/directory-lock.ts";
import { DiskTier } from "../tiers/disk/disk-tier.ts";
import { MemoryPool } from "../tiers/memory.ts";
import { WireServer } from "../wire/server.ts";

const secretBytes = 32;

export interface CacheHostOptions {
  readonly config: Pick<Config, "dataDir" | "memory" | "disk" | "socket">;
  readonly log: Log;
}

export class CacheHost implements AsyncDisposable {
  readonly cache: Cache;
  readonly socketPath: string;
  /** What tenants' salts are derived with; it stays the same as long as the data directory lives. */
  readonly secret: Buffer;
  readonly #server: WireServer;
  readonly #pool: MemoryPool;
  readonly #lock: DirectoryLock;

  private constructor(parts: {
    cache: Cache;
    pool: MemoryPool;
    server: WireServer;
    lock: DirectoryLock;
    secret: Buffer;
    socketPath: string;
  }) {
    this.cache = parts.cache;
    this.#pool = parts.pool;
    this.#server = parts.server;
    this.#lock = parts.lock;
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
      mustFit(config.memory);
      const pool = MemoryPool.open({ id: String(process.pid), capacityBytes: config.memory });
      undo.push(() => pool[Symbol.asyncDispose]());
      const tiers = await openDisk(config.disk, directory, log);
      undo.push(...tiers.map((tier) => () => tier[Symbol.asyncDispose]()));
      const cache = await Cache.open({ pool, tiers, log: log.named("cache") });
      undo.push(() => cache.close());
      const socketPath = config.socket === "" ? join(directory, "cache.sock") : resolve(config.socket);
      mkdirSync(dirname(socketPath), { recursive: true, mode: 0o700 });
      const server = await WireServer.listen({ cache, socketPath, log: log.named("wire") });
      return new CacheHost({ cache, pool, server, lock, secret, socketPath });
    } catch (error) {
      for (const step of undo.toReversed()) await step();
      throw error;
    }
  }

  /** The bytes of a leased slot. */
  slotView({ offset, bytes }: Slot): Uint8Array {
    return this.#pool.view(offset, bytes);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server[Symbol.asyncDispose]();
    await this.cache.close();
    this.#lock[Symbol.dispose]();
  }
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

/** The pool takes its pages as it fills: what it may ever need must be there now. */
function mustFit(wanted: number): void {
  const { directory, freeBytes } = MemoryPool.place();
  const memoryBytes = availableMemoryBytes();
  if (wanted <= Math.min(freeBytes, memoryBytes)) return;
  throw new RepriseError(
    "NOT_ENOUGH_MEMORY",
    `--memory ${formatBytes(wanted)} does not fit: ${directory} has ${formatBytes(freeBytes)} free, and the machine has ` +
      `${formatBytes(memoryBytes)} of memory to give. Use a smaller --memory, or make ${directory} larger ` +
      `(docker run --shm-size, or an emptyDir with medium: Memory)`,
  );
}

/** The drives that were asked for; a size without a directory means the data directory's. None when all is 0. */
async function openDisk(settings: Config["disk"], dataDirectory: string, log: Log): Promise<DiskTier[]> {
  const drives = settings
    .filter(({ bytes }) => bytes > 0)
    .map(({ directory, bytes }) => ({
      directory: directory === undefined ? join(dataDirectory, "disk") : resolve(directory),
      capacityBytes: bytes,
    }));
  const twice = drives.find(({ directory }, i) => drives.findIndex((each) => each.directory === directory) < i);
  if (twice !== undefined)
    throw new RepriseError("BAD_CONFIG", `--disk names ${twice.directory} twice: give each directory one size`);
  return drives.length === 0 ? [] : [await DiskTier.open({ drives, log: log.named("disk") })];
}
