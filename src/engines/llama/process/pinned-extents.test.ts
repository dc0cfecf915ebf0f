import { expect, test } from "vitest";
import { PoolMapping, extentBytes } from "../../../ffi/pool-mapping.ts";
import { memoryFile } from "../../../ffi/posix.ts";
import { PinnedExtents } from "./pinned-extents.ts";

const bytes = 2.5 * extentBytes;

class Registered {
  readonly now = new Map<bigint, number>();
  asked = 0;
  canRegister = true;
  /** How many it takes. */
  room = Infinity;

  async register(at: bigint, size: number): Promise<boolean> {
    this.asked += 1;
    await new Promise((resolve) => setImmediate(resolve));
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

test("all extents of a pool are registered, and none when it goes", async () => {
  const registered = new Registered();
  const pinned = new PinnedExtents(registered);
  const pool = poolOf();
  pinned.prepare(pool.extents());
  await expect.poll(() => registered.now.size).toBe(3);
  expect([...registered.now.values()]).toEqual([extentBytes, extentBytes, extentBytes / 2]);
  expect(registered.now.has(pool.pointer(0, 1))).toBe(true);
  await pinned.letGo();
  expect(registered.now.size).toBe(0);
  pool.close();
});

test("a pool that goes while it is registered ends that, and the next one is registered whole", async () => {
  const registered = new Registered();
  const pinned = new PinnedExtents(registered);
  const [one, two] = [poolOf(), poolOf()];
  pinned.prepare(one.extents());
  await pinned.letGo();
  expect(registered.now.size).toBe(0);
  expect(registered.asked).toBeLessThan(3);
  one.close();
  pinned.prepare(two.extents());
  await expect.poll(() => registered.now.size).toBe(3);
  await pinned.letGo();
  two.close();
});

test("what cannot be registered is left, and so is the rest", async () => {
  const registered = new Registered();
  registered.room = 1;
  const pinned = new PinnedExtents(registered);
  const pool = poolOf();
  pinned.prepare(pool.extents());
  await expect.poll(() => registered.asked).toBe(2);
  await pinned.letGo();
  expect([registered.now.size, registered.asked]).toEqual([0, 2]);
  registered.canRegister = false;
  pinned.prepare(pool.extents());
  await pinned.letGo();
  expect(registered.asked).toBe(2);
  pool.close();
});
