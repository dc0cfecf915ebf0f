import * as fc from "fast-check";
import { expect, test } from "vitest";
import { chunkIdOf, type ChunkId } from "../index/chunk-id.ts";
import { Ghosts } from "./ghosts.ts";
import { HazardPolicy } from "./hazard-policy.ts";
import { MinHeap } from "./min-heap.ts";
import { ReuseOdds } from "./reuse-odds.ts";

const second = 1000;

function chunk(row: number): ChunkId {
  return chunkIdOf(row, 0);
}

function traits(row: number, firstToken = 0) {
  return { fingerprint: Math.imul(row, 0x9e3779b1) >>> 0, firstToken };
}

test("a heap gives the least key, whatever was added and removed", () => {
  const steps = fc.array(fc.record({ item: fc.nat(40), key: fc.nat(100) }), { maxLength: 300 });
  fc.assert(
    fc.property(steps, (all) => {
      const keys = new Map<number, number>();
      const places = new Map<number, number>();
      const heap = new MinHeap({
        key: (item) => keys.get(item)!,
        place: (item) => places.get(item) ?? 0,
        setPlace: (item, place) => void places.set(item, place),
      });
      for (const { item, key } of all) {
        if (keys.has(item)) {
          heap.remove(item);
          keys.delete(item);
        } else {
          keys.set(item, key);
          heap.add(item);
        }
        heap.check();
        expect(heap.size).toBe(keys.size);
        expect(heap.first === undefined ? undefined : keys.get(heap.first)).toBe(
          keys.size === 0 ? undefined : Math.min(...keys.values()),
        );
      }
    }),
    { seed: 3 },
  );
});

test("before anything is known the least recently touched goes first", () => {
  const policy = new HazardPolicy();
  for (const [row, at] of [
    [1, 30],
    [2, 10],
    [3, 20],
  ] as const)
    policy.stored(chunk(row), traits(row, row === 3 ? 20_000 : 0), at * second);
  for (const row of [1, 2, 3]) policy.offer(chunk(row), 0);
  const order: number[] = [];
  for (let next = policy.next(100 * second); next !== undefined; next = policy.next(100 * second)) {
    order.push(next);
    policy.withdraw(next, 0);
    policy.check();
  }
  expect(order).toEqual([2, 3, 1]);
});

test("chunks of a kind that is read again outlive younger ones of a kind that is not", () => {
  const policy = new HazardPolicy();
  // Heads of texts are read every ten seconds, deep chunks never.
  for (let round = 1; round <= 200; round += 1) {
    for (let row = 1; row <= 10; row += 1) {
      if (round === 1) policy.stored(chunk(row), traits(row), row);
      else policy.used(chunk(row), round * 10 * second + row);
      policy.stored(chunk(round * 100 + row), traits(round * 100 + row, 20_000), round * 10 * second + 100 + row);
    }
  }
  const now = 2001 * second;
  for (const row of [3, 20_003]) policy.offer(chunk(row), 0);
  expect(policy.next(now)).toBe(20_003);
});

test("a chunk that comes back is known by its fingerprint", () => {
  const withGhost = new HazardPolicy();
  const without = new HazardPolicy();
  for (const policy of [withGhost, without]) {
    policy.stored(chunk(1), traits(1), 1 * second);
    policy.forgotten(chunk(1), traits(1));
    policy.stored(chunk(2), traits(policy === withGhost ? 1 : 2), 2 * second);
    policy.stored(chunk(3), traits(3), 3 * second);
    // One in ten is read; who was read once is read again.
    for (let i = 0; i < 1000; i += 1) {
      policy.stored(chunk(10 + i), traits(10 + i), i);
      if (i % 10 !== 0) continue;
      policy.used(chunk(10 + i), i + 30 * second);
      policy.used(chunk(10 + i), i + 60 * second);
    }
    policy.offer(chunk(2), 0);
    policy.offer(chunk(3), 0);
  }
  expect(without.next(20 * second)).toBe(2);
  expect(withGhost.next(20 * second)).toBe(3);
});

test("the victim can be asked for among one tenant's chunks", () => {
  const policy = new HazardPolicy();
  for (const row of [1, 2, 3, 4]) policy.stored(chunk(row), traits(row, row * 5000), row * second);
  for (const row of [1, 2, 3, 4]) policy.offer(chunk(row), row % 2);
  expect(policy.next(10 * second)).toBe(1);
  expect(policy.next(10 * second, 0)).toBe(2);
  policy.withdraw(chunk(2), 0);
  policy.withdraw(chunk(4), 0);
  expect(policy.next(10 * second, 0)).toBeUndefined();
  policy.check();
});

test("odds follow a workload that changes", () => {
  const odds = new ReuseOdds(2);
  const feed = (read: number, unread: number) => {
    for (let i = 0; i < 2 ** 20; i += 1) {
      odds.enters(i % 2);
      if (i % 2 === read) odds.isRead(read, 60 * second);
    }
    expect(odds.score(read, second)).toBeGreaterThan(3 * odds.score(unread, second));
  };
  feed(0, 1);
  feed(1, 0);
});

test("of ghosts that share a place, the one that left first makes way", () => {
  const ghosts = new Ghosts();
  for (let i = 1; i <= 5; i += 1) ghosts.add(i, { chunkClass: i, touchedAt: i });
  expect(ghosts.take(1)).toBeUndefined();
  expect(ghosts.take(2)).toEqual({ chunkClass: 2, touchedAt: 2 });
  expect(ghosts.take(2)).toBeUndefined();
  expect(ghosts.take(5)).toEqual({ chunkClass: 5, touchedAt: 5 });
});
