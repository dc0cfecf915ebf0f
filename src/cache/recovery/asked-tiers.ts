/**
 * Finds a text by its keys, when it is looked up, in tiers that may have more of it than the index says: a log whose records
 * are still returning (from-tiers.ts), and every shared tier, which lists nothing.
 *
 *     text    │ in the index │ asked for by its keys │
 *              ─────────────► ───── found ─────►      into the index; found once more by the next match
 *
 * A shared tier is asked only where loading what it may have could beat computing it (tiering/load-or-compute.ts), and not again
 * for some seconds for what it lacked (absent-chunks.ts). All tiers are asked at the same time. One that fails or is late has nothing. A shared one is left alone for a while
 * then (tiering/outages.ts), so that an absent one costs one lookup in some seconds its patience, not each of them.
 */
import { within, withSignal } from "../../deadline.ts";
import { RepriseError } from "../../errors.ts";
import type { ChunkKey, RootKey } from "../../identity/keys.ts";
import type { Tokens } from "../../identity/tokens.ts";
import { ownedLog, type FoundRecord, type Tier } from "../../tier.ts";
import type { Counters } from "../counters.ts";
import type { ChunkId } from "../index/chunk-id.ts";
import { hasRows, type RowShape } from "../index/chunk-table.ts";
import { chunksOf } from "../index/radix.ts";
import type { Space, Spaces } from "../index/spaces.ts";
import type { ChunkStore } from "../pool/chunk-store.ts";
import type { LoadOrCompute } from "../tiering/load-or-compute.ts";
import type { Outages } from "../tiering/outages.ts";
import { AbsentChunks } from "./absent-chunks.ts";
import { placeRecord } from "./place-record.ts";
import { TextKeys } from "./text-keys.ts";

export interface AskedTiersOptions {
  readonly tiers: readonly Tier[];
  readonly spaces: Spaces;
  readonly store: ChunkStore;
  readonly counters: Counters;
  readonly outages: Outages;
  readonly loadOrCompute: LoadOrCompute;
  readonly now: () => number;
  /** Some of what the logs kept of the space has yet to come. */
  readonly isReturning: (space: Space) => boolean;
  /** A chunk was found ahead of its turn. */
  readonly onPlaced: (space: Space, key: ChunkKey, chunk: ChunkId) => void;
}

/** Who asks. */
export interface Asker {
  /** What computing a token costs it; undefined: it never said. */
  readonly computeMsPerToken: number | undefined;
  /** Bytes of KV of a token, of all ranks. */
  readonly bytesPerToken: number;
}

/** A text's chunks that are not in the index. */
interface Question {
  readonly space: Space;
  readonly root: RootKey;
  readonly text: Tokens;
  /** Chunks before them. */
  readonly known: number;
  readonly keys: TextKeys;
}

/** What a shared tier may take to say what it has. */
const patienceMs = 1000;
/** Texts that one tier is asked for at a time, waited for or not; further ones are misses there. */
const mostTextsAsked = 64;

export class AskedTiers {
  readonly #options: AskedTiersOptions;
  readonly #shared: readonly Tier[];
  readonly #underWay = new Map<Tier, number>();
  readonly #stop = new AbortController();
  readonly #absent: AbsentChunks;

  constructor(options: AskedTiersOptions) {
    this.#options = options;
    this.#absent = new AbsentChunks(options.now);
    this.#shared = options.tiers.filter((tier) => ownedLog(tier) === undefined);
  }

  /** A text of the space that is not found whole may be found by asking. */
  mayHaveMore(space: Space): boolean {
    const { isReturning, outages } = this.#options;
    return isReturning(space) || this.#shared.some((tier) => !outages.isAway(tier));
  }

