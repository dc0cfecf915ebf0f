/**
 * Names of chunks: 31 bits, so that they stay small integers everywhere.
 *
 *     │ generation, 6 bits │ row, 25 bits │      never 0: row 0 is not used
 *
 * A row of the index is used again for another chunk; its generation grows then, so that a name that somebody kept too
 * long is caught instead of naming a stranger.
 */
declare const brand: unique symbol;
/** Names a chunk for as long as it is in the index. */
export type ChunkId = number & { readonly [brand]: "ChunkId" };

export const rowBits = 25;
const rowMask = 2 ** rowBits - 1;
export const generations = 64;

export function rowOf(chunk: number): number {
  return chunk & rowMask;
}

export function generationOf(chunk: number): number {
  return chunk >>> rowBits;
}

export function chunkIdOf(row: number, generation: number): ChunkId {
  return ((generation << rowBits) | row) as ChunkId; // 31 bits: not negative
}
