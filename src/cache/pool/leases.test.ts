import { expect, test } from "vitest";
import { LeaseTable, type HolderId } from "./leases.ts";

const engine = 1 as HolderId;
const other = 2 as HolderId;
const hold = { group: 0, bytes: 10, since: 5 };

/** Ends a session. @returns what it held */
function dropAll(leases: LeaseTable<string>, holder: HolderId) {
  return leases.idsOf(holder).map((id) => leases.release(holder, id));
}

test("a lost session frees what it held and names what it left unfinished", () => {
  const leases = new LeaseTable<string>();
  leases.acquire(engine, { kind: "writing", chunk: "a", part: 0, ...hold });
  leases.acquire(engine, { kind: "reading", chunk: "b", ...hold });
  leases.acquire(other, { kind: "reading", chunk: "b", ...hold });

  expect(dropAll(leases, engine).map((lease) => [lease?.kind, lease?.chunk])).toEqual([
    ["writing", "a"],
    ["reading", "b"],
  ]);
  expect(leases.leasesOf("a")).toBe(0);
  expect(leases.leasesOf("b")).toBe(1);
  leases.check();
});

test("a lease is released once, and only by its holder", () => {
  const leases = new LeaseTable<string>();
  const id = leases.acquire(engine, { kind: "reading", chunk: "a", ...hold });
  expect(leases.release(other, id)).toBeUndefined();
  expect(leases.release(engine, id)).toEqual({ kind: "reading", chunk: "a", ...hold });
  expect(leases.release(engine, id)).toBeUndefined();
  expect(leases.size).toBe(0);
  leases.check();
});

test("a writer alone may reserve half of the pool, and leaves room for those who come after it", () => {
  const leases = new LeaseTable<string>();
  const reserveAll = (holder: HolderId, name: string) => {
    for (let i = 0; ; i += 1) {
      const chunk = `${name} ${i}`;
      if (!leases.mayWrite(holder, chunk, [hold], 10_000)) return 10 * i;
      leases.acquire(holder, { kind: "writing", part: 0, chunk, ...hold });
    }
  };
  expect(reserveAll(engine, "first")).toBe(5000);
  expect(reserveAll(other, "second")).toBe(1660);
  expect(reserveAll(3 as HolderId, "third")).toBe(560);
  expect(leases.reservedBytes).toBeLessThan(7500);
  // The slot of another rank.
  expect(leases.mayWrite(engine, "third 7", [hold], 10_000)).toBe(true);
  leases.check();
  dropAll(leases, engine);
  expect(leases.reservedBytes).toBe(1660 + 560);
  expect(leases.mayWrite(other, "more", [hold], 10_000)).toBe(true);
  leases.check();
});

test("a reader may keep half of the pool, whatever others hold", () => {
  const leases = new LeaseTable<string>();
  leases.acquire(other, { kind: "writing", part: 0, chunk: "other", group: 0, bytes: 700, since: 0 });
  const quarter = { group: 0, bytes: 250 };
  for (const chunk of ["a", "b", "a", "b", "a"]) {
    expect(leases.mayRead(engine, chunk, [quarter], 1000)).toBe(true);
    leases.acquire(engine, { kind: "reading", chunk, ...quarter, since: 0 });
  }
  expect(leases.mayRead(engine, "c", [quarter], 1000)).toBe(false);
  expect(leases.mayRead(3 as HolderId, "c", [quarter], 1000)).toBe(true);
  leases.check();
});

test("a pool of one chunk can be used, and the oldest lease tells how long its holder has held", () => {
  const leases = new LeaseTable<string>();
  const all = { group: 0, bytes: 100 };
  expect([leases.mayRead(engine, "a", [all], 100), leases.mayWrite(engine, "a", [all], 100)]).toEqual([true, true]);
  const id = leases.acquire(engine, { kind: "writing", part: 0, chunk: "a", ...all, since: 7 });
  expect(leases.mayWrite(engine, "b", [all], 100)).toBe(false);
  const snapshot = { group: 1, bytes: 1000 };
  expect(leases.mayWrite(engine, "a", [snapshot], 100), "the one chunk's other group").toBe(true);
  leases.acquire(engine, { kind: "reading", chunk: "a", ...all, since: 9 });
  expect([leases.oldest(engine), leases.oldest(other)]).toEqual([7, undefined]);
  leases.release(engine, id);
  expect([leases.oldest(engine), leases.reservedBytes]).toEqual([9, 0]);
  leases.check();
});

test("a further group of a chunk that is leased already takes as much as that of any other chunk", () => {
  const leases = new LeaseTable<string>();
  const [rows, snapshot] = [
    { group: 0, bytes: 1 },
    { group: 1, bytes: 100 },
  ];
  for (const chunk of ["a", "b", "c", "d", "e", "f"]) {
    leases.acquire(engine, { kind: "writing", part: 0, chunk, ...rows, since: 0 });
    leases.acquire(other, { kind: "reading", chunk, ...rows, since: 0 });
  }
  const taken = (kind: "writing" | "reading") =>
    ["a", "b", "c", "d", "e", "f"].filter((chunk) => {
      const [holder, may] =
        kind === "writing"
          ? [engine, leases.mayWrite(engine, chunk, [snapshot], 1000)]
          : [other, leases.mayRead(other, chunk, [snapshot], 1000)];
      if (may) leases.acquire(holder, { kind, part: 1, chunk, ...snapshot, since: 0 });
      return may;
    }).length;
  expect([taken("writing"), taken("reading")]).toEqual([4, 4]);
  expect(leases.mayWrite(other, "a", [snapshot], 1000), "another rank's snapshot of the same chunk").toBe(true);
  leases.check();
});
