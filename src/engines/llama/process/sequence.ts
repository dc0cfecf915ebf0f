/**
 * One sequence of the engine: a llama.cpp sequence, the tokens whose KV it holds, and the request it serves.
 *
 * After a request the KV stays: the next request that begins with the same tokens under the same salt goes on from there.
 *
 *     tokens         │ 0 … count: KV computed or restored      │ room up to the context's size
 *     reproducible   │ 0 … reproducibleCount: whole prompt slices (deterministic mode reuses no more than these)
 */
import { commonTokens } from "../../../identity/tokens.ts";
import type { Tokens } from "../../../identity/tokens.ts";
import { assert } from "../../../errors.ts";
import type { Context } from "./context.ts";
import type { Generation } from "./generation.ts";

export class Sequence {
  readonly context: Context;
  /** Number of the sequence within its context. */
  readonly id: number;
  /** Whose tokens these are. */
  salt = "";
  generation: Generation | undefined;
  /** Increases with every use, over all sequences. */
  lastUsed = 0;
  #tokens: Uint32Array;
  #count = 0;
  #reproducibleCount = 0;
  #losses = 0;
  #approximateFrom: number | undefined;

  constructor(context: Context, id: number, contextTokens: number) {
    this.context = context;
    this.id = id;
    this.#tokens = new Uint32Array(contextTokens);
  }

  /** Tokens whose KV is there. */
  get count(): number {
    return this.#count;
  }

  get reproducibleCount(): number {
    return this.#reproducibleCount;
  }

  /**
   * What is held from this position on may differ from what computing the text would give, and so does what is computed after
   * it: nobody else reads it, and it is not stored. undefined: nothing.
   */
  get approximateFrom(): number | undefined {
    return this.#approximateFrom;
  }

  /** Says that what is held from position `from` on, and what will be, is approximate or of doubtful origin. */
  taint(from: number): void {
    this.#approximateFrom = Math.min(from, this.#approximateFrom ?? from);
  }

  /** Tokens that are held from its start and are no approximation. */
  get trustedCount(): number {
    return Math.min(this.#count, this.#approximateFrom ?? this.#count);
  }

  /** How often it lost tokens: what was compared with it stays right while this is the same. */
  get losses(): number {
    return this.#losses;
  }

  /** The tokens held: a view that later appends do not change. */
  get held(): Tokens {
    return this.#tokens.subarray(0, this.#count);
  }

  /**
   * Tokens of `prompt` that are held, from its start, and are no approximation.
   *
   * @param known so many of them are known to be
   */
  common(prompt: Tokens, salt: string, known = 0): number {
    const trusted = this.#tokens.subarray(0, this.trustedCount);
    return salt === this.salt ? known + commonTokens(trusted, known, prompt, known) : 0;
  }

  /** Says that KV of `tokens` follows what is held. */
  append(tokens: Tokens): void {
    assert(this.#count + tokens.length <= this.#tokens.length, "a sequence never outgrows the context");
    this.#tokens.set(tokens, this.#count);
    this.#count += tokens.length;
  }

  /** All that is held was computed in whole prompt slices, or restored from such. */
  markReproducible(): void {
    this.#reproducibleCount = this.#count;
  }

  /** Forgets the KV from position `to` on. */
  truncate(to: number): void {
    if (to < this.#count || to === 0) this.context.truncate(this.id, to);
    if (to < this.#count) this.#losses += 1;
    this.#count = Math.min(this.#count, to);
    this.#reproducibleCount = Math.min(this.#reproducibleCount, to);
    if (this.#approximateFrom !== undefined && to <= this.#approximateFrom) this.#approximateFrom = undefined;
  }

  /** Takes over what another sequence of the same context holds of the same text, up to `to`. */
  shareFrom(donor: Sequence, to: number): void {
    assert(donor.context === this.context, "cells are shared within a context");
    const from = this.#count;
    this.context.share(donor.id, this.id, from, to);
    this.append(donor.held.subarray(from, to));
  }
}
