/**
 * Prompts that begin alike and are read at the same time: one request computes what they share, the others follow it and take it over.
 *
 *     prefill ──► following ──► loading (takes over) ──► prefill
 *
 * Who follows whom is decided anew between steps, out of what is there: a request follows one with less left to compute, which the plan
 * serves first anyway, if that one will hold enough more of its prompt. So in every group one reads, nobody waits longer than computing
 * would take, and when the one that reads leaves, the next goes on from what is there: nothing has to be handed over.
 */
import { commonTokens } from "../../../identity/tokens.ts";
import type { Generation } from "./generation.ts";
import type { Neighbours } from "./neighbours.ts";
import type { ResidentMatches } from "./resident-matches.ts";
import type { Sequence } from "./sequence.ts";
import type { RunningSequence } from "./step.ts";

export interface SharedReadingOptions {
  readonly sequences: readonly Sequence[];
  readonly neighbours: Neighbours;
  readonly matches: ResidentMatches;
  /** Deterministic mode: whole slices of this many tokens only. */
  readonly sliceTokens: number | undefined;
  /** A request that followed has taken over what is there, or was cancelled meanwhile. */
  readonly onTaken: (sequence: Sequence, generation: Generation) => void;
}

/** Fewer tokens are no reason to begin to follow: they go through the model in one step, and taking them over has a price too. */
const worthwhileTokens = 64;

/** A request whose prompt is being read. */
interface Reader {
  readonly sequence: Sequence;
  readonly generation: Generation;
  /** Tokens left to compute. */
  readonly left: number;
}

export class SharedReading {
  readonly #options: SharedReadingOptions;
  /** Those that take over, one after the other: others run their steps in between. */
  readonly #taking: Reader[] = [];
  /** Whom a request follows. */
  readonly #leaders = new WeakMap<Generation, Generation>();
  /** Tokens that two prompts have in common: they are compared once. */
  readonly #common = new WeakMap<Generation, WeakMap<Generation, number>>();
  /** By leader: when the first of those came that it reads for. */
  #turns: ReadonlyMap<Sequence, number> = new Map();

  constructor(options: SharedReadingOptions) {
    this.#options = options;
  }

  /** Decides who reads, who follows, and who goes on: before a step, and before a sequence that was left is given away. */
  arrange(): void {
    const readers = this.#readers();
    const turns = new Map<Sequence, number>();
    const released: Reader[] = [];
    for (const reader of readers.toReversed()) {
      if (this.#taking.some(({ generation }) => generation === reader.generation)) continue;
      const leader = this.#leaderOf(reader, readers);
      if (leader !== undefined) {
        this.#follow(reader, leader);
        const turn = Math.min(reader.sequence.lastUsed, turns.get(reader.sequence) ?? Infinity); // a leader may follow another
        turns.set(leader.sequence, Math.min(turn, turns.get(leader.sequence) ?? Infinity));
      } else if (reader.generation.phase === "following") released.unshift(reader);
    }
    this.#turns = turns;
    for (const reader of released) this.#take(reader);
  }

  /** Those that run, as a plan is to look at them: whoever reads for others has the turn of the first of them. */
  inTurn(running: readonly RunningSequence[]): RunningSequence[] {
    const { sequences } = this.#options;
    return running.map((each) => {
      const turn = this.#turns.get(sequences[each.sequence]!) ?? Infinity; // plans name sequences of the engine
      return turn < each.lastUsed ? { ...each, lastUsed: turn } : each;
    });
  }

  /** Who reads or follows, in the plan's order. It is strict, so that somebody always reads. */
  #readers(): Reader[] {
    const readers = this.#options.sequences.flatMap((sequence): Reader[] => {
      const { generation, count } = sequence;
      if (generation === undefined) return [];
      const isTaking = this.#taking.some((each) => each.generation === generation);
      if (!isTaking && generation.phase !== "prefill" && generation.phase !== "following") return [];
      return [{ sequence, generation, left: generation.request.tokens.length - count }];
    });
    return readers.sort((a, b) => a.left - b.left || a.sequence.lastUsed - b.sequence.lastUsed);
  }

  /** Which of those before it will hold enough more of its prompt than it can have now; the one that will hold most. */
  #leaderOf(reader: Reader, readers: readonly Reader[]): Reader | undefined {
    const { sequence, generation } = reader;
    const { cache } = generation.request;
    // What it computed itself stays unknown: it reads on alone.
    const isSecret = !cache.save && sequence.count > generation.reusedTokens;
    const before = readers.slice(0, readers.indexOf(reader));
    if (!cache.read || isSecret || before.length === 0) return undefined;
    const has = this.#available(reader);
    let best: { leader: Reader; tokens: number } | undefined;
    for (const leader of before) {
      const tokens = this.#promised(leader, reader);
      const least = this.#leaders.get(generation) === leader.generation ? 1 : worthwhileTokens;
      if (tokens - has < least || tokens <= (best?.tokens ?? 0)) continue;
      if (this.#options.neighbours.isWorthTaking(leader.sequence, sequence, tokens)) best = { leader, tokens };
    }
    return best?.leader;
  }

  /** Tokens of its prompt that the request has, or could have at once. */
  #available({ sequence, generation }: Reader): number {
    const { sequences, matches } = this.#options;
    const others = sequences.filter((other) => other !== sequence);
    return Math.max(sequence.count, ...others.map((other) => matches.of(generation.request, other)));
  }

  /** Tokens of the reader's prompt that the leader will hold when it has read its own. */
  #promised({ sequence, generation: leader }: Reader, { generation }: Reader): number {
    const { sliceTokens = 1 } = this.#options;
    const { tokens: prompt, cache } = generation.request;
    if (!leader.request.cache.save || leader.request.cache.salt !== cache.salt) return 0;
    const trusted = sequence.approximateFrom ?? Infinity;
    const tokens = Math.min(this.#commonOf(leader, generation), prompt.length - 1, trusted);
    return Math.floor(tokens / sliceTokens) * sliceTokens;
  }

  #commonOf(one: Generation, other: Generation): number {
    let ofOne = this.#common.get(one);
    if (ofOne === undefined) this.#common.set(one, (ofOne = new WeakMap()));
    let common = ofOne.get(other);
    if (common === undefined) ofOne.set(other, (common = commonTokens(one.request.tokens, 0, other.request.tokens, 0)));
    return common;
  }

  #follow({ generation }: Reader, leader: Reader): void {
    generation.phase = "following";
    this.#leaders.set(generation, leader.generation);
  }

  /** The first one begins at once, so that nobody else gets what it takes over. */
  #take(reader: Reader): void {
    reader.generation.phase = "loading";
    this.#leaders.delete(reader.generation);
    this.#taking.push(reader);
    if (this.#taking.length === 1) void this.#takeAll();
  }

  async #takeAll(): Promise<void> {
    const { neighbours, onTaken } = this.#options;
    for (let next = this.#taking[0]; next !== undefined; next = this.#taking[0]) {
      await neighbours.takeInto(next.sequence, next.generation);
      this.#taking.shift();
      onTaken(next.sequence, next.generation);
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
}
