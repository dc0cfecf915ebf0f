import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { temporaryFolder } from "../../../test/support/cache.ts";
import { rounds, seedOr, timeoutMs } from "../../../test/support/depth.ts";
import { FaultyDisk } from "../../../test/support/faulty-disk.ts";
import { seededRandom } from "../../../test/support/prompts.ts";
import type { RecordId, StoredRecord } from "../../tier.ts";
import { noSignal, recordOf, recoverAll, RecordingOwner, stored } from "../tier-suite.ts";
import { DiskTier } from "./disk-tier.ts";
import type { DiskFiles } from "./files.ts";
import { inspectDisk } from "./inspect.ts";
import { unreachableRecords } from "./unreachable.ts";

const mebibyte = 1024 * 1024;
const regionBytes = 256 * 1024;
const payloadOf = (i: number) => Buffer.alloc(9000, i + 1);

function open(directory: string, files?: DiskFiles, capacityBytes = 8 * mebibyte): Promise<DiskTier> {
  const options = { regionBytes, scrubBytesPerSecond: 0, ...(files === undefined ? {} : { files }) };
  return DiskTier.open({ drives: [{ directory, capacityBytes }], ...options });
}

async function write(tier: DiskTier, i: number): Promise<RecordId> {
  const payload = payloadOf(i);
  const id = await tier.write(recordOf(Uint32Array.from([i]), [payload]), [payload], noSignal);
  if (id === "rejected") throw new Error("there is room");
  return id;
}

async function writeMany(tier: DiskTier, count: number): Promise<RecordId[]> {
  const ids: RecordId[] = [];
  for (let i = 0; i < count; i += 1) ids.push(await write(tier, i));
  return ids;
}

async function expectReadable(tier: DiskTier, id: RecordId, i: number): Promise<void> {
  const into = Buffer.alloc(9000);
  const { key } = recordOf(Uint32Array.from([i]), [into]);
  expect(await tier.read(id, key, [into], noSignal)).toBe("read");
  expect(into.equals(payloadOf(i))).toBe(true);
}

const bytesIn = (directory: string) =>
  readdirSync(directory).reduce((sum, name) => sum + 512 * statSync(join(directory, name)).blocks, 0);

test("compacting gives the room of dropped records back and keeps every other, moved and readable", async () => {
  using folder = temporaryFolder();
  const owner = new RecordingOwner();
  const kept = new Map<number, RecordId>();
  {
    await using tier = await open(folder.path);
    await recoverAll(tier, owner);
    const ids = await writeMany(tier, 200);
    for (const [i, id] of ids.entries())
      if (i % 4 === 0) kept.set(i, id);
      else tier.drop(id);
    await tier.flush();
    const before = bytesIn(folder.path);
    const { freedBytes, movedBytes } = await tier.compact(noSignal);
    expect(freedBytes[folder.path]).toBeGreaterThan(1.5 * mebibyte);
    expect(movedBytes[folder.path]).toBeGreaterThan(0.5 * mebibyte);
    expect(bytesIn(folder.path)).toBeLessThan(before - freedBytes[folder.path]! + regionBytes);
    for (const [i, id] of kept) {
      const now = owner.moved.get(id) ?? id;
      kept.set(i, now);
      await expectReadable(tier, now, i);
    }
    expect(owner.evicted.size).toBe(0);
    expect(tier.stats().records).toBe(50);
    await tier.compact(noSignal); // what was being written the first time
    const nothing = { freedBytes: { [folder.path]: 0 }, movedBytes: { [folder.path]: 0 } };
    expect(await tier.compact(noSignal)).toEqual(nothing);
  }
  await using tier = await open(folder.path);
  expect((await recoverAll(tier)).map(({ tokens }) => tokens[0]).toSorted((a, b) => a! - b!)).toEqual(
    [...kept.keys()].toSorted((a, b) => a - b),
  );
});

