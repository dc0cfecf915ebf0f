/**
 * Drafts of one request: tokens that may come next, which are computed together with the token that does. A step then has one row more
 * for each, and the sampler draws at one row after the other, as long as it draws what was drafted. So an answer has the tokens that it
 * would have without drafts, and some of them for less.
 *
 * How many are worth computing is weighed at each step: what drafts of a match of that length came to in this answer, against what a row
 * costs. Where they are not worth it one is tried now and then, the more rarely the longer it is of no use.
 */
import type { Tokens } from "../../../identity/tokens.ts";
import { PromptLookup, longestRun, shortestRun } from "./prompt-lookup.ts";
import type { RowCost } from "./row-cost.ts";

/** Drafts of a request in a step, at most: after that many a copy has usually ended. */
export const mostDrafts = 8;
/** Where more requests of a context answer, weights are read for all their rows as it is, and none is drafted for. */
export const mostDrafting = 2;

export const noDrafts: Tokens = new Uint32Array(0);

/** One step in so many has no drafts, so that it is known what such a step takes. */
const plainEvery = 32;
/** Tokens without drafts after the context had no room for them. */
const restTokens = 64;
/** How much of a new measurement is believed. */
const believed = 0.3;

export class Drafts {
  /** Tokens drafted and computed, and how many of them were drawn. */
  readonly counts = { draftedTokens: 0, acceptedTokens: 0 };
  readonly #lookup: PromptLookup;
  readonly #rowCost: RowCost;
  /** By the length of the match. */
  readonly #trust = Array.from({ length: longestRun - shortestRun + 1 }, () => new Trust());
  /** Of the last match. */
  #judging: Trust | undefined;
  /** Drafts that were computed and that no token was drawn for yet. */
  #open: Tokens = noDrafts;
  /** Steps since one had no drafts. */
  #sincePlain = plainEvery;
  /** Milliseconds of a step without drafts, by how many requests had a token in it. */
  readonly #plainMs: (number | undefined)[] = [];
  #rest = 0;

  /** @param options.mostTokens of prompt and answer */
  constructor(options: { readonly prompt: Tokens; readonly mostTokens: number; readonly rowCost: RowCost }) {
    this.#lookup = new PromptLookup(options.prompt, options.mostTokens);
    this.#rowCost = options.rowCost;
  }

  /** Tokens that may follow the last one drawn: `most` at most, and no more than are worth computing. */
  propose(most: number): Tokens {
    if (most < 1 || this.#rest > 0 || this.#sincePlain >= plainEvery) return noDrafts;
    const found = this.#lookup.continuation(Math.min(most, mostDrafts));
    if (found === undefined) return noDrafts;
    this.#judging = this.#trust[found.matched - shortestRun]!; // there is one for each length
    return found.tokens.subarray(0, this.#judging.worth(found.tokens.length, this.#rowCost.share));
  }

  /** These were computed behind the last token drawn; what is drawn now says which of them were right. */
  computed(drafts: Tokens): void {
    this.#open = drafts;
    this.counts.draftedTokens += drafts.length;
  }

  drawn(token: number): void {
    this.#lookup.append(token);
    this.#rest = Math.max(0, this.#rest - 1);
    if (this.#open.length === 0) return;
    const isAccepted = this.#open[0] === token;
    this.#judging?.judged(isAccepted);
    if (isAccepted) this.counts.acceptedTokens += 1;
    this.#open = isAccepted ? this.#open.subarray(1) : noDrafts;
  }

  /** A step without prompts took so long, with a token of `decoding` requests and so many drafts of theirs. */
  stepped(elapsedMs: number, decoding: number, drafts: number): void {
    const plainMs = this.#plainMs[decoding];
    if (drafts === 0) {
      this.#sincePlain = 0;
      this.#plainMs[decoding] = plainMs === undefined ? elapsedMs : plainMs + (elapsedMs - plainMs) * believed;
      return;
    }
    this.#sincePlain += 1;
    if (plainMs !== undefined) this.#rowCost.measured((elapsedMs / plainMs - 1) / drafts);
  }

  /** There was no room for drafts: none for a while. */
  rest(): void {
    this.#rest = restTokens;
  }
}

/** Before anything is known of an answer. */
const firstShare = 0.5;
const shareBelieved = 0.15;
/** Matches that are left out before one is tried: in an answer's beginning, after the first failure, and at most. */
const firstWait = 3;
const leastWait = 16;
const mostWait = 256;

/** How far drafts of one kind are to be trusted. */
class Trust {
  /** Of drafts, those that were right; of each step the first that was not counts, and none behind it. */
  #share = firstShare;
  #wait = leastWait;
  /** Matches still to be left out. */
  #left = firstWait;

  /** How many of `most` drafts make a step give the most tokens for its time, if each is right as often as those before. */
  worth(most: number, rowShare: number): number {
    let best = { drafts: 0, speed: 1 };
    let tokens = 1;
    for (let drafts = 1; drafts <= most; drafts += 1) {
      tokens += this.#share ** drafts;
      const speed = tokens / (1 + rowShare * drafts);
      if (speed > best.speed) best = { drafts, speed };
    }
    if (best.drafts > 0) return best.drafts;
    if (this.#left === 0) return 1;
    this.#left -= 1;
    return 0;
  }

  judged(isAccepted: boolean): void {
    this.#share += ((isAccepted ? 1 : 0) - this.#share) * shareBelieved;
    if (isAccepted) this.#wait = leastWait;
    else {
      this.#left = this.#wait;
      this.#wait = Math.min(mostWait, 2 * this.#wait);
    }
  }
}
