/**
 * One guest's session in the cache's own process: the verbs of session.ts over index, store and tiers.
 *
 * Between two awaits everything here is one step, so the index cannot change under it. After an await a session asks
 * again whether it is still open and still holds its lease.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { keyedRoot, type KeyedRoot, type Root } from "../../identity/keys.ts";
import { type Tokens } from "../../identity/tokens.ts";
import { type EngineFigures } from "../cache-stats.ts";
import { within } from "../../deadline.ts";
import type { HolderId } from "../pool/leases.ts";
import type { Asker, Bring } from "../recovery/asked-tiers.ts";
import { bytesBefore, type LeasedMatch, Loading } from "./loading.ts";
import { Lookups } from "./lookups.ts";
import { endAtSnapshot } from "./prefix-end.ts";
import { RestOfLoad } from "./rest-of-load.ts";
import { Saving } from "./saving.ts";
import { ChunkPath } from "../index/radix.ts";
import type { SessionContext } from "./session-context.ts";
import type {
  BringOptions,
  CacheSession,
  LeaseId,
  LoadedPart,
  LoadOptions,
  Lookup,
  LookupOptions,
  Reservation,
  SessionOptions,
  WaitOptions,
  WrittenPart,
} from "../../session.ts";
import type { SpaceId } from "../../identity/space.ts";
import type { Space } from "../index/spaces.ts";

/** In this process as a caller names it, over the wire by its key. */
type AnyRoot = Root | KeyedRoot;

/** How long others are left alone before they are asked again for a text that somebody is storing there. */
const shortestPauseMs = 20;
const longestPauseMs = 160;
/** How long a tail is waited for at least, once all before it has come. */
const leastTailMs = 250;

/** What is known of texts under a root that nobody stored anything under. */
const emptyPath = new ChunkPath();

export class LocalSession implements CacheSession {
  readonly #context: SessionContext;
  readonly #space: Space;
  readonly #options: SessionOptions;
  readonly #holder: HolderId;
  readonly #onClose: () => void;
  readonly #lookups: Lookups;
  readonly #loading: Loading;
  readonly #saving: Saving;
  #closed = false;

