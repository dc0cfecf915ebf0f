/**
 * What every tier below the pool must do; log-suite.ts has what every log must do beyond it. A tier's test calls this with a way
 * to open it over the same storage.
 */
import { createHash, randomBytes } from "node:crypto";
import { expect, test } from "vitest";
import { chunkKey, type ChunkKey, type RootKey } from "../identity/keys.ts";
import { type Tokens } from "../identity/tokens.ts";
import type { SpaceId } from "../identity/space.ts";
import { codeOf } from "../errors.ts";
import {
  type AskedKeys,
  ownedLog,
  type ChunkRecord,
  type LogTier,
  type RecordId,
  type StoredRecord,
  type Tier,
  type TierOwner,
} from "../tier.ts";

export interface TierFixture<T extends Tier = Tier> {
  /** Opens the tier over the storage of this fixture, again if it was closed. */
  open(): Promise<T>;
  readonly capacityBytes: number;
  dispose(): Promise<void>;
}

/** What a chunk has of each of four parts: the first of them nothing, or one in the middle and the last. */
export const withAbsentParts: readonly (readonly number[])[] = [
  [0, 5000, 1, 300_000],
  [4096, 0, 5000, 0],
];

export const noSignal = new AbortController().signal;

export function recordOf(tokens: Tokens, payloads: readonly Uint8Array[], parent?: ChunkRecord): ChunkRecord {
  const root = createHash("sha256").update("root").digest("hex") as RootKey;
  const parentKey = parent?.key ?? root;
  return {
    space: createHash("sha256").update("space").digest("hex") as SpaceId,
    root,
    key: chunkKey(parentKey, tokens),
    parent: parentKey,
    firstToken: parent === undefined ? 0 : parent.firstToken + parent.tokens.length,
    tokens,
    payloadBytes: payloads.map((payload) => payload.length),
  };
}

/** An owner that remembers what it was told. */
export class RecordingOwner implements TierOwner {
  readonly wanted = new Set<RecordId>();
  readonly evicted = new Set<RecordId>();
  readonly moved = new Map<RecordId, RecordId>();

  isWanted(id: RecordId): boolean {
    return this.wanted.has(id);
  }

  onEvicted(ids: readonly RecordId[]): void {
    for (const id of ids) this.evicted.add(id);
  }

  onMoved(from: RecordId, to: RecordId): void {
    this.moved.set(from, to);
    if (this.wanted.delete(from)) this.wanted.add(to);
  }
}

export async function recoverAll(tier: LogTier, owner: TierOwner = new RecordingOwner()): Promise<StoredRecord[]> {
  const records: StoredRecord[] = [];
  for await (const batch of tier.recover(owner)) for await (const record of batch.records()) records.push(record);
  return records;
}

/** One fixture a test, open and closed around it. */
export function tests<Fixture extends TierFixture>(name: string, makeFixture: () => Promise<Fixture>) {
  return (title: string, body: (fixture: Fixture) => Promise<void>) =>
    test(`${name}: ${title}`, async () => {
      const fixture = await makeFixture();
      try {
        await body(fixture);
      } finally {
        await fixture.dispose();
      }
    });
}

/** Writes a record of these payloads, which there must be room for. */
export async function stored(tier: Tier, record: ChunkRecord, payloads: readonly Uint8Array[]): Promise<RecordId> {
  const id = await tier.write(record, payloads, noSignal);
  if (id === "rejected") throw new Error("there is room");
  return id;
}

/** Reads a record without the parts that are undefined, and fails the test where it has not these payloads. */
export async function expectReadable(
  tier: Tier,
  { id, key }: Pick<StoredRecord, "id" | "key">,
  payloads: readonly (Uint8Array | undefined)[],
): Promise<void> {
  const into = payloads.map((payload) => payload && new Uint8Array(payload.length));
  expect(await tier.read(id, key, into, noSignal)).toBe("read");
  // Not toEqual, which takes a second for a MiB.
  for (const [part, bytes] of into.entries())
    expect(bytes === undefined || Buffer.compare(bytes, payloads[part]!) === 0, `part ${part}`).toBe(true);
}

/** A tier that can be written. */
async function ready(fixture: TierFixture): Promise<Tier> {
  const tier = await fixture.open();
  const log = ownedLog(tier);
  if (log !== undefined) await recoverAll(log);
  return tier;
}

