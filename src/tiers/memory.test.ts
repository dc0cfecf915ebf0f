import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { temporaryFolder } from "../../test/support/cache.ts";
import { PoolMapping } from "../ffi/pool-mapping.ts";
import { MemoryPool } from "./memory.ts";

const mebibyte = 1024 * 1024;

function open(extents: number, directory?: string): MemoryPool {
  const place = directory === undefined ? {} : { directory };
  return MemoryPool.open({ capacityBytes: extents * 64 * mebibyte, ...place });
}

test("a guest's mapping sees what the owner writes, and the pointer is the same place", async () => {
  await using pool = open(2);
  expect(statSync(pool.path).mode & 0o777).toBe(0o600);
  const guest = PoolMapping.open(pool.path, pool.bytes);
  const offsets = [pool.allocate(5000), pool.allocate(33 * mebibyte)] as number[];
  for (const offset of offsets) {
    pool.view(offset, 5000).fill(offset === 0 ? 1 : 2);
    expect(guest.slot(offset, 5000)).toEqual(pool.view(offset, 5000));
    expect(guest.pointer(offset, 5000) - guest.pointer(0, 1)).toBe(BigInt(offset));
  }
  expect(() => guest.slot(64 * mebibyte - 10, 20)).toThrow(RangeError);
  expect(() => guest.slot(128 * mebibyte, 1)).toThrow(RangeError);
  guest.close();
  guest.close();
  expect(() => guest.slot(0, 1)).toThrow("closed");
});

test("size classes hand extents to one another, and nothing is lost on the way", async () => {
  await using pool = open(2);
  const large = [pool.allocate(30 * mebibyte), pool.allocate(30 * mebibyte), pool.allocate(30 * mebibyte)] as number[];
  expect(pool.allocate(4096)).toBe("full");
  expect(pool.sameClass(30 * mebibyte - 1, large[0]!)).toBe(true);
  pool.free(large[2]!);
  const small = Array.from({ length: 100 }, () => pool.allocate(4096) as number);
  expect(new Set(small).size).toBe(100);
  expect(pool.neighbours(small[0]!)).toHaveLength(100);
  pool.check();
  expect(pool.stats()).toMatchObject({
    usedSlots: 102,
    usedBytes: 60 * mebibyte + 100 * 4096,
    capacityBytes: 128 * mebibyte,
  });
  for (const offset of [...small, large[0]!, large[1]!]) pool.free(offset);
  pool.check();
  expect(pool.stats().usedBytes).toBe(0);
  expect(() => pool.free(large[0]!)).toThrow("no slot");
  expect(() => pool.allocate(65 * mebibyte)).toThrow(expect.objectContaining({ code: "BAD_REQUEST" }));
});

test("the pool of a dead owner is removed at the next start, that of a living one is not", async () => {
  using folder = temporaryFolder();
  const dead = join(folder.path, `reprise-${process.getuid?.() ?? 0}-gone-000000000000.pool`);
  writeFileSync(dead, "", { mode: 0o600 });
  await using first = open(1, folder.path);
  await first.swept;
  expect(existsSync(dead)).toBe(false);
  await using second = open(1, folder.path);
  await second.swept;
  expect(existsSync(first.path)).toBe(true);
});

test("the file goes with the pool, and a guest is told that it is gone", async () => {
  const pool = open(1);
  const guest = PoolMapping.open(pool.path, pool.bytes);
  const offset = pool.allocate(4096) as number;
  pool.view(offset, 1)[0] = 7;
  await pool[Symbol.asyncDispose]();
  expect(guest.slot(offset, 1)[0]).toBe(7); // old bytes, never a SIGBUS
  guest.close();
  expect(() => PoolMapping.open(pool.path, pool.bytes)).toThrow(expect.objectContaining({ code: "CACHE_UNAVAILABLE" }));
});

test("whoever uses a closed pool is told so, and touches nothing that was its", async () => {
  const pool = open(2);
  const offset = pool.allocate(4096) as number;
  await pool[Symbol.asyncDispose]();
  for (const use of [() => pool.view(offset, 1), () => pool.free(offset), () => pool.resize(64 * mebibyte, () => 0)])
    expect(use).toThrow("a closed pool");
});

