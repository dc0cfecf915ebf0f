/**
 * What the sequences hold while requests come and go: which of it stays, which is saved, and which is not to be trusted.
 *
 *     begin: the prefix that a request shares stays, the rest makes room ──► savePrompt ──► end: what it computed stays and is saved
 *                                                                                      └──► empty: of a failed step nothing stays
 */
import { assert } from "../../../errors.ts";
import type { Log } from "../../../log.ts";
import type { Context } from "./context.ts";
import type { Generation } from "./generation.ts";
import { Saver } from "./saver.ts";
import type { Placement } from "./sequence-choice.ts";
import type { PayloadLayout } from "./sequence-state.ts";
import type { Sequence } from "./sequence.ts";
import type { FindStoredKv } from "./stored-kv.ts";

export interface ResidentKvOptions {
  readonly sequences: readonly Sequence[];
  /** Undefined = this family's KV is not reused. */
  readonly layout: PayloadLayout | undefined;
  /** Deterministic mode: tokens per slice. */
  readonly sliceTokens: number | undefined;
  readonly stored: FindStoredKv;
  /** Were the weights written to since the last look? Then what was computed with them may be of the old ones or of both. */
  readonly weightsChanged: () => boolean;
  /** Chunks were given to the cache, or (with 0) no longer wait for that. */
  readonly onSaved: (chunks: number) => void;
  /** There is something to do. */
  readonly wake: () => void;
  readonly log: Log;
}

export class ResidentKv {
  readonly #options: ResidentKvOptions;
  readonly #saver: Saver | undefined;
  #uses = 0;

  constructor(options: ResidentKvOptions) {
    this.#options = options;
    const { layout, stored, onSaved, wake, log } = options;
    if (layout !== undefined) this.#saver = new Saver({ stored, layout, log, wake, onSaved });
  }

  /** Nothing is being saved. */
  get isSaved(): boolean {
    return this.#saver?.idle !== false;
  }

  /** Chunks of what was answered that the cache does not have yet. */
  get unsavedChunks(): number {
    return this.#saver?.unsavedChunks ?? 0;
  }

  /** Writes what is to be saved for about `budgetMs`. @returns true when there is more that can be written now. */
  save(budgetMs: number): boolean {
    return this.#saver?.work(budgetMs) === true;
  }

  /**
   * May the sequence go to another request? Right after an answer, where it is to be saved is not known yet: with the sequence
   * its next turn would lose it.
   */
  isFree({ sequence, prefix, donor }: Placement): boolean {
    return this.#saver?.isAsking(sequence, donor === undefined ? prefix : 0) !== true;
  }

  /** Gives the sequence to a request, with what is resident of its prompt. */
  begin(generation: Generation, { sequence, prefix, donor }: Placement): void {
    generation.countReused("resident", prefix);
    this.#truncate(sequence, donor === undefined ? prefix : 0);
    if (donor !== undefined) sequence.shareFrom(donor, prefix);
    sequence.salt = generation.request.cache.salt;
    sequence.generation = generation;
    this.#use(sequence);
  }

  /** Saves whole chunks of the prompt; called as soon as the first token is out. */
  savePrompt(sequence: Sequence, generation: Generation): void {
    this.taintChangedWeights();
    const { request } = generation;
    const stored = this.#options.stored();
    if (stored === undefined || !request.cache.save) return;
    const { chunkTokens } = stored.session;
    const whole = Math.floor(request.tokens.length / chunkTokens) * chunkTokens;
    this.#saver?.add(sequence, request.tokens.subarray(0, whole), request.cache);
  }

  /** Takes a request out of its sequence. What it computed stays there and is saved, where that is allowed. */
  end(sequence: Sequence, generation: Generation): void {
    this.taintChangedWeights();
    const { layout, sliceTokens, wake } = this.#options;
    const { request, reusedTokens } = generation;
    sequence.generation = undefined;
    this.#use(sequence);
    if (layout === undefined) this.#truncate(sequence, 0);
    else if (sliceTokens !== undefined) this.#truncate(sequence, sequence.reproducibleCount);
    this.#truncate(sequence, sequence.approximateFrom ?? sequence.count);
    if (!request.cache.save) this.#truncate(sequence, Math.min(sequence.count, reusedTokens));
    else this.#saver?.add(sequence, sequence.held, request.cache);
    wake();
  }

  /** Takes a request out of its sequence, and all that it holds: nothing computed in a failed step can be trusted. */
  empty(sequence: Sequence): void {
    sequence.generation = undefined;
    this.#truncate(sequence, 0);
  }

  /**
   * Empties the sequence of a context that nobody runs in and that was used longest ago.
   *
   * @returns false when there is none, or when its cells are no use to others
   */
  dropIdle(context: Context): boolean {
    if (context.layout !== "unified") return false;
    const idle = this.#options.sequences.filter(
      (sequence) => sequence.context === context && sequence.generation === undefined && sequence.count > 0,
    );
    if (idle.length === 0) return false;
    this.#truncate(
      idle.reduce((oldest, sequence) => (sequence.lastUsed < oldest.lastUsed ? sequence : oldest)),
      0,
    );
    return true;
  }

  /** KV of weights that were written to is neither kept nor stored, nor what requests that run now go on to compute. */
  taintChangedWeights(): void {
    if (!this.#options.weightsChanged()) return;
    for (const sequence of this.#options.sequences) {
      sequence.taint(0);
      if (sequence.generation === undefined) this.#truncate(sequence, 0);
    }
  }

  /** What sequences say they hold is what llama.cpp holds, and nobody is in the temporary sequence. Between steps only. */
  check(): void {
    for (const { context, id, count } of this.#options.sequences) {
      assert(context.length(id) === count, `sequence ${id} holds ${context.length(id)} tokens, ${count} are counted`);
      const isPassing = context.layout === "unified"; // through the temporary sequence
      assert(!isPassing || context.length(context.sequences) === 0, "the temporary sequence is left empty");
    }
  }

  #truncate(sequence: Sequence, to: number): void {
    if (to < sequence.count) this.#saver?.finish(sequence, to);
    sequence.truncate(to);
  }

  #use(sequence: Sequence): void {
    this.#uses += 1;
    sequence.lastUsed = this.#uses;
  }
}
