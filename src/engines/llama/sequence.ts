/**
 * One slot of the engine: a llama.cpp sequence, the tokens whose KV it holds, and the request it serves.
 *
 * After a request the KV stays: the next request that begins with the same tokens under the same salt goes on from there.
 *
 *     tokens   │ 0 … count: KV computed or restored            │ room up to the context's size
 *     exact    │ 0 … exactCount: whole prompt slices (deterministic mode reuses no more than these)
 */
import { commonTokens } from "../../cache/chunk.ts";
import type { Tokens } from "../../cache/chunk.ts";
import { assert } from "../../errors.ts";
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
  #exactCount = 0;

  constructor(context: Context, id: number, contextTokens: number) {
    this.context = context;
    this.id = id;
    this.#tokens = new Uint32Array(contextTokens);
  }

  /** Tokens whose KV is there. */
  get count(): number {
    return this.#count;
  }

  get exactCount(): number {
    return this.#exactCount;
  }

  /** The tokens held: a view that later appends do not change. */
  get held(): Tokens {
    return this.#tokens.subarray(0, this.#count);
  }

  /** Tokens of `prompt` that are held, from its start. */
  common(prompt: Tokens, salt: string): number {
    return salt === this.salt ? commonTokens(this.held, 0, prompt, 0) : 0;
  }

  /** Says that KV of `tokens` follows what is held. */
  append(tokens: Tokens): void {
    assert(this.#count + tokens.length <= this.#tokens.length, "a sequence never outgrows the context");
    this.#tokens.set(tokens, this.#count);
    this.#count += tokens.length;
  }

  /** All that is held was computed in whole prompt slices, or restored from such. */
  markExact(): void {
    this.#exactCount = this.#count;
  }

  /** Forgets the KV from position `to` on. */
  truncate(to: number): void {
    if (to < this.#count || to === 0) this.context.truncate(this.id, to);
    this.#count = Math.min(this.#count, to);
    this.#exactCount = Math.min(this.#exactCount, to);
  }

  /** Takes over the first `count` tokens of another sequence of the same context without copying. */
  shareFrom(donor: Sequence, count: number): void {
    assert(
      donor.context === this.context && this.#count === 0,
      "cells are shared within a context, into an empty sequence",
    );
    this.context.share(donor.id, this.id, 0, count);
    this.append(donor.held.subarray(0, count));
  }
}