  /**
   * Puts into the index what tiers have of a text: whole chunks, and a tail if it is the one that was stored. Resolves when
   * all have answered, or one has all of it. Never rejects.
   */
  async bring(space: Space, root: RootKey, text: Tokens, asker: Asker): Promise<void> {
    const { tiers, isReturning } = this.#options;
    const question = this.#questionOf(space, root, text);
    if (question.keys.count === 0) return;
    const logsToo = isReturning(space);
    const asked = tiers.filter((tier) =>
      ownedLog(tier) === undefined ? this.#mayHave(tier, question, asker) : logsToo,
    );
    const asks = asked.map((tier) => this.#ask(tier, question));
    await new Promise<void>((resolve) => {
      for (const ask of asks) void ask.then((found) => (found === question.keys.count ? resolve() : undefined));
      void Promise.all(asks).then(() => resolve());
    });
  }

  /** It is there, has not just said that it lacks the text, and what it may have is worth the way. */
  #mayHave(tier: Tier, { space, text, known, keys }: Question, { computeMsPerToken, bytesPerToken }: Asker): boolean {
    const { outages, loadOrCompute } = this.#options;
    if (outages.isAway(tier) || this.#absent.has(tier, keys.at(0))) return false;
    const tokens = text.length - known * space.description.chunkTokens;
    return (
      computeMsPerToken === undefined ||
      loadOrCompute.isWorthAsking(tier.name, { tokens, computeMsPerToken, bytesPerToken })
    );
  }

  /** What has not been found is not any more. */
  stop(): void {
    this.#stop.abort();
  }

  #questionOf(space: Space, root: RootKey, text: Tokens): Question {
    const { chunkTokens } = space.description;
    const path = space.roots.get(root)?.tree.match(text);
    const matched = path?.length ?? 0;
    const known = path === undefined || path.matchedInLast === chunkTokens ? matched : Math.max(0, matched - 1);
    const parent = known === 0 ? root : this.#options.store.chunks.key(path!.at(known - 1)); // it matched
    const keys = new TextKeys(parent, text.subarray(known * chunkTokens), chunkTokens);
    return { space, root, text, known, keys };
  }

  /** @returns how many of the chunks the tier has; those are in the index. */
  async #ask(tier: Tier, question: Question): Promise<number> {
    if ((this.#underWay.get(tier) ?? 0) >= mostTextsAsked) return 0;
    try {
      const found = await this.#answerOf(tier, question);
      const { keys } = question;
      if (ownedLog(tier) === undefined && found.length < keys.count) this.#absent.add(tier, keys.at(found.length));
      return this.#stop.signal.aborted ? 0 : this.#place(tier, question, found);
    } catch (error) {
      if (!this.#stop.signal.aborted) this.#options.outages.failed(tier, error);
      return 0;
    }
  }

  /** A log answers from what it is reading anyway: that is waited for as long as it takes. */
  async #answerOf(tier: Tier, question: Question): Promise<readonly FoundRecord[]> {
    const stop = this.#stop.signal;
    if (ownedLog(tier) !== undefined) return this.#find(tier, question, stop);
    const find = (signal: AbortSignal) => within(this.#find(tier, question, signal), patienceMs);
    const { loadOrCompute, now } = this.#options;
    const began = now();
    const found = await withSignal(find, { stop, deadlineMs: patienceMs });
    loadOrCompute.noteAsked(tier.name, now() - began);
    if (found === "late")
      throw new RepriseError(
        "TIER_UNAVAILABLE",
        `no answer to a lookup within ${patienceMs} ms: check that it is there`,
      );
    return found;
  }

  /** Counts as under way until the tier itself has ended. */
  async #find(tier: Tier, { space, root, keys }: Question, signal: AbortSignal): Promise<readonly FoundRecord[]> {
    this.#underWay.set(tier, (this.#underWay.get(tier) ?? 0) + 1);
    try {
      return await tier.find(space.id, root, keys, signal);
    } finally {
      this.#underWay.set(tier, this.#underWay.get(tier)! - 1); // set above
    }
  }

  #place(tier: Tier, { space, root, text, known, keys }: Question, found: readonly FoundRecord[]): number {
    const { spaces, store, onPlaced } = this.#options;
    const { chunkTokens } = space.shape;
    const usable = this.#usable(tier, found.slice(0, keys.count), space.shape);
    const index = usable === 0 ? undefined : spaces.makeRoot(space, root);
    if (index === undefined) return 0;
    let parent = index.tree.top;
    let number = -known;
    for (const slice of chunksOf(text.subarray(0, (known + usable) * chunkTokens), chunkTokens)) {
      const chunk = index.tree.insert(parent, slice);
      if (chunk === undefined) {
        index.tree.prune(parent); // what was made for nothing
        return Math.max(0, number);
      }
      if (number >= 0) {
        const key = keys.at(number);
        placeRecord(store, chunk, { tier, key, record: found[number]! });
        onPlaced(space, key, chunk);
      }
      parent = chunk;
      number += 1;
    }
    return number;
  }

  /** How many of the records are whole, and still there. */
  #usable(tier: Tier, found: readonly FoundRecord[], shape: RowShape): number {
    const log = ownedLog(tier);
    const { maxSlotBytes } = this.#options.store.pool;
    let usable = 0;
    for (const { id, payloadBytes } of found) {
      const isWhole =
        hasRows(payloadBytes, shape) &&
        payloadBytes.every((bytes) => Number.isSafeInteger(bytes) && bytes >= 0 && bytes <= maxSlotBytes);
      if (!isWhole) this.#options.counters.corruptRecords += 1;
      if (!isWhole || log?.has(id) === false) break;
      usable += 1;
    }
    return usable;
  }
}