test("records without some of their parts are moved as they are, by compacting and when old regions go", async () => {
  using folder = temporaryFolder();
  const owner = new RecordingOwner();
  const now = (id: RecordId): RecordId => (owner.moved.has(id) ? now(owner.moved.get(id)!) : id); // it has
  const lengths = (i: number) => [9000, i % 2 === 0 ? 0 : 5000, i % 3 === 0 ? 0 : 700];
  const payloadsOf = (i: number) => lengths(i).map((bytes, part) => Buffer.alloc(bytes, 4 * i + part + 1));
  const recordFor = (i: number) => recordOf(Uint32Array.from([i, 5]), payloadsOf(i));
  const expectKept = async (tier: DiskTier, kept: ReadonlyMap<number, RecordId>) => {
    for (const [i, id] of kept) {
      const into = lengths(i).map((bytes) => Buffer.alloc(bytes));
      expect(await tier.read(now(id), recordFor(i).key, into, noSignal)).toBe("read");
      expect(into).toEqual(payloadsOf(i));
    }
  };
  {
    await using tier = await open(folder.path, undefined, 2 * mebibyte);
    await recoverAll(tier, owner);
    const kept = new Map<number, RecordId>();
    for (let i = 0; i < 60; i += 1) {
      const id = await stored(tier, recordFor(i), payloadsOf(i));
      if (i % 5 === 3) kept.set(i, id);
      else tier.drop(id);
    }
    await tier.compact(noSignal);
    expect(owner.evicted.size).toBe(0);
    expect(owner.moved.size).toBeGreaterThan(5);
    await expectKept(tier, kept);

    for (const [i, id] of kept)
      if (i < 20) owner.wanted.add(now(id));
      else kept.delete(i);
    const moved = owner.moved.size;
    for (let i = 1000; i < 1150; i += 1) await stored(tier, recordFor(i), payloadsOf(i));
    expect(owner.moved.size).toBeGreaterThan(moved);
    await expectKept(tier, kept);
  }
  owner.moved.clear(); // ids of a tier that was closed
  await using tier = await open(folder.path, undefined, 2 * mebibyte);
  const records = await recoverAll(tier);
  expect(records.map(({ payloadBytes }) => payloadBytes)).toEqual(records.map(({ tokens }) => lengths(tokens[0]!)));
  expect(records.map(({ tokens }) => tokens[0])).toEqual(expect.arrayContaining([3, 8, 13, 18]));
  await expectKept(tier, new Map(records.map(({ id, tokens }) => [tokens[0]!, id])));
});

test("compacting a full drive evicts nothing, and makes room for what would have evicted", async () => {
  using folder = temporaryFolder();
  const owner = new RecordingOwner();
  await using tier = await open(folder.path, undefined, 2 * mebibyte);
  await recoverAll(tier, owner);
  const ids = await writeMany(tier, 140);
  const live = ids.filter((id) => !owner.evicted.has(id));
  for (const [i, id] of live.entries()) if (i % 2 === 0) tier.drop(id);
  const evicted = owner.evicted.size;
  await tier.compact(noSignal);
  expect(owner.evicted.size).toBe(evicted);
  expect(tier.stats().records).toBe(Math.floor(live.length / 2));
  expect(tier.stats().usedBytes).toBeLessThanOrEqual(2 * mebibyte);
  for (let i = 0; i < 30; i += 1) await write(tier, 1000 + i);
  expect(owner.evicted.size).toBe(evicted);
});

test("a compaction that is called off keeps what it has not moved", async () => {
  using folder = temporaryFolder();
  await using tier = await open(folder.path);
  await recoverAll(tier);
  const ids = await writeMany(tier, 100);
  for (const [i, id] of ids.entries()) if (i % 2 === 0) tier.drop(id);
  const signal = AbortSignal.abort();
  expect(await tier.compact(signal)).toMatchObject({ movedBytes: { [folder.path]: 0 } });
  for (const [i, id] of ids.entries()) if (i % 2 === 1) await expectReadable(tier, id, i);
});

test("what is cleared at any moment of a compaction does not come back at the next start", async () => {
  using folder = temporaryFolder();
  const moments = rounds({ small: 24, full: 120 });
  for (let moment = 0; moment < moments; moment += 1) {
    const turns = Math.floor((600 * moment) / moments);
    const disk = new FaultyDisk(() => 0.5);
    {
      await using tier = await open(folder.path, disk.files);
      await recoverAll(tier);
      const ids = await writeMany(tier, 60);
      for (const [i, id] of ids.entries()) if (i % 2 === 0) tier.drop(id);
      const compacted = tier.compact(noSignal);
      for (let turn = 0; turn < turns; turn += 1) await Promise.resolve();
      await Promise.all([tier.clear(), compacted]);
      await write(tier, 999); // so that the region stays
      expect(tier.stats().records).toBe(1);
    }
    await using tier = await open(folder.path, disk.files);
    expect((await recoverAll(tier)).map(({ tokens }) => tokens[0])).toEqual([999]);
  }
});

