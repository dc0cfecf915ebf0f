import { expect, test } from "vitest";
import { rounds, seedOr, timeoutMs } from "../test/support/depth.ts";
import { soak } from "../test/support/soak.ts";

const operations = rounds({ small: 20_000, full: 60_000 });

test(
  "after many random operations free and used are still all there is, and memory has not grown with them",
  async () => {
    const result = await soak({ operations, seed: seedOr(7) });
    expect(result.savedChunks).toBeGreaterThan(operations / 12);
    expect(result.loadedChunks).toBeGreaterThan(operations / 12);
    expect(result.evictedChunks).toBeGreaterThan(operations / 60);
    expect(result.resizes).toBeGreaterThan(operations / 12_000);
    // The heap swings by some tens of MiB between collections; the objects of this many operations would be lost in that, so this
    // bounds only what runs away. The long run measures the slope: npm run bench -- soak.
    expect(result.endBytes - result.halfBytes).toBeLessThan(100 * 2 ** 20);
  },
  timeoutMs(120_000),
);
