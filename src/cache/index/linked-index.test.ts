import * as fc from "fast-check";
import { expect, test } from "vitest";
import type { ChunkId } from "./chunk-id.ts";
import { LinkedIndex } from "./linked-index.ts";

test("chunks are found by their numbers, whatever was added and removed, as the table grows", () => {
  // Few different keys in the low bits, so that chains are long; some beyond 32 bits.
  const keys = fc.oneof(fc.nat(60), fc.integer({ min: 2 ** 33, max: 2 ** 33 + 30 }));
  fc.assert(
    fc.property(fc.array(keys, { maxLength: 400 }), (steps) => {
      const keyOf = new Map<number, number>();
      const next = new Map<number, number>();
      const index = new LinkedIndex({
        keyOf: (chunk) => keyOf.get(chunk),
        next: (chunk) => next.get(chunk) ?? 0,
        setNext: (chunk, after) => void next.set(chunk, after),
      });
      const twin = new Map<number, ChunkId>();
      for (const [i, key] of steps.entries()) {
        const known = twin.get(key);
        if (known !== undefined) {
          index.remove(known);
          twin.delete(key);
        } else {
          const chunk = (i + 1) as ChunkId;
          keyOf.set(chunk, key);
          index.add(chunk);
          twin.set(key, chunk);
        }
        expect(index.size).toBe(twin.size);
        for (const each of steps.slice(0, 20)) expect(index.find(each)).toBe(twin.get(each));
      }
    }),
    { seed: 5, numRuns: 50 },
  );
});
