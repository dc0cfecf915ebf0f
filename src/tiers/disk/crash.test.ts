/** A disk that loses power at any moment, and one that lies: nothing wrong is ever read, nothing safe is lost. */
import { expect, test } from "vitest";
import { temporaryFolder } from "../../../test/support/cache.ts";
import { rounds, seedOr, timeoutMs } from "../../../test/support/depth.ts";
import { FaultyDisk } from "../../../test/support/faulty-disk.ts";
import { seededRandom } from "../../../test/support/prompts.ts";
import type { RecordId, StoredRecord, TierOwner } from "../../tier.ts";
import { noSignal, recordOf, recoverAll } from "../tier-suite.ts";
import { DiskTier } from "./disk-tier.ts";

const capacityBytes = 1024 * 1024;
const regionBytes = 128 * 1024;
const crashes = rounds({ small: 60, full: 1000 });
const corruptions = rounds({ small: 600, full: 10_000 });

/**
 * The payloads of a record, by its first token: of the same lengths and content, whoever writes it and when. One to four, and
 * most records lack some of them.
 */
function payloadsOf(i: number): Buffer[] {
  const parts = 1 + (i % 4);
  return Array.from({ length: parts }, (_, part) => {
    const isAbsent = parts > 1 && (Math.imul(i + 1, 2654435761) >>> (8 + part)) % 2 === 1;
    const bytes = isAbsent ? 0 : 1 + (Math.imul(i + part, 7919) & (0x7fff >>> (parts >>> 1)));
    const payload = Buffer.alloc(bytes, Buffer.from(Uint32Array.of(i + 1, ~i ^ (part << 24)).buffer));
    for (let at = 0; at < bytes; at += 512) payload[at]! ^= at >>> 9; // no sector like another
    return payload;
  });
}

function open(directory: string, disk: FaultyDisk): Promise<DiskTier> {
  const options = { flushMs: 1e9, scrubBytesPerSecond: 0, regionBytes, files: disk.files };
  return DiskTier.open({ drives: [{ directory, capacityBytes }], ...options });
}

async function write(tier: DiskTier, i: number): Promise<RecordId | "rejected"> {
  const payloads = payloadsOf(i);
  return tier.write(recordOf(Uint32Array.from([i]), payloads), payloads, noSignal);
}

/**
 * Reads some parts of each record, and then all of it.
 *
 * @returns what was read right, by first token; anything else than right or refused fails the test
 */
async function readAll(tier: DiskTier, records: readonly StoredRecord[], random: () => number): Promise<Set<number>> {
  const right = new Set<number>();
  for (const record of records) {
    await readParts(tier, record, () => random() < 0.5);
    if ((await readParts(tier, record, () => true)) === "read") right.add(record.tokens[0]!);
  }
  return right;
}

async function readParts(tier: DiskTier, record: StoredRecord, isWanted: () => boolean): Promise<"read" | "refused"> {
  const { id, key, tokens, payloadBytes } = record;
  const payloads = payloadsOf(tokens[0]!);
  expect(payloadBytes).toEqual(payloads.map(({ length }) => length));
  const into = payloadBytes.map((bytes) => (isWanted() ? Buffer.alloc(bytes) : undefined));
  const answer = await tier.read(id, key, into, noSignal).catch((error: { code: string }) => error.code);
  if (answer !== "read") {
    expect(["gone", "RECORD_CORRUPT"]).toContain(answer);
    return "refused";
  }
  for (const [part, bytes] of into.entries())
    expect(bytes?.equals(payloads[part]!) ?? true, `part ${part} of record ${tokens[0]}`).toBe(true);
  return "read";
}

test(
  `after each of ${crashes} power cuts what was flushed is there, nothing wrong is read, and only open regions are scanned`,
  async () => {
    using folder = temporaryFolder();
    const random = seededRandom(seedOr(11));
    let disk = new FaultyDisk(random);
    let next = 0;
    let safe = new Set<number>();
    let found = 0;
    for (let crash = 0; crash < crashes; crash += 1) {
      const tier = await open(folder.path, disk);
      const owner = new ForgettingOwner(random);
      const records = await recoverAll(tier, owner);
      for (const { id, tokens } of records) owner.numbers.set(id, tokens[0]!);
      const others = disk.paths().length;
      expect(disk.readBytes, `bytes read after crash ${crash}`).toBeLessThan(5 * regionBytes + others * 24 * 1024);
      const right = await readAll(tier, records, random);
      expect(
        [...safe].filter((i) => !right.has(i)),
        `lost in crash ${crash}`,
      ).toEqual([]);
      found += right.size;

      disk.dieAt = disk.calls + 1 + Math.floor(random() * 60);
      const acknowledged = new Set(right);
      while (!disk.isDead) {
        const writes = Array.from({ length: 1 + Math.floor(random() * 6) }, async () => {
          const i = (next += 1);
          const id = await write(tier, i).catch(() => "rejected" as const);
          if (id === "rejected") return;
          acknowledged.add(i);
          owner.numbers.set(id, i);
        });
        await Promise.all(writes);
        const before = [...acknowledged];
        if (
          random() < 0.4 &&
          (await tier.flush().then(
            () => true,
            () => false,
          ))
        )
          safe = new Set(before);
        for (const i of owner.evicted) {
          safe.delete(i);
          acknowledged.delete(i);
        }
      }
      const left = random() < 0.8 ? disk.afterCut() : disk.afterKill();
      await tier[Symbol.asyncDispose]();
      disk = left;
    }
    expect(found).toBeGreaterThan(10 * crashes);
  },
  timeoutMs(300_000),
);

