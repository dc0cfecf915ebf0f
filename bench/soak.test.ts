import { expect, test } from "vitest";
import { soak } from "../test/support/soak.ts";

test("after many random operations free and used are still all there is, and memory has not grown with them", async () => {
  const result = await soak({ operations: 60_000, seed: 7 });
  expect(result.savedChunks).toBeGreaterThan(5000);
  expect(result.loadedChunks).toBeGreaterThan(5000);
  expect(result.evictedChunks).toBeGreaterThan(1000);
  expect(result.resizes).toBeGreaterThan(5);
  // The heap swings by some tens of MiB between collections; 60,000 objects forgotten would be lost in that, so this
  // bounds only what runs away. The long run measures the slope: npm run bench -- soak.
  expect(result.endBytes - result.halfBytes).toBeLessThan(100 * 2 ** 20);
}, 120_000);