const tokens = Uint32Array.from([1, 2, 0xffff_ffff]);

/** What every tier does. */
/** The records' keys as a cache asks for them, which knows what its space's records have: here not one byte more than these have. */
export function askedKeys(records: readonly ChunkRecord[]): AskedKeys & readonly ChunkKey[] {
  const bounds = {
    parts: Math.max(...records.map(({ payloadBytes }) => payloadBytes.length)),
    tokens: Math.max(...records.map((record) => record.tokens.length)),
  };
  return Object.assign(
    records.map(({ key }) => key),
    { bounds },
  );
}

export function tierSuite(name: string, makeFixture: () => Promise<TierFixture>): void {
  const withTier = tests(name, makeFixture);

  withTier("what was written is read, every part of it", async (fixture) => {
    await using tier = await ready(fixture);
    const payloads = [randomBytes(5000), randomBytes(1), randomBytes(4096)];
    const record = recordOf(tokens, payloads);
    const id = await tier.write(record, payloads, noSignal);
    if (id === "rejected") throw new Error("there is room");
    const into = payloads.map((payload) => new Uint8Array(payload.length));
    expect(await tier.read(id, record.key, into, noSignal)).toBe("read");
    expect(into.map((bytes) => Buffer.from(bytes))).toEqual(payloads);
    expect(tier.stats()).toMatchObject({ records: 1, corruptRecords: 0 });
  });

  withTier("what was written before is found by its keys, the leading ones, and read", async (fixture) => {
    const payloads = Array.from({ length: 5 }, (_, i) => [randomBytes(1000 + i), randomBytes(1)]);
    const records: ChunkRecord[] = [];
    for (const [i, each] of payloads.entries()) records.push(recordOf(Uint32Array.from([i]), each, records.at(-1)));
    const { space, root } = records[0]!; // five
    const keys = records.map(({ key }) => key);
    {
      await using tier = await ready(fixture);
      expect(await tier.find(space, root, keys, noSignal)).toEqual([]);
      for (const i of [0, 1, 2, 4]) await tier.write(records[i]!, payloads[i]!, noSignal);
    }
    await using tier = await fixture.open();
    const log = ownedLog(tier);
    if (log !== undefined) for await (const _batch of log.recover(new RecordingOwner()));
    const found = await tier.find(space, root, askedKeys(records), noSignal);
    expect(found.map(({ payloadBytes }) => payloadBytes)).toEqual(records.slice(0, 3).map((each) => each.payloadBytes));
    expect(await tier.find(space, root, keys.slice(3), noSignal)).toEqual([]);
    expect(await tier.find(space, root, keys.slice(4), noSignal)).toHaveLength(1);
    for (const [i, { id }] of found.entries()) {
      const into = payloads[i]!.map(({ length }) => new Uint8Array(length));
      expect(await tier.read(id, keys[i]!, into, noSignal)).toBe("read");
      expect(into.map((bytes) => Buffer.from(bytes))).toEqual(payloads[i]);
    }
  });

  for (const lengths of withAbsentParts) {
    const title = `a chunk with parts of ${lengths.join(", ")} bytes`;
    const payloads = lengths.map((bytes) => randomBytes(bytes));
    const record = recordOf(tokens, payloads);

    withTier(`${title} is found with these lengths, and read`, async (fixture) => {
      {
        await using tier = await ready(fixture);
        const id = await stored(tier, record, payloads);
        await expectReadable(tier, { ...record, id }, payloads);
      }
      await using tier = await fixture.open();
      const log = ownedLog(tier);
      if (log !== undefined) for await (const _batch of log.recover(new RecordingOwner()));
      const [found, ...others] = await tier.find(record.space, record.root, askedKeys([record]), noSignal);
      expect(found?.payloadBytes).toEqual(lengths);
      expect(others).toEqual([]);
      await expectReadable(tier, { ...record, id: found!.id }, payloads);
    });

    withTier(`of ${title} any parts are read without memory for the others`, async (fixture) => {
      await using tier = await ready(fixture);
      const id = await stored(tier, record, payloads);
      for (let choice = 0; choice < 2 ** lengths.length; choice += 1) {
        const isWanted = (part: number) => (choice >> part) % 2 === 1;
        // Side by side, as slots are: a part that went too far would be seen in the next.
        const memory = Buffer.alloc(payloads.length * 2 ** 19, "untouched");
        const expected = Buffer.from(memory);
        const into = lengths.map((bytes, part) => {
          const from = part * 2 ** 19;
          if (isWanted(part)) expected.set(payloads[part]!, from); // one for each length
          return isWanted(part) ? memory.subarray(from, from + bytes) : undefined;
        });
        expect(await tier.read(id, record.key, into, noSignal)).toBe("read");
        expect(memory.equals(expected), `parts ${choice.toString(2)}`).toBe(true);
      }
      expect(tier.stats()).toMatchObject({ records: 1, corruptRecords: 0 });
    });
  }

  withTier(
    "a record that is written anew without a part, or with one more, is never given for the old one",
    async (fixture) => {
      const [all, less] = [
        [randomBytes(5000), randomBytes(9000)],
        [randomBytes(5000), new Uint8Array()],
      ];
      for (const [old, anew] of [
        [all, less],
        [less, all],
      ] as const) {
        await using tier = await ready(fixture);
        const record = recordOf(tokens, old);
        const id = await stored(tier, record, old);
        await stored(tier, recordOf(tokens, anew), anew);
        const into = old.map(({ length }) => new Uint8Array(length));
        const outcome = await tier.read(id, record.key, into, noSignal).catch(codeOf);
        if (outcome === "read")
          expect(into.map((bytes) => Buffer.from(bytes))).toEqual(old.map((bytes) => Buffer.from(bytes)));
        else expect(["gone", "RECORD_CORRUPT"]).toContain(outcome);
      }
    },
  );

  withTier("a record is not given for another key", async (fixture) => {
    await using tier = await ready(fixture);
    const payload = randomBytes(10);
    const id = await tier.write(recordOf(tokens, [payload]), [payload], noSignal);
    if (id === "rejected") throw new Error("there is room");
    const other = recordOf(Uint32Array.from([5]), [payload]);
    const outcome = await tier.read(id, other.key, [new Uint8Array(10)], noSignal).catch(codeOf);
    expect(["gone", "RECORD_CORRUPT"]).toContain(outcome);
  });

  withTier(
    "a payload in memory padded to whole pages is written and read in place, its padding as zeros",
    async (fixture) => {
      await using tier = await ready(fixture);
      const padded = randomBytes(8192);
      const payload = Buffer.from(padded.subarray(0, 5000));
      const record = recordOf(tokens, [payload]);
      const id = await tier.write(record, [padded], noSignal);
      if (id === "rejected") throw new Error("there is room");
      const into = Buffer.alloc(8192, 1);
      expect(await tier.read(id, record.key, [into], noSignal)).toBe("read");
      expect(into.subarray(0, 5000)).toEqual(payload);
      expect(into.subarray(5000).every((byte) => byte === 0)).toBe(true);
    },
  );

  withTier("a record larger than it may be is rejected", async (fixture) => {
    await using tier = await ready(fixture);
    const payload = new Uint8Array(fixture.capacityBytes + 1);
    expect(await tier.write(recordOf(tokens, [payload]), [payload], noSignal)).toBe("rejected");
  });

  withTier("a write is taken up in whatever moment after another it comes", async (fixture) => {
    await using tier = await ready(fixture);
    const payload = randomBytes(100);
    const write = (i: number, j: number) =>
      tier.write(recordOf(Uint32Array.from([i, j]), [payload]), [payload], noSignal);
    for (let moments = 0; moments < 24; moments += 1) {
      const first = write(moments, 0);
      for (let moment = 0; moment < moments; moment += 1) await Promise.resolve();
      const ids = await Promise.all([first, write(moments, 1)]);
      expect(ids).not.toContain("rejected");
    }
  });

  withTier("many writes at once all arrive", async (fixture) => {
    await using tier = await ready(fixture);
    const payloads = Array.from({ length: 50 }, () => randomBytes(2000));
    const records = payloads.map((payload, i) => recordOf(Uint32Array.from([i]), [payload]));
    const ids = await Promise.all(payloads.map((payload, i) => tier.write(records[i]!, [payload], noSignal)));
    await ownedLog(tier)?.flush();
    for (const [i, id] of ids.entries()) {
      if (id === "rejected") throw new Error("there is room");
      const into = new Uint8Array(2000);
      expect(await tier.read(id, records[i]!.key, [into], noSignal)).toBe("read");
      expect(Buffer.from(into)).toEqual(payloads[i]);
    }
  });
}
