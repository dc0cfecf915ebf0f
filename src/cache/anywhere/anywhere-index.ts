/**
 * Finds what of a prompt was read before, wherever it stood there.
 *
 * The prompt's samples (grams.ts) name places of stored texts, and from each the tokens are compared to both sides. A sample in a
 * run that was found already is passed over, so that a long run costs its length and no more. Longer runs go first, and those
 * that overlap them are cut (placed-runs.ts).
 *
 * The work is bounded: a gram has few entries, and a lookup compares so many tokens for each of the prompt's and then ends with what
 * it has.
 */
import { randomInt } from "node:crypto";
import type { RootIndex, StoredChunks } from "../index/stored-chunk.ts";
import type { Tokens } from "../../identity/tokens.ts";
import { GramSampler, windowGrams } from "./grams.ts";
import { PlacedRuns } from "./placed-runs.ts";
import { StoredGrams } from "./stored-grams.ts";
import { RunReader, shortestRun, type Slice, type StoredRun } from "./stored-run.ts";

/** Tokens of a prompt that stand in a stored text as well. */
export interface FoundRun {
  /** Where it begins in the prompt. */
  readonly at: number;
  readonly tokens: number;
  /** Where it begins in the stored text. */
  readonly sourcePosition: number;
  /** The chunks it lies in, in order: without a lease they are good until the caller gives way to others. */
  readonly source: readonly Slice[];
  /** Tokens before it, stored or not any more, that are the prompt's too; more than 1024 are not counted. */
  readonly leftContextTokens: number;
}

/** Tokens that may be compared for each of the prompt's, and for all beside that. */
const workPerToken = 24;
const leastWork = 2 ** 16;
/** After so many lookups of one gram in a row the text repeats itself: one in each window is enough from then on. */
const repeatedLookups = 4;
/** Where a run was cut until nothing was left, another one may fit: it is looked for on the next pass. */
const mostPasses = 3;

export class AnywhereIndex {
  readonly #chunks: StoredChunks;
  readonly #stored: StoredGrams;
  readonly #sampler: GramSampler;

  constructor(chunks: StoredChunks, { salt = randomInt(2 ** 32) }: { readonly salt?: number } = {}) {
    this.#chunks = chunks;
    this.#stored = new StoredGrams(chunks.table, salt);
    this.#sampler = new GramSampler(salt);
    chunks.onVisible = (chunk, isVisible) => {
      if (isVisible) this.#stored.add(chunk);
      else this.#stored.remove(chunk);
    };
  }

  /** Entries there are, and the memory of their table. */
  stats(): { readonly entries: number; readonly bytes: number } {
    return { entries: this.#stored.size, bytes: this.#stored.bytes };
  }

  /** Runs of {@link shortestRun} tokens or more in `tokens` from `from` on, in order, none over another. Changes nothing. */
  find(root: RootIndex, tokens: Tokens, from = 0): FoundRun[] {
    const reader = new RunReader(this.#chunks.table, root, { tokens, from });
    const placed = new PlacedRuns(tokens.length, reader);
    const mostWork = leastWork + workPerToken * (tokens.length - from);
    this.#sampler.begin(from);
    this.#sampler.feed(tokens, from, tokens.length);
    for (let pass = 0; pass < mostPasses; pass += 1)
      if (placed.place(this.#runs(root.number, { reader, placed, mostWork })) === "all") break;
    return placed.inOrder().map((run) => ({
      at: run.at,
      tokens: run.tokens,
      sourcePosition: run.sourcePosition,
      source: reader.slicesOf(run),
      leftContextTokens: reader.contextOf(run),
    }));
  }

  /** Asserts that what can be found is what is stored. */
  check(trees: Iterable<RootIndex>): void {
    this.#stored.check(trees, this.#chunks);
  }

  /** Runs around the prompt's samples that neither a placed run covers nor one of these. */
  #runs(
    root: number,
    { reader, placed, mostWork }: { reader: RunReader; placed: PlacedRuns; mostWork: number },
  ): StoredRun[] {
    const { ends, hashes, count } = this.#sampler;
    const runs: StoredRun[] = [];
    let covered = 0;
    let lastHash = 0;
    let lastEnd = -1;
    let repeated = 0;
    for (let i = 0; i < count && reader.work < mostWork; i += 1) {
      const end = ends[i]!; // a sample
      if (end < covered || placed.covers(end)) continue;
      const hash = hashes[i]!; // a sample
      const isRepeated = hash === lastHash && end - lastEnd < 2 * windowGrams;
      if (isRepeated && repeated >= repeatedLookups && end - lastEnd < windowGrams) continue;
      repeated = isRepeated ? repeated + 1 : 0;
      lastHash = hash;
      lastEnd = end;
      const run = this.#longest(root, hash, end, { reader, placed });
      if (run === undefined) continue;
      runs.push(run);
      covered = run.at + run.tokens;
    }
    return runs;
  }

  /** The run with most free tokens around a sample; of equal ones that whose left context is the prompt's for longer. */
  #longest(
    root: number,
    hash: number,
    end: number,
    { reader, placed }: { reader: RunReader; placed: PlacedRuns },
  ): StoredRun | undefined {
    let best: StoredRun | undefined;
    let mostFree = shortestRun - 1;
    const found = this.#stored.find(root, hash);
    for (let i = 0; i < found; i += 1) {
      const run = reader.around(end, this.#stored.foundChunk(i), this.#stored.foundEnd(i));
      if (run === undefined || run.tokens < shortestRun) continue;
      const free = placed.freeAround(end, run);
      if (best?.at === run.at && best.tokens === run.tokens) {
        if (reader.contextOf(run) <= reader.contextOf(best)) continue;
      } else if (free <= mostFree) continue;
      best = run;
      mostFree = free;
    }
    return best;
  }
}
