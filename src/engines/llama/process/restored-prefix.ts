/**
 * KV of a text's beginning on its way into a sequence: chunk by chunk, each where the one before ended. How it gets there is the context's
 * matter (kv-copies.ts); what the sequence says that it holds is always what llama.cpp holds.
 */
import type { Tokens } from "../../../identity/tokens.ts";
import type { Restoring } from "./kv-copies.ts";
import type { Sequence } from "./sequence.ts";

export class RestoredPrefix {
  readonly #sequence: Sequence;
  readonly #tokens: Tokens;
  readonly #restoring: Restoring;
  #count: number;

  private constructor(sequence: Sequence, tokens: Tokens, restoring: Restoring) {
    this.#sequence = sequence;
    this.#tokens = tokens;
    this.#count = sequence.count;
    this.#restoring = restoring;
  }

  /**
   * Begins; it must be ended or dropped.
   *
   * @param tokens the text as far as it may be restored; it begins with what the sequence holds
   */
  static async begin(sequence: Sequence, tokens: Tokens): Promise<RestoredPrefix> {
    const restoring = await sequence.context.copies.restore(sequence.id, sequence.count, tokens.length);
    return new RestoredPrefix(sequence, tokens, restoring);
  }

  /** Tokens that the sequence holds, or will at the {@link end}. */
  get count(): number {
    return this.#count;
  }

  /**
   * Adds what follows {@link count} out of a payload that has passed `isPayload`, up to position `to`.
   *
   * @returns `"no room"` when the cells do not suffice; nothing has changed then
   */
  add(
    payload: Uint8Array,
    { tokenCount, to }: { readonly tokenCount: number; readonly to: number },
  ): "restored" | "no room" {
    const from = this.#count;
    if (this.#restoring.add(payload, { from, to, tokenCount }) === "no room") return "no room";
    this.#count = to;
    if (this.#restoring.isAtOnce) this.#append();
    return "restored";
  }

  /** Payloads that were added are no longer needed. */
  arrived(): Promise<void> {
    return this.#restoring.arrived();
  }

  /** Ends it without what the sequence does not hold yet. */
  drop(): void {
    if (!this.#restoring.drop()) this.#empty();
  }

  /** @returns false when it could not be written: the sequence is empty then */
  end(): boolean {
    if (!this.#restoring.end()) {
      this.#empty();
      return false;
    }
    this.#append();
    return true;
  }

  #empty(): void {
    this.#sequence.truncate(0);
    this.#count = 0;
  }

  #append(): void {
    this.#sequence.append(this.#tokens.subarray(this.#sequence.count, this.#count));
  }
}
