import { expect, test } from "vitest";
import type { RepriseError } from "../../errors.ts";
import { TurnQueue, makeRoom } from "./turn-queue.ts";

function queueOf(...waiting: (readonly [tenant: string, value: number])[]): TurnQueue<number> {
  const queue = new TurnQueue<number>();
  for (const [tenant, value] of waiting) queue.add(tenant, value);
  return queue;
}

function takeAll(queue: TurnQueue<number>, inHand: (tenant: string) => number = () => 0): number[] {
  const taken: number[] = [];
  for (let next = queue.next(inHand); next !== undefined; next = queue.next(inHand)) {
    queue.take(next.tenant, next.value);
    taken.push(next.value);
  }
  return taken;
}

test("tenants take turns, each in its own order", () => {
  const queue = queueOf(["a", 1], ["a", 2], ["a", 3], ["b", 10], ["c", 20], ["b", 11]);
  expect(queue.size).toBe(6);
  expect(takeAll(queue)).toEqual([1, 10, 20, 2, 11, 3]);
  expect(queue.size).toBe(0);
});

test("who had a turn just now comes after those that had none, also when it has waited longer", () => {
  const queue = queueOf(["a", 1]);
  expect(takeAll(queue)).toEqual([1]);
  queue.add("a", 2);
  queue.add("a", 3);
  queue.add("b", 10);
  expect(takeAll(queue)).toEqual([10, 2, 3]);
});

test("who has less in hand comes first, and who must wait does not come at all", () => {
  const inHand: Record<string, number> = { a: 2, b: 1, c: Infinity };
  const queue = queueOf(["a", 1], ["c", 30], ["b", 2]);
  expect(takeAll(queue, (tenant) => inHand[tenant]!)).toEqual([2, 1]);
  expect(queue.size).toBe(1);
});

test("what is put back is the next of its tenant; what is removed never comes", () => {
  const queue = queueOf(["a", 2], ["a", 3], ["b", 4]);
  queue.putBack("a", 1);
  expect(queue.remove((value) => value === 3)).toBe(true);
  expect(queue.remove((value) => value === 3)).toBe(false);
  expect(takeAll(queue)).toEqual([1, 4, 2]);
});

test("a full queue makes room for a tenant that has less in it, never for one that has as much", () => {
  const leaving = (tenants: string, newcomer: string) => {
    const waiting = tenants.split("").map((tenant, index) => ({ tenant, index }));
    const left: unknown[] = [];
    makeRoom(waiting, newcomer, "4 wait", (each, { code, message }) => left.push(each, code, message));
    return left;
  };
  const refused = expect.objectContaining({ code: "QUEUE_FULL", message: "4 wait" }) as RepriseError;
  const [code, message] = ["QUEUE_FULL", "Others got their share of the queue: 4 wait"];
  expect(leaving("aaaa", "b")).toEqual([{ tenant: "a", index: 3 }, code, message]);
  expect(() => leaving("aaaa", "a")).toThrow(refused);
  expect(() => leaving("aabb", "a")).toThrow(refused);
  expect(leaving("aabb", "c")).toEqual([{ tenant: "b", index: 3 }, code, message]);
  expect(() => leaving("abc", "d")).toThrow(refused);
  expect(() => leaving("", "a")).toThrow(refused);
});
