/**
 * The cache: opens sessions for guests and owns what they share: the index, the leases, the pool and the tiers below.
 *
 *     sessions ──► spaces (radix trees) ──► chunk store (pool slots, eviction) ◄──► tiering ◄──► tiers
 *        └───────► leases
 */
import { describe, RepriseError } from "../errors.ts";
import { silentLog, type Log } from "../log.ts";
import { ownedLog, type Compacted, type LogTier, type Tier } from "../tier.ts";
import type { Root } from "../identity/keys.ts";
import type { Tokens } from "../identity/tokens.ts";
import type { ChunkId } from "./index/chunk-id.ts";
import { LocalSession } from "./sessions/local-session.ts";
import { BroughtTexts } from "./sessions/brought-texts.ts";
import { ReadsByKey } from "./sessions/reads-by-key.ts";
import { Adoption } from "./recovery/from-pool.ts";
import { ChunkStore } from "./pool/chunk-store.ts";
import { flag } from "./index/chunk-table.ts";
import { copyOf, newCounters, type Counters } from "./counters.ts";
import { ChunkEvents } from "./events.ts";
import type { SubscribeOptions, Subscription } from "./subscription.ts";
import type { CacheStats, TierFigures } from "./cache-stats.ts";
import { within } from "../deadline.ts";
import type { EvictionPolicy } from "./eviction/policy.ts";
import { HazardPolicy } from "./eviction/hazard-policy.ts";
import { LeaseTable, type HolderId } from "./pool/leases.ts";
import { LoadOrCompute } from "./tiering/load-or-compute.ts";
import { Promotion } from "./tiering/promotion.ts";
import { TierCounts } from "./tiering/tier-counters.ts";
import { TierStates } from "./tiering/tier-states.ts";
import { WriteBehind } from "./tiering/write-behind.ts";
import { Recovery } from "./recovery/recovery.ts";
import { Resizing } from "./pool/resizing.ts";
import type { SessionLimits, SessionContext } from "./sessions/session-context.ts";
import { maxGroups, type BringOptions, type Cleared, type SessionOptions } from "../session.ts";
import { groupsOf } from "../identity/space.ts";
import type { PoolStats, SlotPool } from "./pool/slot-pool.ts";
import { Spaces } from "./index/spaces.ts";
import { StoredChunks } from "./index/stored-chunk.ts";
import { AnywhereIndex } from "./anywhere/anywhere-index.ts";

/** Limits of the cache. Defaults are far above what honest guests use; they bound what a broken one can take. */
export interface CacheLimits extends SessionLimits {
  /** Sessions at a time; a further one is refused with QUEUE_FULL. */
  readonly sessions: number;
}

export const defaultLimits: CacheLimits = {
  tokensPerRequest: 2 ** 21,
  chunksPerReservation: 4096,
  openLeases: 16_384,
  sessions: 256,
};

export interface CacheOptions {
  /** The cache takes the pool and the tiers over and closes them. */
  readonly pool: SlotPool;
  /** Tiers below the pool, from fast to slow. */
  readonly tiers?: readonly Tier[];
  /** Which chunk leaves a full pool; {@link HazardPolicy} unless given. */
  readonly policy?: EvictionPolicy;
  /** Milliseconds that never go back; the process's own clock unless given. */
  readonly now?: () => number;
  readonly limits?: Partial<CacheLimits>;
  /** Bytes of slots that may be held for writing to the first tier, half of it for the next …: a quarter of the pool, at most 1 GiB, unless given. */
  readonly writeBehindBytes?: number;
  /** Other hosts may read what this cache has ({@link Cache.reads}): its chunks are found by their keys as well. */
  readonly foundByKey?: boolean;
  /** Texts are found wherever they stand in a prompt ({@link AnywhereIndex}). */
  readonly anywhere?: boolean;
  /** How long a tier that failed is left alone; 5 s unless given. */
  readonly retryMs?: number;
  /** How long guests of a process that died may go on copying out of and into the pool it left: 5 s unless given. */
  readonly graceMs?: number;
  readonly log?: Log;
}

/** Parts of one chunk, of all ranks: what tiers keep of one. */
const maxParts = 1024;
/** How long a cache that is cleared waits for what is being written below. */
const clearMs = 10_000;
/** How long a closing cache goes on writing what waits. */
const closeMs = 30_000;

