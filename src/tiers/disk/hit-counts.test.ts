import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import {
  openTestCache,
  counting,
  save,
  temporaryFolder,
  testPool,
  testSpace,
  wait,
} from "../../../test/support/cache.ts";
import { bareRoot } from "../../identity/keys.ts";
import type { CacheSession } from "../../session.ts";
import { DiskTier } from "./disk-tier.ts";
import { inspectDisk } from "./inspect.ts";

const mebibyte = 1024 * 1024;
const options = { space: testSpace(), rank: 0, slotBytes: [8192] };

const open = (directory: string) =>
  DiskTier.open({ drives: [{ directory, capacityBytes: 8 * mebibyte }], regionBytes: 128 * 1024 });

async function load(session: CacheSession, length: number): Promise<void> {
  for await (const batch of session.load(bareRoot, counting(length), 0, wait))
    session.release(batch.map(({ lease }) => lease));
}

async function hitsIn(directory: string): Promise<readonly [number, number] | undefined> {
  const { spaces } = await inspectDisk([directory]);
  return spaces[0] && [spaces[0].hits, spaces[0].chunksHit];
}

/** Saves a text of 40 tokens, then loads its beginnings in a cache of its own. */
async function saveAndLoad(directory: string, lengths: readonly number[]): Promise<void> {
  const pool = testPool(128 * mebibyte);
  await using cache = await openTestCache({ pool, tiers: [await open(directory)] });
  const session = cache.openSession(options);
  await cache.recovered(10_000);
  await save(session, pool, counting(40), { bytes: 5000 });
  await cache.flush();
  for (const length of lengths) await load(session, length);
}

test("hits are counted from memory and from disk, told when nothing runs, and go on after a restart", async () => {
  using folder = temporaryFolder();
  await saveAndLoad(folder.path, []);
  expect(await hitsIn(folder.path)).toEqual([0, 0]);
  await saveAndLoad(folder.path, [8, 8, 20]); // the first from disk, the others from memory
  expect(await hitsIn(folder.path)).toEqual([2 + 2 + 5, 5]);
  await saveAndLoad(folder.path, [40]);
  expect(await hitsIn(folder.path)).toEqual([9 + 10, 10]);
});

test("a damaged file of hits costs the counts and nothing else; clearing removes it", async () => {
  using folder = temporaryFolder();
  await saveAndLoad(folder.path, [40]);
  const path = join(folder.path, "hits");
  const bytes = readFileSync(path);
  bytes[20]! ^= 1;
  writeFileSync(path, bytes);
  expect(await hitsIn(folder.path)).toEqual([0, 0]);
  await saveAndLoad(folder.path, [4]);
  expect(await hitsIn(folder.path)).toEqual([1, 1]);
  await using cache = await openTestCache({ tiers: [await open(folder.path)] });
  await cache.clear();
  expect(existsSync(path)).toBe(false);
});

test("what is moved by compacting keeps its hits", async () => {
  using folder = temporaryFolder();
  {
    const pool = testPool(128 * mebibyte);
    await using cache = await openTestCache({ pool, tiers: [await open(folder.path)] });
    const session = cache.openSession(options);
    for (let length = 1; length <= 40; length += 1) await save(session, pool, counting(length), { bytes: 5000 });
    await cache.flush();
    await load(session, 40);
    const { movedBytes } = await cache.compact(new AbortController().signal);
    expect(Object.values(movedBytes)[0]).toBeGreaterThan(0);
  }
  expect((await hitsIn(folder.path))![0]).toBe(10);
});
