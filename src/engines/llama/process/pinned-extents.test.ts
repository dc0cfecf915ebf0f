import { expect, test } from "vitest";
import { PoolMapping, extentBytes } from "../../../ffi/pool-mapping.ts";
import { memoryFile } from "../../../ffi/posix.ts";
import { PinnedExtents } from "./pinned-extents.ts";

const bytes = 2.5 * extentBytes;

class Registered {
  readonly now = new Map<bigint, number>();
  asked = 0;
  /** How many it takes. */
  room = Infinity;

  register(at: bigint, size: number): boolean {
    this.asked += 1;
    if (this.now.size >= this.room) return false;
    this.now.set(at, size);
    return true;
  }

  unregister(at: bigint): void {
    expect(this.now.delete(at)).toBe(true);
  }
}

function poolOf(): PoolMapping {
  return PoolMapping.ofFile(memoryFile("reprise-test", bytes), "test", bytes);
}

test("an extent is registered when it is used, once, and no longer when the pool goes", async () => {
  const registered = new Registered();
  const pinned = new PinnedExtents(registered);
  const pool = poolOf();
  pinned.prepare(pool.extents());
  for (const offset of [4096, 8192, extentBytes]) pinned.use(pool.slot(offset, 100).buffer);
  pinned.use(new ArrayBuffer(100)); // not of the pool
  expect([...registered.now.keys()]).toEqual([pool.pointer(0, 1), pool.pointer(extentBytes, 1)]);
  await pinned.letGo();
  expect([registered.now.size, registered.asked]).toEqual([0, 2]);
  pool.close();
});

test("the others are registered while nothing is to be done, and what they hold stays", async () => {
  const registered = new Registered();
  const pinned = new PinnedExtents(registered);
  const pool = poolOf();
  pool.slot(2 * extentBytes, 3).set([7, 8, 9]);
  pinned.prepare(pool.extents());
  pinned.rest();
  pinned.wake();
  await expect.poll(() => registered.asked).toBe(1); // what was begun
  await new Promise((resolve) => setTimeout(resolve, 50));
  expect(registered.asked).toBe(1);
  pinned.rest();
  await expect.poll(() => registered.now.size).toBe(3);
  expect([...registered.now.values()]).toEqual([extentBytes, extentBytes, extentBytes / 2]);
  expect([...pool.slot(2 * extentBytes, 3)]).toEqual([7, 8, 9]);
  await pinned.letGo();
  pool.close();
});

test("a pool that goes meanwhile ends that, and the next one is registered whole", async () => {
  const registered = new Registered();
  const pinned = new PinnedExtents(registered);
  const [one, two] = [poolOf(), poolOf()];
  pinned.prepare(one.extents());
  pinned.rest();
  await pinned.letGo();
  expect(registered.now.size).toBe(0);
  one.close();
  pinned.prepare(two.extents());
  pinned.rest();
  await expect.poll(() => registered.now.size).toBe(3);
  await pinned.letGo();
  two.close();
});

test("what cannot be registered is not tried again, and the rest is left", async () => {
  const registered = new Registered();
  registered.room = 1;
  const pinned = new PinnedExtents(registered);
  const pool = poolOf();
  pinned.prepare(pool.extents());
  pinned.rest();
  await expect.poll(() => registered.asked).toBe(2);
  pinned.use(pool.slot(extentBytes, 1).buffer);
  await new Promise((resolve) => setTimeout(resolve, 50));
  await pinned.letGo();
  expect([registered.now.size, registered.asked]).toEqual([0, 2]);
  pool.close();
});
