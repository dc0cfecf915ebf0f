/** What every tier below the pool must do. A tier's test calls this with a way to open it over the same storage. */
import { createHash, randomBytes } from "node:crypto";
import { expect, test } from "vitest";
import { chunkKey, type RootKey, type Tokens } from "../cache/chunk.ts";
import type { SpaceId } from "../cache/space.ts";
import type { ChunkRecord, RecordId, StoredRecord, Tier, TierOwner } from "../tier.ts";
import { payloadChecksum } from "./payload-checksum.ts";

export interface TierFixture {
  /** Opens the tier over the storage of this fixture, again if it was closed. */
  open(): Promise<Tier>;
  readonly capacityBytes: number;
  dispose(): Promise<void>;
}

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

export async function recoverAll(tier: Tier, owner: TierOwner = new RecordingOwner()): Promise<StoredRecord[]> {
  const records: StoredRecord[] = [];
  for await (const batch of tier.recover(owner)) for await (const record of batch.records()) records.push(record);
  return records;
}

export function tierSuite(name: string, makeFixture: () => Promise<TierFixture>): void {
  const withTier = (title: string, body: (fixture: TierFixture) => Promise<void>) =>
    test(`${name}: ${title}`, async () => {
      const fixture = await makeFixture();
      try {
        await body(fixture);
      } finally {
        await fixture.dispose();
      }
    });
  const tokens = Uint32Array.from([1, 2, 0xffff_ffff]);

  withTier("what was written is read, every rank of it", async (fixture) => {
    await using tier = await fixture.open();
    await recoverAll(tier);
    const payloads = [randomBytes(5000), randomBytes(1), randomBytes(4096)];
    const record = recordOf(tokens, payloads);
    const id = await tier.write(record, payloads, noSignal);
    if (id === "rejected") throw new Error("there is room");
    const into = payloads.map((payload) => new Uint8Array(payload.length));
    expect(await tier.read(id, record.key, into, noSignal)).toBe("read");
    expect(into.map((bytes) => Buffer.from(bytes))).toEqual(payloads);
    expect(tier.stats()).toMatchObject({ records: 1, corruptRecords: 0 });
  });

  withTier("records come back after it was closed, with identity, tokens and lengths", async (fixture) => {
    const payload = randomBytes(3000);
    const first = recordOf(tokens, [payload]);
    const second = recordOf(Uint32Array.from([9]), [payload], first);
    {
      await using tier = await fixture.open();
      expect(await recoverAll(tier)).toEqual([]);
      await tier.write(first, [payload], noSignal);
      await tier.write(second, [payload], noSignal);
    }
    await using tier = await fixture.open();
    const records = await recoverAll(tier);
    expect(records).toMatchObject([first, second]);
    const into = new Uint8Array(3000);
    expect(await tier.read(records[1]!.id, second.key, [into], noSignal)).toBe("read");
    expect(Buffer.from(into)).toEqual(payload);
  });

  withTier("what a batch finds by its key is what it gives", async (fixture) => {
    const payload = randomBytes(100);
    const written = Array.from({ length: 300 }, (_, i) => recordOf(Uint32Array.from([i, 7]), [payload]));
    {
      await using tier = await fixture.open();
      await recoverAll(tier);
      for (const record of written) await tier.write(record, [payload], noSignal);
    }
    await using tier = await fixture.open();
    for await (const batch of tier.recover(new RecordingOwner())) {
      const given: StoredRecord[] = [];
      for await (const record of batch.records()) given.push(record);
      expect(given.length).toBe(batch.count);
      if (batch.find === undefined) continue;
      for (const record of given) expect(await batch.find(record.key)?.()).toEqual(record);
      expect(batch.find(recordOf(Uint32Array.from([1000]), [payload]).key)).toBeUndefined();
      tier.drop(given[0]!.id);
      expect(batch.find(given[0]!.key)).toBeUndefined();
    }
  });

  withTier("a dropped record is gone", async (fixture) => {
    await using tier = await fixture.open();
    await recoverAll(tier);
    const payload = randomBytes(10);
    const record = recordOf(tokens, [payload]);
    const id = await tier.write(record, [payload], noSignal);
    if (id === "rejected") throw new Error("there is room");
    tier.drop(id);
    tier.drop(id);
    expect(await tier.read(id, record.key, [new Uint8Array(10)], noSignal)).toBe("gone");
    expect(tier.stats().records).toBe(0);
  });

  withTier("a record is not given for another key, and is dropped", async (fixture) => {
    await using tier = await fixture.open();
    await recoverAll(tier);
    const payload = randomBytes(10);
    const id = await tier.write(recordOf(tokens, [payload]), [payload], noSignal);
    if (id === "rejected") throw new Error("there is room");
    const other = recordOf(Uint32Array.from([5]), [payload]);
    await expect(tier.read(id, other.key, [new Uint8Array(10)], noSignal)).rejects.toMatchObject({
      code: "RECORD_CORRUPT",
    });
    expect(tier.stats()).toMatchObject({ records: 0, corruptRecords: 1 });
  });

  withTier(
    "a payload in memory padded to whole pages is written and read in place, its padding as zeros",
    async (fixture) => {
      await using tier = await fixture.open();
      await recoverAll(tier);
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

  withTier(
    "of a record just written or read, the payloads' checksums are known, and are the pool's",
    async (fixture) => {
      const payloads = [randomBytes(5000), randomBytes(300_000), randomBytes(4096)];
      const record = recordOf(tokens, payloads);
      const expected = await Promise.all(payloads.map(payloadChecksum));
      {
        await using tier = await fixture.open();
        await recoverAll(tier);
        const id = await tier.write(record, payloads, noSignal);
        if (id === "rejected") throw new Error("there is room");
        expect(tier.checksums(id)).toEqual(expected);
        tier.drop(id);
        expect(tier.checksums(id)).toBeUndefined();
        await tier.write(record, payloads, noSignal);
      }
      await using tier = await fixture.open();
      const [found] = await recoverAll(tier);
      const into = payloads.map((payload) => new Uint8Array(payload.length));
      expect(await tier.read(found!.id, record.key, into, noSignal)).toBe("read");
      expect(tier.checksums(found!.id)).toEqual(expected);
    },
  );

  withTier(
    "cleared: every record is gone for good, its owner is told; what is written later stays",
    async (fixture) => {
      const payload = randomBytes(3000);
      const record = (i: number) => recordOf(Uint32Array.from([i]), [payload]);
      const later = record(8);
      {
        await using tier = await fixture.open();
        const owner = new RecordingOwner();
        await recoverAll(tier, owner);
        const ids: RecordId[] = [];
        for (let i = 0; i < 5; i += 1) {
          const id = await tier.write(record(i), [payload], noSignal);
          if (id !== "rejected") ids.push(id);
        }
        const cleared = tier.clear();
        // Under way at the same time: it is cleared or it stays, and the owner knows which.
        const meanwhile = await tier.write(record(7), [payload], noSignal);
        await cleared;
        const read = (id: RecordId, i: number) => tier.read(id, record(i).key, [new Uint8Array(3000)], noSignal);
        for (const [i, id] of ids.entries()) {
          expect(owner.evicted.has(id)).toBe(true);
          expect(await read(id, i)).toBe("gone");
        }
        if (meanwhile !== "rejected")
          expect(await read(meanwhile, 7)).toBe(owner.evicted.has(meanwhile) ? "gone" : "read");
        await tier.clear();
        await tier.write(later, [payload], noSignal);
        expect(tier.stats().records).toBe(1);
      }
      await using tier = await fixture.open();
      expect(await recoverAll(tier)).toMatchObject([later]);
      await tier.clear();
      expect(tier.stats()).toMatchObject({ records: 0, usedBytes: 0 });
    },
  );

  withTier("a record larger than it may be is rejected", async (fixture) => {
    await using tier = await fixture.open();
    await recoverAll(tier);
    const payload = new Uint8Array(fixture.capacityBytes + 1);
    expect(await tier.write(recordOf(tokens, [payload]), [payload], noSignal)).toBe("rejected");
  });

  withTier("never holds more than its capacity, and names every record it loses", async (fixture) => {
    await using tier = await fixture.open();
    const owner = new RecordingOwner();
    await recoverAll(tier, owner);
    const size = Math.floor(fixture.capacityBytes / 40);
    const written: { id: RecordId; record: ChunkRecord }[] = [];
    let previous: ChunkRecord | undefined;
    for (let i = 0; i < 120; i += 1) {
      const payload = randomBytes(size);
      const record = recordOf(Uint32Array.from([i]), [payload], previous);
      const id = await tier.write(record, [payload], noSignal);
      if (id === "rejected") throw new Error("old records make room");
      written.push({ id, record });
      previous = record;
      expect(tier.stats().usedBytes).toBeLessThanOrEqual(fixture.capacityBytes);
    }
    expect(owner.evicted.size + tier.stats().records).toBe(written.length);
    expect(tier.stats().records).toBeGreaterThan(15);
    for (const { id, record } of written) {
      const answer = await tier.read(id, record.key, [new Uint8Array(size)], noSignal);
      expect(answer).toBe(owner.evicted.has(id) ? "gone" : "read");
    }
  });

  withTier("a wanted record outlives those around it", async (fixture) => {
    await using tier = await fixture.open();
    const owner = new RecordingOwner();
    await recoverAll(tier, owner);
    const size = Math.floor(fixture.capacityBytes / 80);
    const precious = randomBytes(size);
    const record = recordOf(tokens, [precious]);
    const first = await tier.write(record, [precious], noSignal);
    if (first === "rejected") throw new Error("there is room");
    owner.wanted.add(first);
    for (let i = 0; i < 240; i += 1) {
      const payload = randomBytes(size);
      await tier.write(recordOf(Uint32Array.from([i, i]), [payload]), [payload], noSignal);
    }
    expect(owner.moved.size).toBeGreaterThan(0);
    const [now] = owner.wanted;
    const into = new Uint8Array(size);
    expect(await tier.read(now!, record.key, [into], noSignal)).toBe("read");
    expect(Buffer.from(into)).toEqual(precious);
  });

  withTier("a write is taken up in whatever moment after another it comes", async (fixture) => {
    await using tier = await fixture.open();
    await recoverAll(tier);
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
    await using tier = await fixture.open();
    await recoverAll(tier);
    const payloads = Array.from({ length: 50 }, () => randomBytes(2000));
    const records = payloads.map((payload, i) => recordOf(Uint32Array.from([i]), [payload]));
    const ids = await Promise.all(payloads.map((payload, i) => tier.write(records[i]!, [payload], noSignal)));
    await tier.flush();
    for (const [i, id] of ids.entries()) {
      if (id === "rejected") throw new Error("there is room");
      const into = new Uint8Array(2000);
      expect(await tier.read(id, records[i]!.key, [into], noSignal)).toBe("read");
      expect(Buffer.from(into)).toEqual(payloads[i]);
    }
  });
}
