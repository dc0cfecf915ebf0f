/**
 * Names of chunks: 31 bits, so that they stay small integers everywhere.
 *
 *     │ generation, 6 bits │ page, 15 bits │ row in the page, 10 bits │
 *
 * A row of the index is used again for another chunk; its generation grows then, so that a name that somebody kept too
 * long is caught instead of naming a stranger.
 */
declare const brand: unique symbol;
/** Names a chunk for as long as it is in the index. */
export type ChunkId = number & { readonly [brand]: "ChunkId" };

/** Stands where there is no chunk: row 0 is never given out. */
export const noChunk = 0 as ChunkId;

export const rowBits = 25;
export const pageBits = 15;
export const rowsPerPage = 2 ** (rowBits - pageBits);
export const generations = 64;
// A power is not folded into the code by V8: computed once, a lookup takes a fifth of the time.
const rowMask = 2 ** rowBits - 1;
const pageShift = rowBits - pageBits;
const rowInPageMask = rowsPerPage - 1;

/** Page and row together: what columns beside the index are addressed by. */
export function rowOf(chunk: number): number {
  return chunk & rowMask;
}

export function pageOf(chunk: number): number {
  return (chunk & rowMask) >>> pageShift;
}

export function rowInPage(chunk: number): number {
  return chunk & rowInPageMask;
}

export function chunkIdOf(row: number, generation: number): ChunkId {
  return ((generation << rowBits) | row) as ChunkId; // 31 bits: not negative
}
