/**
 * The engine process as a guest of the cache: connects, maps the pool, and connects again after a loss.
 */
import type { SessionOptions } from "../../../session.ts";
import { assert, describe } from "../../../errors.ts";
import { PoolMapping } from "../../../ffi/pool-mapping.ts";
import type { Log } from "../../../log.ts";
import { connectCache } from "../../../wire/guest/link.ts";
import type { CacheLink } from "../../../wire/guest/link.ts";
import type { StoredKv } from "./stored-kv.ts";

export interface CacheConnectionOptions {
  readonly socketPath: string;
  readonly session: SessionOptions;
  readonly log: Log;
  /** A pool was mapped. */
  readonly onMapped: (pool: PoolMapping) => void;
  /** The pool that was mapped before is about to go. */
  readonly beforeUnmap: () => Promise<void>;
}

/** Pauses between attempts to make the first connection; later ones are the session's own. */
const firstPauseMs = 100;
const longestPauseMs = 5000;

export class CacheConnection {
  readonly #options: CacheConnectionOptions;
  #session: CacheLink | undefined;
  #pool: PoolMapping | undefined;
  #stored: StoredKv | undefined;

  constructor(options: CacheConnectionOptions) {
    this.#options = options;
  }

  /** The cache, if it is there now. */
  get stored(): StoredKv | undefined {
    return this.#session?.isConnected === true ? this.#stored : undefined;
  }

  /** Tries until the cache answers. Every request until then is computed. */
  async connect(): Promise<void> {
    const { socketPath, session: options, log } = this.#options;
    for (let pauseMs = firstPauseMs; ; pauseMs = Math.min(2 * pauseMs, longestPauseMs)) {
      try {
        const onPoolChanged = (pool: { path: string; bytes: number }) => this.#map(pool);
        const session = await connectCache({ ...options, socketPath, log, onPoolChanged });
        this.#map(session.pool);
        this.#session = session;
        this.#stored = { session, pool: this.#slots };
        return;
      } catch (error) {
        log.debug(`no cache at ${socketPath} yet: ${describe(error)}`);
        await new Promise((resolve) => setTimeout(resolve, pauseMs));
      }
    }
  }

  /** Slots of the pool as it is mapped now: whoever holds a lease of an earlier pool finds that it has fallen. */
  readonly #slots = {
    slot: (offset: number, bytes: number) => this.#mapped().slot(offset, bytes),
  };

  #mapped(): PoolMapping {
    assert(this.#pool !== undefined, "slots are named only once the pool is mapped");
    return this.#pool;
  }

  /** Copies are synchronous, or ended first, so nobody is in the old mapping now. */
  #map({ path, bytes }: { path: string; bytes: number }): void {
    const old = this.#pool;
    this.#pool = PoolMapping.open(path, bytes);
    const { onMapped, beforeUnmap } = this.#options;
    const isFree = old === undefined ? Promise.resolve() : beforeUnmap().then(() => old.close());
    const pool = this.#pool;
    void isFree.then(() => onMapped(pool));
  }
}
