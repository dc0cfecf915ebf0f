/**
 * Prompt lookup: where the last tokens of a text stood before, and what followed them there. An answer that quotes its prompt, or
 * repeats itself, often goes on as that did (Saxena, Prompt Lookup Decoding, 2023; vLLM's ngram, llama.cpp's lookup).
 *
 *     │ … 7 3 9 4 5 6 8 … │ … 7 3 9 4     the last four stood there: 5 6 8 may follow
 *
 * One hash table says of every run of 2 to 4 tokens where it ended last: with open addressing, at 3/4 full at most, and compared
 * token by token, so that a run that is found is the run that was looked for. 36 bytes a token at most. 32,000 tokens take 4 ms,
 * once; after that a token takes a microsecond.
 */
import { getRandomValues } from "node:crypto";
import type { Tokens } from "../../../identity/tokens.ts";

export interface Continuation {
  /** Tokens at the end of the text that stood before the continuation as well. */
  readonly matched: number;
  readonly tokens: Tokens;
}

/** Shorter runs come back by chance; longer ones are followed by nothing else than their last tokens are. */
export const shortestRun = 2;
export const longestRun = 4;

export class PromptLookup {
  readonly #tokens: Uint32Array;
  #count: number;
  /** Runs that end here or before are in the table. */
  #indexed = 0;
  /** `4 × end + length − 1` of a run, 0 where there is none. Made when it is needed. */
  #table = new Uint32Array(0);
  #shift = 0;
  /** One for each token of a run. They are drawn, so that nobody can send tokens whose runs all go to one place. */
  readonly #factors = getRandomValues(new Uint32Array(longestRun)).map((factor) => factor | 1);

  /** @param mostTokens that the text will ever have, `prompt` included */
  constructor(prompt: Tokens, mostTokens: number) {
    this.#tokens = new Uint32Array(mostTokens);
    this.#tokens.set(prompt);
    this.#count = prompt.length;
  }

  append(token: number): void {
    this.#tokens[this.#count] = token;
    this.#count += 1;
  }

  /**
   * What followed the longest run that the text ends with and that stood in it before, where it stood last: `most` tokens. What
   * reaches the end of the text goes on with itself, as in "ha ha ha".
   */
  continuation(most: number): Continuation | undefined {
    this.#index();
    const end = this.#count;
    for (let length = Math.min(longestRun, end); length >= shortestRun; length -= 1) {
      const run = this.#table[this.#placeOf(end, length)]!; // places are within the table
      if (run !== 0) return { matched: length, tokens: this.#copy(run >>> 2, most) };
    }
    return undefined;
  }

  #copy(from: number, most: number): Tokens {
    const copied = new Uint32Array(most);
    for (let i = 0; i < most; i += 1) {
      const at = from + i;
      copied[i] = at < this.#count ? this.#tokens[at]! : copied[at - this.#count]!; // both are before their ends
    }
    return copied;
  }

  /** Takes in runs that something follows by now. */
  #index(): void {
    if (this.#table.length === 0) {
      const bits = Math.ceil(Math.log2(4 * Math.max(4, this.#tokens.length)));
      this.#table = new Uint32Array(2 ** bits);
      this.#shift = 32 - bits;
    }
    for (let end = this.#indexed + 1; end < this.#count; end += 1) {
      for (let length = shortestRun; length <= Math.min(longestRun, end); length += 1) {
        this.#table[this.#placeOf(end, length)] = 4 * end + length - 1;
      }
      this.#indexed = end;
    }
  }

  /** Where in the table the run of that length is that ends there, or would be. */
  #placeOf(end: number, length: number): number {
    let hash = length;
    for (let back = 1; back <= length; back += 1) {
      hash = (hash + Math.imul(this.#tokens[end - back]!, this.#factors[back - 1]!)) | 0;
    }
    let place = Math.imul(hash, 0x9e37_79b1) >>> this.#shift;
    for (;;) {
      const run = this.#table[place]!;
      if (run === 0 || this.#isEqual(run, end, length)) return place;
      place = (place + 1) & (this.#table.length - 1);
    }
  }

  #isEqual(run: number, end: number, length: number): boolean {
    if ((run & 3) !== length - 1) return false;
    const other = run >>> 2;
    for (let back = 1; back <= length; back += 1) {
      if (this.#tokens[other - back] !== this.#tokens[end - back]) return false;
    }
    return true;
  }
}
