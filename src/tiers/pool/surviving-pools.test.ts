/** What the next owner finds in a pool that was left, at the level of slots. A copy of the file is as good as a kill. */
import { closeSync, existsSync, ftruncateSync, openSync, readSync, statSync, writeSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { payloadOf, temporaryFolder, testSpace } from "../../../test/support/cache.ts";
import { rounds, seedOr, timeoutMs } from "../../../test/support/depth.ts";
import { seededRandom } from "../../../test/support/prompts.ts";
import { bareRoot, chunkKey, rootKey } from "../../identity/keys.ts";
import type { SlotNote } from "../../cache/pool/slot-pool.ts";
import { spaceId } from "../../identity/space.ts";
import { createLog } from "../../log.ts";
import { payloadChecksum } from "../payload-checksum.ts";
import { MemoryPool, type MemoryPoolOptions } from "../memory.ts";
import { rememberPool } from "./pool-file.ts";
import { fileBytes, tableBytes } from "./pool-table.ts";

const mebibyte = 1024 * 1024;
const extent = 64 * mebibyte;
const space = testSpace();
const root = rootKey(spaceId(space), bareRoot);
const payloadBytes = 5000;

function noteOf(token: number): SlotNote {
  const tokens = Uint32Array.from([token, token, token, token]);
  const key = chunkKey(root, tokens);
  const place = { space: spaceId(space), root, key, parent: root, firstToken: 0, tokens };
  return { ...place, part: 0, parts: 1, payloadBytes, slotBytes: 8192 };
}

/** Stores the chunk of one token, as the cache does. */
function store(pool: MemoryPool, token: number): number {
  const offset = pool.allocate(8192, 4);
  if (offset === "full") throw new Error("there is room");
  const note = noteOf(token);
  pool.view(offset, payloadBytes).set(payloadOf(note.tokens, 0, 0, payloadBytes));
  pool.keep(offset, note, space);
  return offset;
}

/** Tokens of the chunks found, in order; fails when one has other bytes than were stored. */
function found(pool: MemoryPool): number[] {
  const tokens = [...pool.surviving()].map(({ offset, note }) => {
    const expected = payloadOf(note.tokens, note.firstToken, 0, payloadBytes);
    expect(Buffer.compare(pool.view(offset, note.payloadBytes), expected)).toBe(0);
    return note.tokens[0]!;
  });
  return tokens.sort((a, b) => a - b);
}

function setUp() {
  const folder = temporaryFolder();
  const dead = temporaryFolder();
  const options = { dataDirectory: folder.path, directory: dead.path, capacityBytes: 2 * extent };
  return {
    options,
    open: (change: Partial<MemoryPoolOptions> = {}) => MemoryPool.open({ ...options, ...change }),
    /** What a kill at this moment would leave: the same bytes, remembered, and no owner. */
    copy(pool: MemoryPool, dataDirectory = folder.path): string {
      const path = pool.path.replace(/\w{6}\.pool$/, `${Math.random().toString(16).slice(2, 8).padEnd(6, "0")}.pool`);
      copyUsed(pool.path, path, pool.bytes);
      rememberPool(dataDirectory, path);
      return path;
    },
    [Symbol.dispose]() {
      folder[Symbol.dispose]();
      dead[Symbol.dispose]();
    },
  };
}

/** Copies what these tests write of a pool; all the rest is holes. */
function copyUsed(from: string, to: string, bytes: number): void {
  const [source, target] = [openSync(from, "r"), openSync(to, "wx", 0o600)];
  ftruncateSync(target, fileBytes(bytes));
  const table = fileBytes(bytes) - tableBytes;
  for (const at of [0, bytes, table, table + mebibyte]) {
    const part = Buffer.alloc(512 * 1024);
    writeSync(target, part, 0, readSync(source, part, 0, part.length, at), at);
  }
  closeSync(source);
  closeSync(target);
}

function flip(path: string, at: number, bit: number): void {
  const file = openSync(path, "r+");
  const byte = Buffer.alloc(1);
  readSync(file, byte, 0, 1, at);
  writeSync(file, Buffer.from([byte[0]! ^ (1 << bit)]), 0, 1, at);
  closeSync(file);
}

test("what was kept is found with its bytes, what was freed or only reserved is not, and slots in use stay in use", async () => {
  using place = setUp();
  await using first = place.open();
  const offsets = Array.from({ length: 10 }, (_, token) => store(first, token));
  first.free(offsets[3]!);
  const halfWritten = first.allocate(8192, 4) as number;
  expect(halfWritten).toBe(offsets[3]);
  const path = place.copy(first);

  await using next = place.open();
  expect(next.path).toBe(path);
  next.check();
  expect(found(next)).toEqual([0, 1, 2, 4, 5, 6, 7, 8, 9]);
  expect(next.stats()).toMatchObject({ usedSlots: 10, unclaimedSlots: 10 });
  expect(new Set([...offsets, halfWritten]).has(next.allocate(8192, 4) as number)).toBe(false);
  next.claim(offsets[0]!);
  next.freeUnclaimed();
  next.check();
  expect(next.stats()).toMatchObject({ usedSlots: 2, unclaimedSlots: 0 });
  expect(found(next)).toEqual([]);
});

test("an extent that changed its class has nothing of what it held before", async () => {
  using place = setUp();
  await using first = place.open({ capacityBytes: extent });
  for (const offset of Array.from({ length: 20 }, (_, token) => store(first, token))) first.free(offset);
  expect(first.allocate(20_000, 9)).toBe(0);
  place.copy(first);
  await using next = place.open({ capacityBytes: extent });
  expect(found(next)).toEqual([]);
  expect(next.stats()).toMatchObject({ usedSlots: 1, usedBytes: 20_480, unclaimedSlots: 1 });
  next.check();
});

test(
  "a flipped bit anywhere in notes or table loses chunks, and never finds a wrong one",
  async () => {
    using place = setUp();
    await using first = place.open();
    const offsets = Array.from({ length: 40 }, (_, token) => store(first, token));
    for (const [i, offset] of offsets.entries()) if (i % 3 === 0) first.free(offset);
    for (let token = 100; token < 105; token += 1) store(first, token);
    place.copy(first);
    await using unharmed = place.open();
    const all = found(unharmed);
    expect(all).toHaveLength(31);

    const random = seededRandom(seedOr(77));
    const bytes = first.bytes;
    const flips = rounds({ small: 60, full: 150 });
    let losses = 0;
    for (let round = 0; round < flips; round += 1) {
      const path = place.copy(first);
      const inNotes = bytes + Math.floor(random() * 40 * 256);
      const inTable = fileBytes(bytes) - tableBytes + [0, 4096, mebibyte][round % 3]! + Math.floor(random() * 300);
      flip(path, round % 2 === 0 ? inNotes : inTable, Math.floor(random() * 8));
      await using next = place.open();
      const now = found(next);
      expect(all).toEqual(expect.arrayContaining(now));
      if (now.length < all.length) losses += 1;
      next.check();
      next.freeUnclaimed();
      expect(next.stats().usedSlots).toBe(0);
      next.check();
    }
    expect(losses).toBeGreaterThan(flips / 3);
  },
  timeoutMs(30_000),
);

test("a sealed payload with a flipped bit is not intact; one whose checksum is not known is trusted", async () => {
  using place = setUp();
  await using first = place.open();
  const sealed = store(first, 1);
  const unsealed = store(first, 2);
  first.seal(sealed, await payloadChecksum(first.view(sealed, payloadBytes)));
  const path = place.copy(first);
  flip(path, sealed + 4999, 3);
  flip(path, unsealed + 17, 3);
  await using next = place.open();
  expect(await next.isIntact(sealed, payloadBytes)).toBe(false);
  expect(await next.isIntact(unsealed, payloadBytes)).toBe(true);
  expect(await first.isIntact(sealed, payloadBytes)).toBe(true);
});

test("a pool that is too small, damaged or of another data directory is not adopted; what nobody can adopt is removed", async () => {
  using place = setUp();
  using other = temporaryFolder();
  const lines: string[] = [];
  const log = createLog({ level: "warn", write: (line) => lines.push(line) });
  await using first = place.open();
  store(first, 1);

  const small = place.copy(first);
  await using larger = place.open({ capacityBytes: 4 * extent, log });
  expect(larger.stats().usedSlots).toBe(0);
  expect(existsSync(small)).toBe(false);
  expect(lines).toEqual([expect.stringContaining("is not adopted: it cannot hold")]);

  const strange = place.copy(first);
  await using foreign = place.open({ dataDirectory: other.path });
  expect(foreign.stats().usedSlots).toBe(0);
  await foreign.swept;
  expect(existsSync(strange)).toBe(true); // its data directory is there: its owner may come back

  flip(strange, fileBytes(first.bytes) - tableBytes + 100, 1);
  await using again = place.open({ log });
  expect(again.stats().usedSlots).toBe(0);
  expect(existsSync(strange)).toBe(false);

  const orphan = place.copy(foreign, other.path);
  other[Symbol.dispose]();
  await using last = place.open();
  await last.swept;
  expect(existsSync(orphan)).toBe(false);
});

test("of two starts at once one adopts and the other has an empty pool", async () => {
  using place = setUp();
  await using first = place.open();
  store(first, 1);
  place.copy(first);
  await using one = place.open();
  await using two = place.open();
  expect([one.stats().usedSlots, two.stats().usedSlots]).toEqual([1, 0]);
});

test("where memory is short, that of other dead pools goes first", async () => {
  using place = setUp();
  using other = temporaryFolder();
  await using foreign = place.open({ dataDirectory: other.path });
  const dead = place.copy(foreign, other.path);
  const { directory, dataDirectory } = place.options;
  expect((await MemoryPool.place({ directory, dataDirectory, wantedBytes: extent })).heldBytes).toBe(0);
  expect(existsSync(dead)).toBe(true);
  await MemoryPool.place({ directory, dataDirectory, wantedBytes: 2 ** 60 });
  expect(existsSync(dead)).toBe(false);
  expect(existsSync(foreign.path)).toBe(true);
});

test("pages come ahead of need and go when the capacity shrinks; what is in use waits for its slots", async () => {
  using place = setUp();
  await using pool = place.open({ directory: "/dev/shm", capacityBytes: 6 * extent, maximumBytes: 8 * extent });
  const blocks = () => statSync(pool.path).blocks * 512;
  await until(() => pool.stats().allocatedBytes === 4 * extent);
  const kept = Array.from({ length: 3 }, () => pool.allocate(40 * mebibyte) as number);
  await until(() => pool.stats().allocatedBytes === 6 * extent);
  const worth = new Map(kept.map((offset, i) => [offset, i === 1 ? 0 : 1]));

  pool.resize(2 * extent, (slots) => worth.get(slots[0]!)!);
  expect(pool.stats()).toMatchObject({ capacityBytes: 3 * extent, leavingBytes: extent, maximumBytes: 8 * extent });
  expect(pool.leavingSlots()).toEqual([kept[1]]);
  expect(blocks()).toBeLessThan(3 * extent + 2 * mebibyte);
  expect(pool.allocate(4096)).toBe("full");
  pool.check();
  pool.free(kept[1]!);
  expect(pool.stats()).toMatchObject({ capacityBytes: 2 * extent, leavingBytes: 0 });
  expect(blocks()).toBeLessThan(2 * extent + 2 * mebibyte);
  pool.check();

  pool.resize(20 * extent, () => 0);
  expect(pool.stats()).toMatchObject({ capacityBytes: 8 * extent });
  expect(pool.view(kept[0]!, 4)).toHaveLength(4);
  pool.check();
  await until(() => pool.stats().allocatedBytes === 6 * extent);
  expect(blocks()).toBeGreaterThanOrEqual(6 * extent);
});

test("an extent that empties itself first goes in the place of one that was chosen", async () => {
  using place = setUp();
  await using pool = place.open();
  const [a, b] = [pool.allocate(40 * mebibyte) as number, pool.allocate(40 * mebibyte) as number];
  pool.resize(extent, (slots) => (slots[0] === a ? 0 : 1));
  expect(pool.leavingSlots()).toEqual([a]);
  pool.free(b);
  expect(pool.leavingSlots()).toEqual([]);
  expect(pool.stats()).toMatchObject({ capacityBytes: extent, leavingBytes: 0 });
  pool.check();
});

async function until(condition: () => boolean): Promise<void> {
  const end = Date.now() + 10_000;
  while (!condition()) {
    if (Date.now() > end) throw new Error("it did not come to that within 10 s");
    await sleep(2);
  }
}