/** Wants a third of what it is asked about, and knows by number what it lost. */
class ForgettingOwner implements TierOwner {
  readonly numbers = new Map<RecordId, number>();
  readonly evicted = new Set<number>();
  readonly #random: () => number;

  constructor(random: () => number) {
    this.#random = random;
  }

  isWanted(): boolean {
    return this.#random() < 0.3;
  }

  onEvicted(ids: readonly RecordId[]): void {
    for (const id of ids) this.evicted.add(this.numbers.get(id)!); // noted when it was written
  }

  onMoved(from: RecordId, to: RecordId): void {
    this.numbers.set(to, this.numbers.get(from)!);
  }
}

test(
  `with ${corruptions} corruptions nothing wrong is read, nothing crashes`,
  async () => {
    using folder = temporaryFolder();
    const random = seededRandom(seedOr(12));
    const pick = (limit: number) => Math.floor(random() * limit);
    const { old, disk: whole } = await twoGenerations(folder.path);
    const total = (await recovered(folder.path, whole, random)).size;
    expect(total).toBeGreaterThan(20);
    let missing = 0;
    for (let done = 0; done < corruptions; done += 20) {
      const disk = whole.afterKill();
      for (let i = 0; i < 20; i += 1) corrupt(disk, old, pick);
      missing += total - (await recovered(folder.path, disk, random)).size;
    }
    expect(missing).toBeGreaterThan(corruptions / 10);
  },
  timeoutMs(300_000),
);

/** A disk, and files as they lay on it some evictions earlier. */
async function twoGenerations(directory: string): Promise<{ old: Map<string, Buffer>; disk: FaultyDisk }> {
  const disk = new FaultyDisk(() => 0.5);
  const old = new Map<string, Buffer>();
  const tier = await open(directory, disk);
  await recoverAll(tier);
  for (let i = 0; i < 120; i += 1) {
    await write(tier, i);
    if (i === 60) for (const path of disk.paths()) old.set(path, Buffer.from(disk.bytesOf(path)));
  }
  const left = disk.afterKill(); // one region is open: it has no contents
  await tier[Symbol.asyncDispose]();
  return { old, disk: left };
}

async function recovered(directory: string, disk: FaultyDisk, random: () => number): Promise<Set<number>> {
  await using tier = await open(directory, disk);
  return readAll(tier, await recoverAll(tier), random);
}

function corrupt(disk: FaultyDisk, old: ReadonlyMap<string, Buffer>, pick: (limit: number) => number): void {
  const paths = disk.paths();
  const path = paths[pick(paths.length)]!;
  const other = paths[pick(paths.length)]!;
  const bytes = Buffer.from(disk.bytesOf(path));
  const page = (of: Buffer) => 4096 * pick(Math.max(1, Math.floor(of.length / 4096)));
  const damages: (() => void)[] = [
    () => (bytes[pick(bytes.length)]! ^= 1 << pick(8)),
    () => (bytes[pick(bytes.length)]! ^= 1 << pick(8)),
    () => bytes.fill(0, page(bytes), page(bytes)),
    // A write that went astray, within the file and from another.
    () => bytes.copy(bytes, page(bytes), page(bytes), page(bytes)),
    () => disk.bytesOf(other).copy(bytes, page(bytes), page(disk.bytesOf(other))),
  ];
  const changes: (() => void)[] = [
    () => disk.put(path, bytes.subarray(0, pick(bytes.length))),
    () => {
      const swapped = Buffer.from(disk.bytesOf(other));
      disk.put(other, bytes);
      disk.put(path, swapped);
    },
    // An old file under its own name, or under that of a newer one.
    () => {
      const [name, content] = [...old][pick(old.size)]!;
      disk.put(pick(2) === 0 ? name : path, content);
    },
  ];
  const choice = pick(20);
  if (choice < changes.length && bytes.length > 0) changes[choice]!();
  else if (bytes.length > 0) {
    damages[choice % damages.length]!();
    disk.put(path, bytes);
  }
}
