import { expect, test } from "vitest";
import { Quota } from "./quota.ts";

const turn = () => new Promise((resolve) => setImmediate(resolve));

/** Counters of a store that takes its time. */
function counters() {
  const values = new Map<string, number>();
  let fails = false;
  return {
    values,
    set fails(value: boolean) {
      fails = value;
    },
    asked: 0,
    async read(names: readonly string[]): Promise<readonly number[]> {
      const read = names.map((name) => values.get(name) ?? 0);
      this.asked += 1;
      await turn(); // others write while the answer is on its way
      if (fails) throw new Error("connection reset");
      return read;
    },
    async add(name: string, bytes: number): Promise<number> {
      this.asked += 1;
      await turn();
      const value = (values.get(name) ?? 0) + bytes;
      values.set(name, value);
      await turn();
      return value;
    },
  };
}

const limits = { ttlSeconds: 3600, maxBytes: 1000, maxTenantBytes: undefined };

test("writers that ask at the same time do not count on the same room, and what is used is known", async () => {
  const quota = new Quota(limits, counters(), () => 1_000_000);
  expect(quota.known).toEqual({ limitBytes: 1000 });
  const taken = await Promise.all(Array.from({ length: 20 }, () => quota.take("a", 100)));
  expect(taken.filter(Boolean)).toHaveLength(10);
  expect(quota.known).toEqual({ limitBytes: 1000, usedBytes: 1000 });
});

test("a sum that failed is asked for again at once, and an old one after some seconds", async () => {
  let now = 1_000_000;
  const store = counters();
  const quota = new Quota(limits, store, () => now);
  store.fails = true;
  await expect(quota.take("a", 100)).rejects.toThrow("connection reset");
  store.fails = false;
  expect(await quota.take("a", 900)).toBe(true);
  expect(await quota.take("a", 200)).toBe(false);
  store.values.clear(); // their time has ended
  expect(await quota.take("a", 200)).toBe(false);
  now += 5000;
  expect(await quota.take("a", 200)).toBe(true);
  expect(quota.known?.usedBytes).toBe(200);
});

test("hosts that write at the same time never have more than the limit together, and give back what they do not write", async () => {
  const store = counters();
  const both = { ttlSeconds: 3600, maxBytes: 5000, maxTenantBytes: 1000 };
  const hosts = [1, 2, 3].map(() => new Quota(both, store, () => 1_000_000));
  const taken = await Promise.all(
    Array.from({ length: 90 }, (_, i) => hosts[i % 3]!.take("flood", 70)), // one of them
  );
  const bytes = 70 * taken.filter(Boolean).length;
  expect(bytes).toBeGreaterThan(0);
  expect(bytes).toBeLessThanOrEqual(1000);
  expect([...store.values.values()]).toEqual([bytes, bytes]); // of all and of the tenant
  // There is room for some that were refused while others were counted.
  for (const host of hosts) while (await host.take("flood", 70));
  expect([...store.values.values()]).toEqual([980, 980]);
  const { asked } = store;
  for (const host of hosts) expect(await host.take("flood", 70)).toBe(false);
  expect(store.asked).toBe(asked); // what is refused for some seconds asks nobody
  for (const host of hosts) expect(await host.take("other", 70)).toBe(true);
});
