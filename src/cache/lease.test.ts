import { expect, test } from "vitest";
import { LeaseTable, type HolderId } from "./lease.ts";

const engine = 1 as HolderId;
const other = 2 as HolderId;

test("a lost session frees what it held and names what it left unfinished", () => {
  const leases = new LeaseTable<string>();
  leases.acquire(engine, { kind: "writing", chunk: "a", rank: 0 });
  leases.acquire(engine, { kind: "reading", chunk: "b" });
  leases.acquire(other, { kind: "reading", chunk: "b" });

  expect(leases.dropHolder(engine).map(({ kind, chunk }) => [kind, chunk])).toEqual([
    ["writing", "a"],
    ["reading", "b"],
  ]);
  expect(leases.leasesOf("a")).toBe(0);
  expect(leases.leasesOf("b")).toBe(1);
  leases.check();
});

test("a lease is released once, and only by its holder", () => {
  const leases = new LeaseTable<string>();
  const id = leases.acquire(engine, { kind: "reading", chunk: "a" });
  expect(leases.release(other, id)).toBeUndefined();
  expect(leases.release(engine, id)).toEqual({ kind: "reading", chunk: "a" });
  expect(leases.release(engine, id)).toBeUndefined();
  expect(leases.size).toBe(0);
  leases.check();
});
