/**
 * One guest's session in the cache's own process: the verbs of session.ts over index, store and tiers.
 *
 * Between two awaits everything here is one step, so the index cannot change under it. After an await a session asks
 * again whether it is still open and still holds its lease.
 */
import { keyedRoot, type KeyedRoot, type Root } from "../../identity/keys.ts";
import { type Tokens } from "../../identity/tokens.ts";
import { type EngineFigures } from "../cache-stats.ts";
import { within } from "../../deadline.ts";
import type { HolderId } from "../pool/leases.ts";
import { bytesBefore, type LeasedMatch, Loading } from "./loading.ts";
import { Lookups } from "./lookups.ts";
import { endAtSnapshot } from "./prefix-end.ts";
import { Saving } from "./saving.ts";
import { ChunkPath } from "../index/radix.ts";
import type { SessionContext } from "./session-context.ts";
import type {
  CacheSession,
  LeaseId,
  LoadedPart,
  LoadOptions,
  Lookup,
  ReadOptions,
  Reservation,
  SessionOptions,
  WaitOptions,
  WrittenPart,
} from "../../session.ts";
import type { SpaceId } from "../../identity/space.ts";
import type { Space } from "../index/spaces.ts";

/** In this process as a caller names it, over the wire by its key. */
type AnyRoot = Root | KeyedRoot;

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

  get spaceId(): SpaceId {
    return this.#space.id;
  }

  get chunkTokens(): number {
    return this.#space.description.chunkTokens;
  }

  get pool(): { readonly path: string; readonly bytes: number } {
    return this.#context.store.pool;
  }

  async lookup(root: AnyRoot, asked: Tokens, { computeMsPerToken, deadlineMs }: ReadOptions): Promise<Lookup> {
    const brought = this.#broughtBack(root, asked, { deadlineMs, computeMsPerToken });
    const tokens = brought === undefined ? asked : await brought;
    const path = this.#match(root, tokens);
    const found = this.#lookups.found(path, computeMsPerToken);
    this.#lookups.count(tokens, found);
    this.#lookups.leave(path, found);
    return found;
  }

  async *load(
    root: AnyRoot,
    asked: Tokens,
    from: number,
    { deadlineMs, onlyReady = false, onFound, computeMsPerToken }: LoadOptions,
  ): AsyncGenerator<readonly LoadedPart[], void, void> {
    const deadline = performance.now() + deadlineMs;
    const brought = onlyReady ? undefined : this.#broughtBack(root, asked, { deadlineMs, computeMsPerToken }); // nothing is waited for then
    const tokens = brought === undefined ? asked : await brought;
    const path = this.#match(root, tokens);
    const found = this.#lookups.found(path, computeMsPerToken);
    if (onlyReady) this.#lookups.count(tokens, found);
    const held = this.#loading.lease(path, { from, worthTokens: found.worthTokens, onlyReady });
    this.#lookups.leave(path, found);
    const reads: Promise<boolean>[] = [];
    const before = bytesBefore(this.#context.store.chunks, held);
    const aheadBytes = this.#lookups.aheadBytes();
    let given = 0;
    try {
      onFound?.(found);
      for (;;) {
        const { parts, chunks } = this.#loading.readyFrom(held, given);
        given += chunks;
        // The chunk that is waited for, the one after it, and what else has room.
        const room = (before[given + 1] ?? 0) + aheadBytes;
        while (reads.length < held.length && (reads.length < given + 2 || before[reads.length]! < room))
          reads.push(this.#promote(held[reads.length]!)); // below its length
        if (chunks > 0) yield parts;
        const next = reads[given];
        if (next === undefined) return;
        const answer = await within(next, deadline - performance.now());
        if (answer === "late") this.#context.counters.lateLoads += 1;
        if (answer === false) this.#doubt(held.slice(given));
        if (answer !== true || !this.#loading.holds(held[given]!)) return; // `next` stands for it
      }
    } finally {
      this.release(held.slice(given).flatMap(({ leases }) => leases));
    }
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

  async prefetch(root: AnyRoot, tokens: Tokens, wait: WaitOptions): Promise<number> {
    let readyTokens = 0;
    for await (const batch of this.load(root, tokens, 0, wait)) {
      for (const { target, take } of batch) readyTokens = target + take;
      this.release(batch.map(({ lease }) => lease));
    }
    return readyTokens;
  }

  async pin(root: AnyRoot, tokens: Tokens, seconds: number, wait: WaitOptions): Promise<number> {
    let keptTokens = 0;
    let full = false;
    for await (const batch of this.load(root, tokens, 0, wait)) {
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

  /**
   * A text that is not found whole is asked for in the tiers that may have more of it, and waited for.
   *
   * @returns the text, copied: the memory of `tokens` is the caller's again while this waits (session.ts).
   */
  #broughtBack(
    root: AnyRoot,
    tokens: Tokens,
    { deadlineMs, computeMsPerToken }: ReadOptions,
  ): Promise<Tokens> | undefined {
    const { recovery, limits } = this.#context;
    if (!recovery.mayHaveMore(this.#space) || this.#closed) return undefined;
    if (this.#tokensIn(this.#match(root, tokens)) === tokens.length) return undefined;
    const text = tokens.slice();
    const { key } = keyedRoot(this.#space.id, root);
    const asker = { computeMsPerToken, bytesPerToken: this.#bytesPerToken };
    const work = recovery.bring(this.#space, key, text.subarray(0, limits.tokensPerRequest), asker);
    return within(work, deadlineMs).then(() => text);
  }

  /** KV of a token, of all ranks; of a full chunk's snapshots a share. */
  get #bytesPerToken(): number {
    const { slotBytes, space } = this.#options;
    return (space.tensorParallel * slotBytes.reduce((sum, bytes) => sum + bytes, 0)) / space.chunkTokens;
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
