/**
 * Where a stored prefix ends in a space with snapshots: at the last end of a chunk that has them.
 *
 *     chunks of the match   [   0   ][   1   ][   2 ⋯         the text goes on in another way inside chunk 2
 *     beside them                    [tail●]                  a shorter text ended here: its tail begins the text too
 *     the prefix            [   0   ][tail●]                  it ends there, or at the end of 0 if that has a snapshot and the tail none
 */
import type { StoredChunks } from "../index/stored-chunk.ts";
import type { ChunkPath, RadixTree } from "../index/radix.ts";

/** Shortens the path to the longest whose last chunk matches whole and has its snapshots, or to nothing. */
export function endAtSnapshot(path: ChunkPath, tree: RadixTree, chunks: StoredChunks): void {
  let readable = 0;
  while (readable < path.length && chunks.tierOf(path.at(readable)) !== undefined) readable += 1;
  for (let i = Math.min(readable, path.length - 1); i >= 0; i -= 1) {
    const chunk = path.at(i);
    const matched = i === path.length - 1 ? path.matchedInLast : tree.chunkTokens;
    const isEnd = (at: typeof chunk) =>
      chunks.isVisible(at) && chunks.tierOf(at) !== undefined && chunks.snapshotTierOf(at) !== undefined;
    if (i < readable && matched === chunks.tokenCount(chunk) && isEnd(chunk)) return path.endAt(i, chunk, matched);
    const tail = tree.shorterSiblings(chunk).find((at) => chunks.tokenCount(at) <= matched && isEnd(at));
    if (tail !== undefined) return path.endAt(i, tail, chunks.tokenCount(tail));
  }
  path.clear();
}