  constructor(context: SessionContext, options: SessionOptions, identity: { holder: HolderId; onClose: () => void }) {
    this.#context = context;
    this.#options = options;
    this.#space = context.spaces.open(options.space);
    context.recovery.open(this.#space);
    this.#holder = identity.holder;
    this.#onClose = identity.onClose;
    this.#lookups = new Lookups(context, { chunkTokens: this.chunkTokens, slotBytes: options.slotBytes });
    this.#loading = new Loading(context, this.#space, options, identity.holder);
    this.#saving = new Saving(context, this.#space, options, identity.holder);
  }

  /** A session for the same space, whose leases are another holder's. */
  beside(holder: HolderId): LocalSession {
    return new LocalSession(this.#context, this.#options, { holder, onClose: () => {} });
  }

  get spaceId(): SpaceId {
    return this.#space.id;
  }

  get chunkTokens(): number {
    return this.#space.description.chunkTokens;
  }

  get pool(): { readonly path: string; readonly bytes: number } {
    return this.#context.store.pool;
  }

  async lookup(root: AnyRoot, asked: Tokens, options: LookupOptions): Promise<Lookup> {
    const { computeMsPerToken, onAsk } = options;
    let tokens = asked;
    let path = this.#match(root, tokens);
    if (this.#lacksSome(path, tokens)) {
      const brought = this.#broughtBack(root, asked, 0, options);
      if (brought !== undefined) {
        onAsk?.(this.#lookups.found(this.#match(root, asked), computeMsPerToken));
        tokens = await brought;
      }
      path = this.#match(root, tokens); // asking has matched as well
    }
    const found = this.#lookups.found(path, computeMsPerToken);
    this.#lookups.count(tokens, found);
    this.#lookups.leave(path, found);
    this.#judge(found, computeMsPerToken);
    return found;
  }

  async *load(
    root: AnyRoot,
    asked: Tokens,
    from: number,
    options: LoadOptions,
  ): AsyncGenerator<readonly LoadedPart[], void, void> {
    const { deadlineMs, onlyReady = false, onFound, computeMsPerToken, signal } = options;
    const deadline = performance.now() + deadlineMs;
    const isCalledOff = () => signal?.aborted === true;
    if (isCalledOff()) return;
    let more = false;
    let tokens = asked;
    let path = this.#match(root, tokens);
    if (this.#lacksSome(path, tokens)) {
      // Nothing is waited for then.
      if (onlyReady) more = this.#mayBring(root, asked.slice(), this.#asker(from, options)) !== undefined;
      const brought = onlyReady ? undefined : this.#broughtBack(root, asked, from, options);
      if (brought !== undefined) tokens = await brought;
      if (isCalledOff()) return;
      path = this.#match(root, tokens); // asking has matched as well
    }
    const found = this.#lookups.found(path, computeMsPerToken);
    if (onlyReady) this.#lookups.count(tokens, found);
    const held = this.#loading.lease(path, { from, worthTokens: found.worthTokens, onlyReady });
    this.#lookups.leave(path, found);
    const reads: Promise<boolean>[] = [];
    const before = bytesBefore(this.#context.store.chunks, held);
    const aheadBytes = this.#lookups.aheadBytes();
    const rest = this.#restOf(held, computeMsPerToken);
    let given = 0;
    try {
      onFound?.({ ...found, more });
      for (;;) {
        const { parts, chunks } = this.#loading.readyFrom(held, given);
        given += chunks;
        // The chunk that is waited for, the one after it, and what else has room.
        const room = (before[given + 1] ?? 0) + aheadBytes;
        while (reads.length < held.length && (reads.length < given + 2 || before[reads.length]! < room)) {
          const match = held[reads.length]!; // below its length
          if (!this.#loading.mayBring(match)) break; // the guest gives something back first, or it ends here
          reads.push(this.#promote(match));
        }
        if (chunks > 0) yield parts;
        if (isCalledOff()) return;
        if (chunks > 0 && reads.length === given && given < held.length) continue; // it may have given some back
        const next = reads[given];
        if (next === undefined) return;
        if (rest?.isSlower(given) === true) {
          rest.leave(given);
          return;
        }
        const answer = await within(next, Math.min(rest?.dueMs ?? Infinity, deadline - performance.now()), signal);
        if (isCalledOff()) return;
        if (answer === "late" && performance.now() < deadline) continue;
        if (answer === "late") this.#wasLate(held[given]!); // `next` stands for it
        if (answer === false) this.#doubt(held.slice(given));
        if (answer !== true || !this.#loading.holds(held[given]!)) return; // `next` stands for it
      }
    } finally {
      this.release(held.slice(given).flatMap(({ leases }) => leases));
      // Whoever limits texts that are brought counts this one until it reads no more.
      if (isCalledOff()) await Promise.all(reads);
    }
  }

  /** Undefined: all of it is wanted, since it was not said what computing costs, or a load may end only at snapshots. */
  #restOf(held: readonly LeasedMatch[], computeMsPerToken: number | undefined): RestOfLoad | undefined {
    if (computeMsPerToken === undefined || this.#space.shape.hasSnapshots) return undefined;
    return new RestOfLoad(this.#context, held, computeMsPerToken);
  }

  holds(lease: LeaseId): boolean {
    return this.#context.leases.get(this.#holder, lease) !== undefined;
  }

  release(leases: readonly LeaseId[]): void {
    for (const id of leases) {
      if (this.#context.leases.get(this.#holder, id)?.kind !== "reading") continue;
      this.#saving.fell(this.#context.leases.release(this.#holder, id)!); // held: asked above
    }
  }

  touch(root: AnyRoot, tokens: Tokens, _wait: WaitOptions): Promise<number> {
    const path = this.#match(root, tokens);
    if (path.length === 0) return Promise.resolve(0);
    this.#context.store.touch(path.at(path.length - 1), "used");
    return Promise.resolve(this.#tokensIn(path));
  }

  async prefetch(root: AnyRoot, tokens: Tokens, options: BringOptions): Promise<number> {
    let readyTokens = 0;
    for await (const batch of this.load(root, tokens, 0, options)) {
      for (const { target, take } of batch) readyTokens = target + take;
      this.release(batch.map(({ lease }) => lease));
    }
    return readyTokens;
  }

  async pin(root: AnyRoot, tokens: Tokens, seconds: number, options: BringOptions): Promise<number> {
    let keptTokens = 0;
    let full = false;
    for await (const batch of this.load(root, tokens, 0, options)) {
      for (const { lease, target, take } of batch) {
        full ||= !this.#pinLeased(lease, seconds);
        if (!full) keptTokens = target + take;
      }
      this.release(batch.map(({ lease }) => lease));
      if (full) break;
    }
    return keptTokens;
  }

  reserve(root: AnyRoot, tokens: Tokens, _wait: WaitOptions): Promise<Reservation> {
    if (this.#closed || tokens.length === 0) return Promise.resolve({ parts: [], full: false });
    return Promise.resolve(this.#saving.reserve(keyedRoot(this.#space.id, root), tokens));
  }

  commit(parts: readonly WrittenPart[], _wait: WaitOptions): Promise<void> {
    this.#saving.commit(parts);
    return Promise.resolve();
  }

  abandon(leases: readonly LeaseId[]): void {
    this.#saving.abandon(leases);
  }

  close(): Promise<void> {
    if (this.#closed) return Promise.resolve();
    this.#closed = true;
    // One after the other: a chunk of which several are held must not go before the last of them.
    for (const id of this.#context.leases.idsOf(this.#holder))
      this.#saving.fell(this.#context.leases.release(this.#holder, id)!); // held: just asked
    this.#onClose();
    return Promise.resolve();
  }

  /** The stored chunks of a text; to be read before the next match. */
  #match(root: AnyRoot, tokens: Tokens): ChunkPath {
    if (this.#closed) return emptyPath;
    const index = this.#context.spaces.root(this.#space, keyedRoot(this.#space.id, root));
    const path = index?.tree.match(tokens.subarray(0, this.#context.limits.tokensPerRequest));
    if (index === undefined || path === undefined) return emptyPath;
    if (this.#space.shape.hasSnapshots) endAtSnapshot(path, index.tree, this.#context.store.chunks);
    return path;
  }

  #tokensIn(path: ChunkPath): number {
    return path.length === 0 ? 0 : (path.length - 1) * this.chunkTokens + path.matchedInLast;
  }

  /** The text is not found whole, and others may have more of it. */
  #lacksSome(path: ChunkPath, tokens: Tokens): boolean {
    if (this.#tokensIn(path) === tokens.length || this.#closed) return false;
    return this.#context.recovery.mayHaveMore(this.#space);
  }

  /** How others are asked for what is lacking of a text, which is kept: not the caller's memory, which is its own again while this waits. */
  #mayBring(root: AnyRoot, tokens: Tokens, asker: Asker): Bring | undefined {
    const { recovery, limits } = this.#context;
    const { key } = keyedRoot(this.#space.id, root);
    return recovery.mayBring(this.#space, key, tokens.subarray(0, limits.tokensPerRequest), asker);
  }

  /**
   * Others are asked for a text, where that could pay, and waited for.
   *
   * @returns the text, copied (session.ts)
   */
  #broughtBack(root: AnyRoot, asked: Tokens, from: number, options: LookupOptions): Promise<Tokens> | undefined {
    const asker = this.#asker(from, options);
    const tokens = asked.slice();
    const bring = this.#mayBring(root, tokens, asker);
    if (bring === undefined) return undefined;
    const { deadlineMs } = options;
    const work = asker.awaits ? this.#awaited(bring, { root, tokens, asker, deadlineMs }) : bring();
    return within(work, deadlineMs).then(() => tokens);
  }

  /**
   * Asks again and again, until others have all of a text. A tail, which they may have as part of a longer text only, may never come:
   * it is waited for as long as computing it would take, and a little at least.
   */
  async #awaited(
    first: Bring,
    { root, tokens, asker, deadlineMs }: { root: AnyRoot; tokens: Tokens; asker: Asker; deadlineMs: number },
  ): Promise<void> {
    let cameAt = performance.now();
    const until = cameAt + deadlineMs;
    let pauseMs = shortestPauseMs;
    let bring: Bring | undefined = first;
    for (let known = 0; ;) {
      await bring?.();
      const now = performance.now();
      const found = this.#tokensIn(this.#match(root, tokens));
      if (found > known) [known, cameAt, pauseMs] = [found, now, shortestPauseMs];
      const missing = tokens.length - found;
      const isTail = found > 0 && missing < this.chunkTokens;
      const tailMs = Math.max(leastTailMs, missing * (asker.computeMsPerToken ?? 0));
      if (this.#closed || missing === 0 || now >= until || (isTail && now - cameAt >= tailMs)) return;
      await sleep(Math.min(pauseMs, until - now), undefined, { ref: false });
      pauseMs = Math.min(2 * pauseMs, longestPauseMs);
      bring = this.#mayBring(root, tokens, asker);
    }
  }

  #asker(has: number, { computeMsPerToken, awaited = false }: LookupOptions): Asker {
    return { computeMsPerToken, bytesPerToken: this.#bytesPerToken, has, awaits: awaited };
  }

  /** KV of a token, of all ranks; of a full chunk's snapshots a share. */
  get #bytesPerToken(): number {
    const { slotBytes, space } = this.#options;
    return (space.tensorParallel * slotBytes.reduce((sum, bytes) => sum + bytes, 0)) / space.chunkTokens;
  }

  #wasLate({ chunk }: LeasedMatch): void {
    const { counters, store, tierStates } = this.#context;
    counters.lateLoads += 1;
    const tier = store.chunks.table.has(chunk) ? store.chunks.tierOf(chunk) : undefined;
    if (tier !== undefined) tierStates.suspect(tier);
  }

  /** Whether long texts would be worth loading from where this one was found. */
  #judge({ segments }: Lookup, computeMsPerToken: number | undefined): void {
    if (computeMsPerToken === undefined) return;
    const { loadOrCompute, tierStates } = this.#context;
    for (const { tier } of segments) {
      if (tier === "memory") continue;
      tierStates.judged(tier, loadOrCompute.pays(tier, { computeMsPerToken, bytesPerToken: this.#bytesPerToken }));
    }
  }

  /** How fast the guest computes. Of the ranks of one engine the first tells. */
  engineFigures(): EngineFigures | undefined {
    const { computeMsPerToken } = this.#lookups;
    if (computeMsPerToken === undefined || this.#options.rank > 0) return undefined;
    return { space: this.#space.id, prefillTokensPerSecond: Math.round(1e5 / computeMsPerToken) / 100 };
  }

  /**
   * The first of these could not be read. A shared tier that is away, or has lost it, would keep the others from being stored here
   * when the text has been computed: they seem to be stored there.
   */
  #doubt(held: readonly LeasedMatch[]): void {
    const { store } = this.#context;
    for (const { chunk } of held) if (store.chunks.table.has(chunk)) store.records.forgetShared(chunk);
  }

  #promote({ chunk, wanted }: LeasedMatch): Promise<boolean> {
    return this.#context.promotion.promote(chunk, this.#options.slotBytes, wanted);
  }

  /** @returns false when it was not pinned: pins have all the room they may take, or the lease has fallen. */
  #pinLeased(lease: LeaseId, seconds: number): boolean {
    const leased = this.#context.leases.get(this.#holder, lease);
    return leased !== undefined && this.#context.store.pinFor(leased.chunk, seconds) === "pinned";
  }

  /** How long the oldest lease of this session has stood; undefined when there is none. */
  get leaseAgeMs(): number | undefined {
    const since = this.#context.leases.oldest(this.#holder);
    return since === undefined ? undefined : this.#context.now() - since;
  }
}
