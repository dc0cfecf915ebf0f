/**
 * Finds a text by its keys, when it is looked up, in tiers that may have more of it than the index says: a log whose records
 * are still returning (from-tiers.ts), and every shared tier, which lists nothing.
 *
 *     text    │ in the index │ asked for by its keys │
 *              ─────────────► ───── found ─────►      into the index; found once more by the next match
 *
 * A shared tier is asked only where loading what it may have could beat computing it (tiering/load-or-compute.ts), and not again
 * for some seconds for what it lacked (absent-chunks.ts). All tiers are asked at the same time. One that fails or is late has nothing. A shared one is left alone for a while
 * then (tiering/tier-states.ts), so that an absent one costs one lookup in some seconds its patience, not each of them.
 */
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
import { answerOf, LateAnswer } from "../tiering/patience.ts";
import type { Outcome, TierCounts } from "../tiering/tier-counters.ts";
import type { TierStates } from "../tiering/tier-states.ts";
import { AbsentChunks } from "./absent-chunks.ts";
import { placeRecord } from "./place-record.ts";
import { TextKeys } from "./text-keys.ts";

export interface AskedTiersOptions {
  readonly tiers: readonly Tier[];
  readonly spaces: Spaces;
  readonly store: ChunkStore;
  readonly counters: Counters;
  readonly tierCounts: TierCounts;
  readonly tierStates: TierStates;
  readonly loadOrCompute: LoadOrCompute;
  readonly now: () => number;
  /** Some of what the logs kept of the space has yet to come. */
  readonly isReturning: (space: Space) => boolean;
  /** A chunk was found ahead of its turn. */
  readonly onPlaced: (space: Space, key: ChunkKey, chunk: ChunkId) => void;
}

/**
 * Puts into the index what tiers have of a text: whole chunks, and a tail if it is the one that was stored. Resolves when all have
 * answered, or one has all of it. Never rejects.
 */
export type Bring = () => Promise<void>;

