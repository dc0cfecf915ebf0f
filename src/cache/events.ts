/**
 * What happens to chunks, told from one place to the counters and to whoever subscribes.
 *
 *     pool/chunk-store ───── stored, evicted ───┐                ┌─► counters         always: numbers, nothing else
 *     index/chunk-records ── recorded, removed ─┼─► ChunkEvents ─┤
 *     cache ──────────────── cleared ───────────┘                └─► subscriptions    objects and keys, made when there are any
 *
 * Subscribers hear of what a lookup can find. A chunk whose parent is nowhere cannot be found, so:
 *
 *     told(chunk)  ⟺  some tier holds it, and it is the first of its text or told(its parent)
 *
 * A parent is told before its children, and what was told is taken back children first. A chunk that is committed before its
 * parent is told with it, and one that loses its parent is taken back until the parent is there again.
 *
 * vLLM's KV events, as llm-d's router reads them, from ours (a publisher is a subscriber with `tokens`):
 *
 *     stored    → BlockStored   medium "CPU"         block_hashes [key]   parent_block_hash parent, nil where firstToken is 0
 *     recorded  → BlockStored   medium "STORAGE"     token_ids tokens     block_size chunkTokens
 *     evicted   → BlockRemoved  medium "CPU"         block_hashes [key]
 *     removed   → BlockRemoved  medium "STORAGE"     block_hashes [key]
 *     cleared   → nothing: AllBlocksCleared would wipe the engine's own blocks too, and each chunk was told already
 *
 * Blocks are whole: a tail (`tokenCount < chunkTokens`) is not published. `root` is a digest, so lora_name and extra_keys come
 * from whoever knows the salt and the adapter behind it.
 */
import { assert } from "../errors.ts";
import type { TierName } from "../tier.ts";
import type { Counters } from "./counters.ts";
import { rowOf, type ChunkId } from "./index/chunk-id.ts";
import { PagedColumn } from "./index/paged-column.ts";
import type { RootIndex, StoredChunks } from "./index/stored-chunk.ts";
import { Subscription, type ChunkEvent, type SubscribeOptions } from "./subscription.ts";

export interface ChunkEventsOptions {
  readonly chunks: StoredChunks;
  readonly counters: Counters;
  /** Every root there is. */
  readonly indexes: () => Iterable<RootIndex>;
}

export class ChunkEvents {
  readonly #options: ChunkEventsOptions;
  readonly #subscriptions = new Set<Subscription>();
  /** By row, 1 for chunks that subscribers know of. Kept while there are any. */
  #told = PagedColumn.bytes();
  /** Grows with every event told. */
  #changes = 0;

  constructor(options: ChunkEventsOptions) {
    this.#options = options;
  }

  /** All ranks' payloads can be read in the pool. */
  stored(chunk: ChunkId, how: "saved" | "recovered" | "promoted"): void {
    if (how === "saved") this.#options.counters.savedChunks += 1;
    this.#came(chunk, "stored", "memory");
  }

  /** They no longer can. */
  evicted(chunk: ChunkId, why: "room" | "dropped"): void {
    const { chunks, counters } = this.#options;
    if (why === "room") {
      counters.evictedChunks += 1;
      if (!chunks.hasRecords(chunk)) counters.lostChunks += 1;
    }
    this.#went(chunk, "evicted", "memory");
  }

  /** A tier below has the chunk. */
  recorded(chunk: ChunkId, tier: TierName): void {
    this.#came(chunk, "recorded", tier);
  }

  /** It no longer has. */
  removed(chunk: ChunkId, tier: TierName): void {
    this.#went(chunk, "removed", tier);
  }

