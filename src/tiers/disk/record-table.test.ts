import { expect, test } from "vitest";
import { RecordTable } from "./record-table.ts";

const position = { offset: 8192, totalBytes: 12288, headerBytes: 4096, firstToken: 64 };

test("a record is found where it was put, and not after it was dropped or its region has gone", () => {
  const table = new RecordTable();
  const [a, b] = [table.addRegion(), table.addRegion()];
  const kept = table.add({ ...position, regionSlot: a });
  const dropped = table.add({ ...position, regionSlot: a });
  const lost = table.add({ ...position, regionSlot: b });
  expect(table.find(kept)).toEqual({ ...position, regionSlot: a });
  expect(table.drop(dropped)).toBe(a);
  expect(table.drop(dropped)).toBeUndefined();
  table.removeRegion(b);
  expect([kept, dropped, lost].map((id) => table.has(id))).toEqual([true, false, false]);
  expect([...table.of(a)]).toEqual([kept]);
  expect([table.size, table.liveOf(a)]).toEqual([1, 1]);
});

test("ids are never given twice, though their places are used again", () => {
  const table = new RecordTable();
  const seen = new Set<number>();
  for (let round = 0; round < 50; round += 1) {
    const slot = table.addRegion();
    for (let i = 0; i < 100; i += 1) {
      const id = table.add({ ...position, regionSlot: slot, offset: 4096 * (i + 1) });
      expect(seen.has(id)).toBe(false);
      seen.add(id);
      if (i % 3 === 0) table.drop(id);
    }
    expect(table.size).toBe(66);
    table.removeRegion(slot);
    expect(table.size).toBe(0);
  }
});
