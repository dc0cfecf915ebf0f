/**
 * What ggml's CPU attention makes a step's number of rows cost.
 *
 * It computes 64 rows of a head together, a tile; with fewer rows in a step it goes row by row, which costs several times as
 * much: 63 rows after 1,260 tokens took 182 ms of processor time, 64 took 90. A part of a tile costs as much as a whole one,
 * and parts come from the way rows are dealt to threads as well: all rows of all heads are cut into four chunks a thread.
 *
 *     64 rows, 6 heads, 2 threads: 8 chunks of 48 rows      512 rows: 8 chunks of 384 rows
 *     head 0          │ head 1           │ …                whole tiles
 *     ▓▓▓▓▓▓▓▓▓▓▓▓│▓▓▓ │▓▓▓▓▓▓▓▓│▓▓▓▓▓▓▓▓ │
 *     chunk 0      chunk 1       chunk 2                    12 tiles, where 6 would do
 */
/** Rows of a tile (GGML_FA_TILE_Q). */
export const tileTokens = 64;

export interface AttentionShape {
  readonly layers: number;
  readonly heads: number;
  readonly headSize: number;
  readonly parameters: number;
  readonly threads: number;
}

/** How much faster ggml multiplies weights than it attends in tiles, operation for operation: 67 and 37 GFLOPS were measured. */
const mulMatSpeed = 1.8;
/** How much more attention costs row by row than in tiles, as measured. */
const untiledCost = 3.5;
const chunksPerThread = 4;

export class TiledAttention {
  readonly #shape: AttentionShape;
  /** The cost of attending to one position, in a whole tile. */
  readonly #positionCost: number;

  constructor(shape: AttentionShape) {
    const { layers, heads, headSize, parameters } = shape;
    this.#shape = shape;
    this.#positionCost = (mulMatSpeed * 4 * layers * heads * headSize) / (2 * parameters);
  }

  /** What a step of `rows` rows after `held` tokens costs; 1 is what a token costs without attention. */
  cost(rows: number, held: number): number {
    const rowCost = this.#positionCost * (held + rows);
    if (rows < tileTokens) return rows * (1 + untiledCost * rowCost);
    return rows + ((this.#tiles(rows) * tileTokens) / this.#shape.heads) * rowCost;
  }

  /** Tiles of all heads, as ggml cuts them. */
  #tiles(rows: number): number {
    const { heads, threads } = this.#shape;
    const all = rows * heads;
    const chunks = threads === 1 ? 1 : Math.ceil(all / Math.ceil(all / (chunksPerThread * threads)));
    const chunkRows = Math.ceil(all / Math.max(chunks, threads));
    let tiles = 0;
    for (let row = 0; row < all; tiles += 1) {
      row += Math.min(tileTokens, chunkRows - (row % chunkRows), rows - (row % rows));
    }
    return tiles;
  }
}