  cleared(): void {
    for (const subscription of this.#subscriptions) subscription.push({ kind: "cleared" });
  }

  /** @throws RepriseError BAD_REQUEST (with the field) */
  subscribe(options: SubscribeOptions): Subscription {
    const subscription = new Subscription(options, {
      held: (withTokens) => this.#held(withTokens),
      onClose: () => this.#subscriptions.delete(subscription),
    });
    if (this.#subscriptions.size === 0) this.#tellApart();
    this.#subscriptions.add(subscription);
    return subscription;
  }

  /** Ends every subscription when it has given what it has. */
  close(): void {
    for (const subscription of this.#subscriptions) subscription.close();
  }

  /** Asserts that subscribers know of what can be found, and of nothing else. */
  check(): void {
    if (this.#subscriptions.size === 0) return;
    for (const { tree } of this.#options.indexes())
      for (const chunk of tree.nodes())
        assert(this.#isTold(chunk) === this.#canBeFound(chunk), "what was told and what can be found differ");
  }

  #came(chunk: ChunkId, kind: "stored" | "recorded", tier: TierName): void {
    if (this.#subscriptions.size === 0) return;
    if (this.#isTold(chunk)) this.#tell(chunk, kind, tier);
    else if (this.#canBeFound(chunk)) this.#tellBranch(chunk);
  }

  #went(chunk: ChunkId, kind: "evicted" | "removed", tier: TierName): void {
    if (this.#subscriptions.size === 0 || !this.#isTold(chunk)) return;
    if (!this.#isHeld(chunk)) this.#takeBackBelow(chunk);
    this.#tell(chunk, kind, tier);
  }

  /** Tells of a chunk that can be found from now on, and of those after it that waited for it. */
  #tellBranch(first: ChunkId): void {
    const open = [first];
    for (let chunk = open.pop(); chunk !== undefined; chunk = open.pop()) {
      this.#told.set(rowOf(chunk), 1);
      for (const tier of this.#options.chunks.tiersOf(chunk))
        this.#tell(chunk, tier === "memory" ? "stored" : "recorded", tier);
      for (const child of this.#childrenOf(chunk)) if (this.#isHeld(child)) open.push(child);
    }
  }

  /** Takes back what follows a chunk that is nowhere any more. */
  #takeBackBelow(first: ChunkId): void {
    const branch = [first];
    for (let i = 0; i < branch.length; i += 1)
      for (const child of this.#childrenOf(branch[i]!)) if (this.#isTold(child)) branch.push(child); // below its length
    for (const chunk of branch.toReversed()) {
      this.#told.set(rowOf(chunk), 0);
      for (const tier of this.#options.chunks.tiersOf(chunk))
        this.#tell(chunk, tier === "memory" ? "evicted" : "removed", tier);
    }
  }

  /** Finds out what can be found now, for the first subscriber: one walk through the index. */
  #tellApart(): void {
    this.#told = PagedColumn.bytes();
    for (const { tree } of this.#options.indexes())
      for (const chunk of tree.nodes()) if (this.#canBeFound(chunk)) this.#told.set(rowOf(chunk), 1); // parents first
  }

  *#held(withTokens: boolean): Generator<ChunkEvent, void, void> {
    const changes = this.#changes;
    for (const { tree } of this.#options.indexes())
      for (const chunk of tree.nodes()) {
        if (!this.#isTold(chunk)) continue;
        for (const tier of this.#options.chunks.tiersOf(chunk)) {
          yield this.#eventOf(chunk, { kind: tier === "memory" ? "stored" : "recorded", tier, withTokens });
          assert(
            changes === this.#changes,
            "what is held changed while it was read: read it without waiting in between",
          );
        }
      }
  }

  #tell(chunk: ChunkId, kind: ChunkEvent["kind"], tier: TierName): void {
    this.#changes += 1;
    for (const subscription of this.#subscriptions)
      subscription.push((withTokens) => this.#eventOf(chunk, { kind, tier, withTokens }));
  }

  #eventOf(
    chunk: ChunkId,
    { kind, tier, withTokens }: Pick<ChunkEvent, "kind" | "tier"> & { readonly withTokens: boolean },
  ): ChunkEvent {
    const { chunks } = this.#options;
    const { space, key: root, description } = chunks.rootOf(chunk);
    return {
      kind,
      tier,
      space,
      root,
      key: chunks.key(chunk),
      parent: chunks.parentKey(chunk),
      firstToken: chunks.firstToken(chunk),
      tokenCount: chunks.tokenCount(chunk),
      chunkTokens: description.chunkTokens,
      ...(withTokens && (kind === "stored" || kind === "recorded") && { tokens: chunks.tokens(chunk).slice() }),
    };
  }

  #canBeFound(chunk: ChunkId): boolean {
    const { chunks } = this.#options;
    const parent = chunks.parentOf(chunk);
    return this.#isHeld(chunk) && (parent === chunks.rootOf(chunk).tree.top || this.#isTold(parent));
  }

  #isHeld(chunk: ChunkId): boolean {
    return this.#options.chunks.tierOf(chunk) !== undefined;
  }

  #isTold(chunk: ChunkId): boolean {
    return this.#told.get(rowOf(chunk)) === 1;
  }

  #childrenOf(chunk: ChunkId): Iterable<ChunkId> {
    return this.#options.chunks.rootOf(chunk).tree.children(chunk);
  }
}
