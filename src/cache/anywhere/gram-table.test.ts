import { expect, test } from "vitest";
import { rounds } from "../../../test/support/depth.ts";
import type { ChunkId } from "../index/chunk-id.ts";
import { mix32 } from "../index/linked-index.ts";
import { GramTable, mostPerGram } from "./gram-table.ts";

const chunk = (number: number) => number as ChunkId;

test("grows and shrinks by any order of additions and removals, like a map", () => {
  const table = new GramTable();
  const twin = new Map<number, Set<string>>();
  const entries: { hash: number; chunk: ChunkId; end: number }[] = [];
  const steps = rounds({ small: 60_000, full: 600_000 });
  for (let step = 1; step <= steps; step += 1) {
    const random = mix32(step);
    // Two thirds are additions, and a hash comes more than once.
    if (random % 3 > 0 || entries.length === 0) {
      const entry = { hash: mix32(mix32(random) % steps) || 1, chunk: chunk(step), end: random % 65_536 };
      const same = twin.get(entry.hash) ?? new Set();
      twin.set(entry.hash, same);
      const added = table.add(entry.hash, entry.chunk, entry.end);
      expect(added).toBe(same.size === mostPerGram ? "full" : "added");
      if (added === "full") continue;
      same.add(`${entry.chunk} ${entry.end}`);
      entries.push(entry);
    } else {
      const [entry] = entries.splice((random >>> 8) % entries.length, 1, entries.at(-1)!); // not empty
      entries.pop();
      expect(table.remove(entry!.hash, entry!.chunk, entry!.end)).toBe(true);
      expect(table.remove(entry!.hash, entry!.chunk, entry!.end)).toBe(false);
      twin.get(entry!.hash)!.delete(`${entry!.chunk} ${entry!.end}`);
    }
    if (step % 5000 === 0) table.check();
  }
  expect(table.size).toBe(entries.length);
  for (const [hash, same] of twin) {
    table.find(hash);
    const found = Array.from({ length: table.found }, (_, i) => `${table.chunks[i]} ${table.ends[i]}`);
    expect(found.toSorted()).toEqual([...same].toSorted());
  }
});

test("an entry takes less than 15 bytes, however many there are", () => {
  const table = new GramTable();
  for (let i = 1; i <= 300_000; i += 1) {
    expect(table.add(mix32(i), chunk(i), 0)).toBe("added");
    if (i > 30_000 && i % 1000 === 0) expect(table.bytes / table.size).toBeLessThan(15);
  }
  table.check();
});

test("one gram has few entries", () => {
  const table = new GramTable();
  const outcomes = Array.from({ length: mostPerGram + 2 }, (_, i) => table.add(5, chunk(i + 1), i));
  expect(outcomes.filter((outcome) => outcome === "full")).toHaveLength(2);
  table.find(5);
  expect(table.found).toBe(mostPerGram);
  expect(table.remove(5, chunk(1), 0)).toBe(true);
  expect(table.add(5, chunk(99), 0)).toBe("added");
});