test("loads find every record while it is being moved", async () => {
  using folder = temporaryFolder();
  const owner = new RecordingOwner();
  await using tier = await open(folder.path);
  await recoverAll(tier, owner);
  const ids = await writeMany(tier, 120);
  for (const [i, id] of ids.entries()) if (i % 2 === 0) tier.drop(id);
  const compaction = { isDone: false };
  const compacted = tier.compact(noSignal).finally(() => (compaction.isDone = true));
  let reads = 0;
  for (let i = 1; !compaction.isDone || reads < 60; i = (i + 2) % 120) {
    const into = Buffer.alloc(9000);
    const { key } = recordOf(Uint32Array.from([i]), [into]);
    const now = () => owner.moved.get(ids[i]!) ?? ids[i]!;
    let asked = now();
    let answer = await tier.read(asked, key, [into], noSignal);
    while (answer === "gone" && now() !== asked) answer = await tier.read((asked = now()), key, [into], noSignal);
    expect(answer).toBe("read");
    expect(into.equals(payloadOf(i))).toBe(true);
    reads += 1;
  }
  await compacted;
});

const cuts = rounds({ small: 25, full: 250 });

test(
  `after each of ${cuts} power cuts and kills in the middle of compacting, every record that was flushed is there`,
  async () => {
    using folder = temporaryFolder();
    const random = seededRandom(seedOr(21));
    let [finished, movedTwice] = [0, 0];
    for (let cut = 0; cut < cuts; cut += 1) {
      const disk = new FaultyDisk(random);
      const tier = await open(folder.path, disk.files, mebibyte);
      await recoverAll(tier);
      const ids = await writeMany(tier, 40);
      await tier.flush();
      const live = new Set<number>();
      for (const [i, id] of ids.entries())
        if (random() < 0.4) live.add(i);
        else tier.drop(id);
      disk.dieAt = disk.calls + 1 + Math.floor(30 * random());
      await tier.compact(noSignal).then(
        () => (finished += 1),
        () => {},
      );
      const left = random() < 0.7 ? disk.afterCut() : disk.afterKill();
      disk.dieAt = 0;
      await tier[Symbol.asyncDispose]();

      await using after = await open(folder.path, left.files, mebibyte);
      const records = await recoverAll(after);
      const found = new Set(records.map(({ tokens }) => tokens[0]!));
      movedTwice += records.length - found.size;
      expect(
        [...live].filter((i) => !found.has(i)),
        `lost in cut ${cut}`,
      ).toEqual([]);
      // The cache takes the first it is told; a copy behind it may be torn.
      const firsts = new Map(records.toReversed().map(({ id, tokens }) => [tokens[0]!, id]));
      for (const i of live) await expectReadable(after, firsts.get(i)!, i);
    }
    expect(finished).toBeLessThan(cuts);
    expect(finished).toBeGreaterThan(0);
    expect(movedTwice).toBeGreaterThan(0);
  },
  timeoutMs(300_000),
);

test("without a cache, copies and replaced tails are told from the records", async () => {
  using folder = temporaryFolder();
  await using tier = await open(folder.path);
  await recoverAll(tier);
  const payload = payloadOf(0);
  const head = recordOf(Uint32Array.from([1, 2, 3, 4]), [payload]);
  const texts = [[5], [5, 6], [5, 6, 7, 8], [5, 9], [6], [5, 6, 8]];
  const records = [head, ...texts.map((tokens) => recordOf(Uint32Array.from(tokens), [payload], head)), head];
  const kept: StoredRecord[] = [];
  for (const record of records) {
    const id = await tier.write(record, [payload], noSignal);
    if (id !== "rejected") kept.push({ ...record, id });
  }
  async function* all() {
    yield* kept;
  }
  const gone = await unreachableRecords(all());
  expect(kept.filter(({ id }) => gone.includes(id)).map(({ tokens }) => [...tokens])).toEqual([
    [5],
    [5, 6],
    [1, 2, 3, 4],
  ]);
  expect(gone).toContain(kept.at(-1)!.id);
  for (const id of gone) tier.drop(id);
  await tier.flush();
  expect((await inspectDisk([folder.path])).spaces).toMatchObject([{ chunks: 7 }]); // on disk until compacted
});