test("a full file system is a full pool", async ({ skip }) => {
  using folder = temporaryFolder();
  const mount = join(folder.path, "small");
  mkdirSync(mount);
  const mounted = spawnSync("mount", ["-t", "tmpfs", "-o", "size=10m", "tmpfs", mount]).status === 0;
  if (!mounted) skip("mounting a small tmpfs needs root on linux");
  try {
    await using pool = open(1, mount);
    const offsets: number[] = [];
    for (let offset = pool.allocate(3 * mebibyte); offset !== "full"; offset = pool.allocate(3 * mebibyte))
      offsets.push(offset);
    expect(offsets).toHaveLength(3);
    for (const offset of offsets) pool.view(offset, 3 * mebibyte).fill(1);
    pool.check();
    pool.free(offsets[1]!);
    expect(pool.allocate(3 * mebibyte)).toBe(offsets[1]);
  } finally {
    spawnSync("umount", [mount]);
  }
});

test("where the mount offers huge pages the pool has them, and says so", async ({ skip }) => {
  using folder = temporaryFolder();
  const mounted = spawnSync("mount", ["-t", "tmpfs", "-o", "size=512m,huge=always", "tmpfs", folder.path]).status === 0;
  if (!mounted) skip("mounting a tmpfs with huge pages needs root on a linux that has them");
  try {
    await using pool = open(2, folder.path);
    expect(pool.stats()).toMatchObject({ hugePages: "always" });
    pool.view(pool.allocate(64 * mebibyte) as number, 64 * mebibyte).fill(1);
    const [, mapped] = /ShmemPmdMapped:\s+(\d+) kB/.exec(mapsOf(pool.path)) ?? [];
    expect(Number(mapped)).toBeGreaterThanOrEqual(60 * 1024);
  } finally {
    spawnSync("umount", ["-l", folder.path]);
  }
});

test("a pool on hugetlbfs gives, takes back and shrinks as any other", async ({ skip }) => {
  using folder = temporaryFolder();
  using data = temporaryFolder();
  const [pages, wanted] = ["/proc/sys/vm/nr_hugepages", 90];
  const before = existsSync(pages) ? readFileSync(pages, "utf8") : "";
  const mounted = spawnSync("mount", ["-t", "hugetlbfs", "-o", "pagesize=2M", "none", folder.path]).status === 0;
  if (!mounted) skip("mounting a hugetlbfs needs root on linux");
  try {
    writeFileSync(pages, String(Number(before) + wanted));
    if (Number(readFileSync(pages, "utf8")) < wanted) skip("there are not enough huge pages");
    const options = { directory: folder.path, dataDirectory: data.path, capacityBytes: 128 * mebibyte };
    await using pool = MemoryPool.open(options);
    expect(pool.pages).toMatchObject({ bytes: 2 * mebibyte, huge: "hugetlbfs", areReserved: true });
    const offsets = Array.from({ length: 30 }, () => pool.allocate(3 * mebibyte) as number);
    for (const [i, offset] of offsets.entries()) pool.view(offset, 3 * mebibyte).fill(i);
    for (const [i, offset] of offsets.entries()) expect(pool.view(offset, 1)[0]).toBe(i);
    const place = await MemoryPool.place({
      directory: folder.path,
      dataDirectory: data.path,
      wantedBytes: 128 * mebibyte,
    });
    expect(place.maximumBytes).toBe(128 * mebibyte);
    for (const offset of offsets.slice(10)) pool.free(offset);
    pool.resize(64 * mebibyte, (slots) => slots.length);
    pool.check();
    expect(pool.stats()).toMatchObject({ capacityBytes: 64 * mebibyte, allocatedBytes: 64 * mebibyte });
  } finally {
    spawnSync("umount", ["-l", folder.path]);
    writeFileSync(pages, before);
  }
});

/** What /proc says of this process's mapping of a file. */
function mapsOf(path: string): string {
  const all = readFileSync("/proc/self/smaps", "utf8").split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m);
  return all.find((mapping) => mapping.includes(path)) ?? "";
}
