import * as fc from "fast-check";
import { expect, test } from "vitest";
import { LeastRecentlyUsed } from "./eviction.ts";

test("the least recently used of what is offered comes first, whatever was withdrawn", () => {
  const steps = fc.array(fc.record({ chunk: fc.nat(20), withdraw: fc.boolean() }), { maxLength: 200 });
  fc.assert(
    fc.property(steps, (all) => {
      const policy = new LeastRecentlyUsed<number>();
      const twin = new Map<number, number>();
      for (const [time, { chunk, withdraw }] of all.entries()) {
        policy.withdraw(chunk);
        twin.delete(chunk);
        if (!withdraw) {
          const lastUsed = (time * 7919) % 101;
          policy.offer(chunk, lastUsed);
          twin.set(chunk, lastUsed);
        }
        const next = policy.next();
        expect(next === undefined ? undefined : twin.get(next)).toBe(
          twin.size === 0 ? undefined : Math.min(...twin.values()),
        );
      }
    }),
    { seed: 3 },
  );
});
