/** The texts of {@link ./pool-writer.ts}: each has one to four chunks, and no two begin alike. */
import type { Tokens } from "../../src/identity/tokens.ts";

export const killedSlotBytes = 300_000;

export function killedText(number: number): Tokens {
  return Uint32Array.from({ length: 3 + (number % 4) * 4 }, (_, i) => number * 16 + i);
}

/** Of every chunk of the text. */
export function payloadBytesOf(number: number): number {
  return 1000 + ((number * 7919) % 250_000);
}
