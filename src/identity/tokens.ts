/** Token ids, and their bytes as they are hashed, stored and sent: u32 LE. */

/** Token ids of a text, in order. Never changed in place. */
export type Tokens = Uint32Array;

/** Tokens as u32 LE bytes: a view of the same memory, not a copy (every supported machine is little-endian). */
export function tokenBytes(tokens: Tokens): Uint8Array {
  return new Uint8Array(tokens.buffer, tokens.byteOffset, tokens.byteLength);
}

/** The reverse of {@link tokenBytes}; copies, since `bytes` may be unaligned. */
export function tokensFromBytes(bytes: Uint8Array): Tokens {
  const copy = new Uint8Array(bytes); // not slice(): a Buffer's is a view
  return new Uint32Array(copy.buffer, copy.byteOffset, copy.byteLength >>> 2);
}

/** Length of the common prefix of `a` from `aStart` and `b` from `bStart`. */
export function commonTokens(a: Tokens, aStart: number, b: Tokens, bStart: number): number {
  const limit = Math.min(a.length - aStart, b.length - bStart);
  let length = 0;
  while (length < limit && a[aStart + length] === b[bStart + length]) length += 1;
  return length;
}
