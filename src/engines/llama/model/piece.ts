/**
 * What a token adds to a text: bytes, which need not be whole characters.
 */
export interface Piece {
  readonly bytes: Uint8Array;
  /** The same as a text, where no character ends in another token. */
  readonly text: string | undefined;
}

/** Ignores no BOM: it is a character of the answer. */
const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

export function pieceOf(bytes: Uint8Array): Piece {
  return { bytes, text: unfinishedBytes(bytes) === 0 ? decodeText(bytes) : undefined };
}

/** Bytes that are no text become U+FFFD. */
export function decodeText(bytes: Uint8Array): string {
  return decoder.decode(bytes);
}

/** Bytes at the end that begin a character which is not complete yet. */
export function unfinishedBytes(bytes: Uint8Array): number {
  for (let back = 1; back <= Math.min(3, bytes.length); back += 1) {
    const byte = bytes[bytes.length - back]!;
    if (byte < 0x80) return 0;
    if (byte < 0xc0) continue; // a continuation: look for what it continues
    const size = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2;
    return size > back && byte < 0xf8 ? back : 0;
  }
  return 0;
}