/** Who asks. */
export interface Asker {
  /** What computing a token costs it; undefined: it never said. */
  readonly computeMsPerToken: number | undefined;
  /** Bytes of KV of a token, of all ranks. */
  readonly bytesPerToken: number;
  /** Tokens from the text's start that it has itself: it would load what comes after them. */
  readonly has: number;
  /** Somebody is storing the text elsewhere just now: what tiers have said that they lack counts for nothing. */
  readonly awaits: boolean;
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

/** What becomes of a tier when a text is looked for: it is asked and waited for, asked for its own sake, or left. */
type Choice = "ask" | "ask_unheard" | "skip" | "remembered" | "not_worth";

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
    const { isReturning, tierStates } = this.#options;
    return isReturning(space) || this.#shared.some((tier) => !tierStates.isAway(tier));
  }

  /**
   * Looks for tiers that may have more of a text, which is kept: its memory must stay as it is.
   *
   * @returns what asks those that are worth being waited for; undefined when there are none, and then the others have been seen to
   */
  mayBring(space: Space, root: RootKey, text: Tokens, asker: Asker): Bring | undefined {
    const question = this.#questionOf(space, root, text);
    const asked: Tier[] = [];
    const others: [Tier, Exclude<Choice, "ask" | "skip">][] = [];
    for (const tier of question.keys.count === 0 ? [] : this.#options.tiers) {
      const choice = this.#choose(tier, question, asker);
      if (choice === "ask") asked.push(tier);
      else if (choice !== "skip") others.push([tier, choice]);
    }
    const seeToOthers = () => {
      for (const [tier, choice] of others) {
        if (choice === "ask_unheard") void this.#ask(tier, question);
        else this.#count(tier, choice);
      }
    };
    if (asked.length > 0)
      return () => {
        seeToOthers();
        return this.#askAll(asked, question);
      };
    seeToOthers();
    return undefined;
  }

  #askAll(tiers: readonly Tier[], question: Question): Promise<void> {
    const asks = tiers.map((tier) => this.#ask(tier, question));
    return new Promise((resolve) => {
      for (const ask of asks) void ask.then((found) => (found === question.keys.count ? resolve() : undefined));
      void Promise.all(asks).then(() => resolve());
    });
  }

  /** A shared one is asked if it is there, has not just said that it lacks the text, and what it may have is worth the way. */
  #choose(tier: Tier, { space, text, known, keys }: Question, asker: Asker): Choice {
    const { tierStates, loadOrCompute, isReturning } = this.#options;
    if (ownedLog(tier) !== undefined) return isReturning(space) ? "ask" : "skip";
    if (tierStates.isAway(tier)) return "skip";
    const { computeMsPerToken, bytesPerToken, has, awaits } = asker;
    if (computeMsPerToken !== undefined)
      tierStates.judged(tier.name, loadOrCompute.pays(tier.name, { computeMsPerToken, bytesPerToken }));
    if (!awaits && this.#absent.has(tier, keys.at(0))) return "remembered";
    if (computeMsPerToken === undefined) return "ask";
    const tokens = text.length - Math.max(has, known * space.description.chunkTokens);
    const worth = loadOrCompute.worthAsking(tier.name, { tokens, computeMsPerToken, bytesPerToken });
    return worth === "leave" ? "not_worth" : worth;
  }

  /** What has not been found is not any more. */
  stop(): void {
    this.#stop.abort();
  }

  #questionOf(space: Space, root: RootKey, text: Tokens): Question {
    const { chunkTokens, parts } = space.shape;
    const path = space.roots.get(root)?.tree.match(text);
    const matched = path?.length ?? 0;
    const known = path === undefined || path.matchedInLast === chunkTokens ? matched : Math.max(0, matched - 1);
    const parent = known === 0 ? root : this.#options.store.chunks.key(path!.at(known - 1)); // it matched
    const keys = new TextKeys(parent, text.subarray(known * chunkTokens), { parts: parts.length, tokens: chunkTokens });
    return { space, root, text, known, keys };
  }

  /** @returns how many of the chunks the tier has; those are in the index. */
  async #ask(tier: Tier, question: Question): Promise<number> {
    if ((this.#underWay.get(tier) ?? 0) >= mostTextsAsked) {
      this.#count(tier, "busy");
      return 0;
    }
    try {
      const found = await this.#answerOf(tier, question);
      if (this.#stop.signal.aborted) return 0;
      this.#count(tier, found.length > 0 ? "found" : "nothing");
      const { keys } = question;
      if (ownedLog(tier) === undefined && found.length < keys.count) this.#absent.add(tier, keys.at(found.length));
      return this.#place(tier, question, found);
    } catch (error) {
      if (this.#stop.signal.aborted) return 0;
      this.#count(tier, error instanceof LateAnswer ? "late" : "failed");
      this.#options.tierStates.failed(tier, error);
      return 0;
    }
  }

  /** A log answers from what it is reading anyway: that is waited for as long as it takes. */
  async #answerOf(tier: Tier, question: Question): Promise<readonly FoundRecord[]> {
    const stop = this.#stop.signal;
    if (ownedLog(tier) !== undefined) return this.#find(tier, question, stop);
    const { loadOrCompute, tierCounts, now } = this.#options;
    const began = now();
    let isTimed = true;
    try {
      return await answerOf((signal) => this.#find(tier, question, signal), stop);
    } catch (error) {
      isTimed = error instanceof LateAnswer; // one that fails at once is not fast
      throw error;
    } finally {
      if (isTimed) loadOrCompute.noteAsked(tier.name, now() - began);
      tierCounts.of(tier).lookupSeconds += (now() - began) / 1000;
    }
  }

  /** Of shared tiers. */
  #count(tier: Tier, outcome: Outcome): void {
    if (ownedLog(tier) === undefined) this.#options.tierCounts.of(tier).lookups[outcome] += 1;
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
      if (!isWhole) {
        this.#options.counters.corruptRecords += 1;
        this.#options.tierCounts.of(tier).corruptRecords += 1;
      }
      if (!isWhole || log?.has(id) === false) break;
      usable += 1;
    }
    return usable;
  }
}