export class Cache implements AsyncDisposable {
  readonly #pool: SlotPool;
  readonly #log: Log;
  readonly #tiers: readonly Tier[];
  readonly #limits: CacheLimits;
  readonly #counters: Counters = newCounters();
  readonly #leases = new LeaseTable<ChunkId>();
  readonly #events: ChunkEvents;
  readonly #store: ChunkStore;
  readonly #spaces: Spaces;
  readonly #anywhere: AnywhereIndex | undefined;
  readonly #recovery: Recovery;
  readonly #tierCounts = new TierCounts();
  readonly #tierStates: TierStates;
  readonly #writeBehind: WriteBehind;
  readonly #promotion: Promotion;
  readonly #loadOrCompute: LoadOrCompute;
  readonly #adoption: Adoption;
  readonly #resizing: Resizing;
  readonly #sessions = new Set<LocalSession>();
  readonly #now: () => number;
  readonly #brought = new BroughtTexts();
  #lastHolder = 0;
  #closed = false;

  private constructor(options: CacheOptions) {
    this.#pool = options.pool;
    this.#log = options.log ?? silentLog;
    this.#tiers = options.tiers ?? [];
    this.#limits = { ...defaultLimits, ...options.limits };
    const counters = this.#counters;
    const { pool, policy = new HazardPolicy(), now = () => performance.now() } = options;
    this.#now = now;
    const chunks = new StoredChunks(this.#tiers, options);
    this.#anywhere = options.anywhere === true ? new AnywhereIndex(chunks) : undefined;
    this.#events = new ChunkEvents({ chunks, counters, indexes: () => this.#spaces.indexes() });
    const store = new ChunkStore({ chunks, pool, policy, leases: this.#leases, events: this.#events, now });
    this.#store = store;
    this.#spaces = new Spaces({ chunks, setOwner: (index, name) => store.setOwner(index, name) });
    const log = this.#log;
    const tierCounts = this.#tierCounts;
    this.#tierStates = new TierStates({ tiers: this.#tiers, tierCounts, log, retryMs: options.retryMs ?? 5000, now });
    const below = { store, tiers: this.#tiers, counters, tierCounts, tierStates: this.#tierStates, now };
    this.#loadOrCompute = new LoadOrCompute(now);
    this.#recovery = new Recovery({ ...below, spaces: this.#spaces, loadOrCompute: this.#loadOrCompute });
    this.#promotion = new Promotion({ ...below, loadOrCompute: this.#loadOrCompute, log });
    const queueBytes = () => options.writeBehindBytes ?? Math.min(pool.stats().capacityBytes / 4, 2 ** 30);
    this.#writeBehind = new WriteBehind({ ...below, queueBytes });
    const { graceMs = 5000 } = options;
    this.#adoption = new Adoption({
      store,
      spaces: this.#spaces,
      recovery: this.#recovery,
      writeBehind: this.#writeBehind,
      counters,
      log: this.#log,
      graceMs,
    });
    this.#resizing = new Resizing(store);
  }

  /**
   * Opens a cache over what its tiers kept. That comes back in the background, and until it has it is a miss; a second is
   * waited for it, which is enough for some million chunks.
   */
  static async open(options: CacheOptions): Promise<Cache> {
    const cache = new Cache(options);
    cache.#recovery.start((tier, error) =>
      cache.#log.warn(`${tier.name} tier: what it kept cannot be read: ${describe(error)}`),
    );
    cache.#adoption.start();
    cache.#tierStates.start();
    await cache.recovered(1000);
    return cache;
  }

  /** Resolves when what the tiers kept is known, and can be found in the spaces that are open, or `waitMs` are over. */
  async recovered(waitMs: number): Promise<void> {
    await within(this.#recovery.settled(), waitMs);
  }

  /**
   * A session for one guest.
   *
   * @throws RepriseError BAD_REQUEST (with the field) when the options cannot be served, QUEUE_FULL when there are too many sessions.
   */
  openSession(options: SessionOptions): LocalSession {
    if (this.#closed) throw new RepriseError("CACHE_UNAVAILABLE", "the cache is closed");
    this.#mustServe(options);
    if (this.#sessions.size >= this.#limits.sessions)
      throw new RepriseError("QUEUE_FULL", `the cache has ${this.#limits.sessions} sessions already: close some`);
    const context: SessionContext = {
      spaces: this.#spaces,
      recovery: this.#recovery,
      store: this.#store,
      leases: this.#leases,
      writeBehind: this.#writeBehind,
      promotion: this.#promotion,
      loadOrCompute: this.#loadOrCompute,
      tierStates: this.#tierStates,
      counters: this.#counters,
      limits: this.#limits,
      now: this.#now,
    };
    const holder = (this.#lastHolder += 1) as HolderId;
    const session = new LocalSession(context, options, { holder, onClose: () => this.#sessions.delete(session) });
    this.#sessions.add(session);
    return session;
  }

  /**
   * Keeps what is stored of a text in the pool for so long, in every space that a session is open for.
   *
   * @returns the most tokens kept in any of them.
   * @throws RepriseError QUEUE_FULL when as many texts are being brought into memory as may be, of the tenant or of all.
   */
  pin(root: Root, tokens: Tokens, seconds: number, options: BringOptions): Promise<number> {
    return this.#bring(root, (session) => session.pin(root, tokens, seconds, options));
  }

  /** Brings what is stored of a text, here or in a shared store, into the pool. @returns, @throws as {@link pin} */
  prefetch(root: Root, tokens: Tokens, options: BringOptions): Promise<number> {
    return this.#bring(root, (session) => session.prefetch(root, tokens, options));
  }

  /** Reads for somebody who knows chunks by their keys alone: another host. Its leases fall when it is closed. */
  reads(): ReadsByKey {
    if (this.#closed) throw new RepriseError("CACHE_UNAVAILABLE", "the cache is closed");
    const holder = (this.#lastHolder += 1) as HolderId;
    return new ReadsByKey({ store: this.#store, leases: this.#leases, holder, now: this.#now });
  }

  stats(): CacheStats {
    const tiers = Object.fromEntries(this.#tiers.map((tier) => [tier.name, this.#statsOf(tier)]));
    return {
      ...copyOf(this.#counters),
      ...this.#spaces.stats(),
      sessions: this.#sessions.size,
      leases: this.#leases.size,
      reservedBytes: this.#leases.reservedBytes,
      memory: this.#pool.stats(),
      pinnedBytes: this.#store.pinnedBytes,
      tiers,
      engines: [...this.#sessions].flatMap((session) => session.engineFigures() ?? []),
      writeBehind: this.#writeBehind.stats(),
    };
  }

  /**
   * Tells what comes into the tiers and leaves them from now on. The first subscription walks through the index once; what is
   * there already, {@link Subscription.held} tells.
   *
   * @throws RepriseError BAD_REQUEST (with the field), CACHE_UNAVAILABLE when the cache is closed.
   */
  subscribe(options: SubscribeOptions = {}): Subscription {
    if (this.#closed) throw new RepriseError("CACHE_UNAVAILABLE", "the cache is closed");
    return this.#events.subscribe(options);
  }

  /** Resolves when all that a killed process left in the pool has been looked at: some moments after the start. */
  get adopted(): Promise<void> {
    return this.#adoption.done;
  }

  /**
   * Moves the pool's capacity, in whole extents. Memory that goes is evicted, where least is likely to be read first, and
   * given back to the system; what is leased goes when its lease falls. A later call takes the place of an earlier one.
   *
   * @returns the pool's figures when all that is to go is gone.
   */
  async resize(capacityBytes: number): Promise<PoolStats> {
    await this.#resizing.resize(capacityBytes);
    return this.#pool.stats();
  }

  /** Asserts that index, leases, pool and tiers tell the same story. */
  check(): void {
    this.#store.check(this.#spaces.indexes());
    this.#store.chunks.checkKeys(this.#spaces.indexes());
    this.#anywhere?.check(this.#spaces.indexes());
  }

  /**
   * Forgets all that is stored, in memory and in every log below, such that none of it is found again, nor after a
   * restart. What lies in a shared tier is others' too and stays. Pins end. What a session is using goes when it is done with it. What is saved meanwhile may be cleared as
   * well.
   *
   * @throws RepriseError TIER_UNAVAILABLE when a tier below cannot be cleared.
   */
  async clear(): Promise<Cleared> {
    // What is not in the index yet would be found again.
    await Promise.all([this.#adoption.done, this.#recovery.settled()]);
    const before = this.#usedBytes();
    const { table } = this.#store.chunks;
    this.#store.unpinAll();
    for (const { tree } of this.#spaces.indexes())
      for (const chunk of Array.from(tree.nodes())) {
        if (!table.has(chunk) || !table.is(chunk, flag.filled)) continue;
        table.mark(chunk, flag.superseded, true); // goes now, or when nobody uses it any more
        this.#store.reconcile(chunk);
      }
    // What is on its way down must not arrive after the tier was cleared.
    await within(this.#writeBehind.drained(), clearMs);
    for (const tier of this.#logs()) await tier.clear();
    this.#events.cleared();
    let chunksInUse = 0;
    for (const { tree } of this.#spaces.indexes())
      for (const chunk of tree.nodes()) if (table.is(chunk, flag.superseded)) chunksInUse += 1;
    const after = this.#usedBytes();
    const freed = Object.entries(before).map(
      ([tier, bytes]) => [tier, Math.max(0, bytes - (after[tier] ?? 0))] as const,
    );
    return { bytesByTier: Object.fromEntries(freed), chunksInUse };
  }

  /** Gives back the room of what cannot be found any more, in the tiers below; nothing that can be found is lost. */
  async compact(signal: AbortSignal): Promise<Compacted> {
    await this.#recovery.settled(); // records that came back twice are known then
    const done = await Promise.all(this.#logs().map((tier) => tier.compact(signal)));
    return {
      freedBytes: Object.assign({}, ...done.map(({ freedBytes }) => freedBytes)),
      movedBytes: Object.assign({}, ...done.map(({ movedBytes }) => movedBytes)),
    };
  }

  /** Resolves when all that was committed is in the tiers below, as far as they take it, and survives a power cut. */
  async flush(): Promise<void> {
    await this.#adoption.handedOver;
    await this.#writeBehind.drained();
    for (const tier of this.#logs()) await tier.flush();
  }

  /** Writes what waits, ends all sessions, closes the tiers and the pool. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#resizing.close();
    await this.#adoption.close();
    for (const session of this.#sessions) await session.close();
    await this.#brought.close();
    await this.#recovery.stop();
    if ((await within(this.#writeBehind.drained(), closeMs)) === "late")
      this.#log.warn(`not everything could be written below within ${closeMs} ms; closing without it`);
    await Promise.all([this.#writeBehind.close(), this.#promotion.close()]);
    this.#tierStates.close();
    for (const tier of this.#tiers) {
      try {
        await tier[Symbol.asyncDispose]();
      } catch (error) {
        this.#log.warn(`cannot close the ${tier.name} tier: ${describe(error)}`);
      }
    }
    this.#events.close();
    await this.#pool[Symbol.asyncDispose]();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #statsOf(tier: Tier): TierFigures {
    const own = tier.stats();
    const counted = this.#tierCounts.copyOf(tier);
    return {
      ...own,
      ...counted,
      // Those that it read, and those that do not fit where it says that they belong.
      corruptRecords: own.corruptRecords + counted.corruptRecords,
      ...this.#loadOrCompute.figures(tier.name),
      state: this.#tierStates.stateOf(tier),
    };
  }

  #bring({ tenant, salt }: Root, work: (session: LocalSession) => Promise<number>): Promise<number> {
    return this.#brought.bring(tenant ?? salt, this.#sessions, work);
  }

  #logs(): LogTier[] {
    return this.#tiers.flatMap((tier) => ownedLog(tier) ?? []);
  }

  #usedBytes(): Record<string, number> {
    const below = this.#tiers.map((tier) => [tier.name, tier.stats().usedBytes]);
    return { memory: this.#pool.stats().usedBytes, ...Object.fromEntries(below) };
  }

  #mustServe({ space, rank, slotBytes }: SessionOptions): void {
    const refuse = (field: string, reason: string): never => {
      throw new RepriseError("BAD_REQUEST", `cannot open a session: ${reason}`, { field });
    };
    if (!isIntegerFrom1(space.tensorParallel, maxParts))
      refuse("tensorParallel", `tensorParallel must be 1 to ${maxParts}`);
    if (!isIntegerFrom1(space.chunkTokens, 65_536)) refuse("chunkTokens", "chunkTokens must be 1 to 65536");
    if (!Number.isSafeInteger(rank) || rank < 0 || rank >= space.tensorParallel)
      refuse("rank", `rank ${rank} is not below tensorParallel ${space.tensorParallel}`);
    const kinds = groupsOf(space);
    if (!kinds.every((kind) => kind === "rows" || kind === "snapshot")) refuse("groups", "a group is rows or snapshot");
    if (!kinds.includes("rows") || kinds.length > maxGroups || kinds.length * space.tensorParallel > maxParts)
      refuse("groups", `groups must be 1 to ${maxGroups}, one of them rows, and ${maxParts} for all ranks together`);
    if (slotBytes.length !== kinds.length)
      refuse("slotBytes", `slotBytes has ${slotBytes.length} sizes, and the space ${kinds.length} groups`);
    const { maxSlotBytes } = this.#pool;
    for (const bytes of slotBytes)
      if (!isIntegerFrom1(bytes, maxSlotBytes))
        refuse(
          "slotBytes",
          `a chunk's payload of ${bytes} bytes is not 1 to ${maxSlotBytes}: use fewer tokens per chunk`,
        );
  }
}

function isIntegerFrom1(value: number, limit: number): boolean {
  return Number.isSafeInteger(value) && value >= 1 && value <= limit;
}
