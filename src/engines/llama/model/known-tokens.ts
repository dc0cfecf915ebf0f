/**
 * The tokens of long texts that were tokenized before: the next turn of a chat has all earlier ones in it, word for word.
 *
 * As with KV, only requests with the same salt share what was read: else the time that an answer takes would tell what others
 * have sent.
 */
import { createHash } from "node:crypto";

/** Tokens of a process: 4 Mi of them. */
const capacityBytes = 16 * 1024 * 1024;
/** What an entry takes beside its tokens, about. */
const entryBytes = 200;

export interface TextKind {
  /** Texts of control tokens become these tokens. */
  readonly special: boolean;
}

export class KnownTokens {
  /** The least recently used first. */
  readonly #byDigest = new Map<string, Uint32Array>();
  readonly #capacityBytes: number;
  #bytes = 0;

  constructor(limits: { readonly capacityBytes: number } = { capacityBytes }) {
    this.#capacityBytes = limits.capacityBytes;
  }

  /** The tokens of a text under a salt: those that are known, or what `tokenize` finds. They must not be changed. */
  of(salt: string, text: string, { special }: TextKind, tokenize: () => Uint32Array): Uint32Array {
    const digest = digestOf(salt, text, special);
    const known = this.#byDigest.get(digest);
    if (known !== undefined) {
      this.#byDigest.delete(digest);
      this.#byDigest.set(digest, known);
      return known;
    }
    const tokens = tokenize();
    this.#remember(digest, tokens);
    return tokens;
  }

  #remember(digest: string, tokens: Uint32Array): void {
    if (bytesOf(tokens) > this.#capacityBytes) return;
    this.#byDigest.set(digest, tokens.slice()); // it may be a view of much more memory
    this.#bytes += bytesOf(tokens);
    for (const [oldest, its] of this.#byDigest) {
      if (this.#bytes <= this.#capacityBytes) return;
      this.#byDigest.delete(oldest);
      this.#bytes -= bytesOf(its);
    }
  }
}

function bytesOf(tokens: Uint32Array): number {
  return tokens.byteLength + entryBytes;
}

function digestOf(salt: string, text: string, special: boolean): string {
  const begin = `${salt.length}${special ? "s" : "p"}${salt}`;
  return createHash("sha256").update(begin).update(text).digest("base64");
}
