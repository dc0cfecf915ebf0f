/** What every log must do beyond what tier-suite.ts asks of every tier: its records are its owner's alone, and outlive it. */
import { randomBytes } from "node:crypto";
import { expect } from "vitest";
import type { ChunkRecord, LogTier, RecordId, StoredRecord } from "../tier.ts";
import { payloadChecksum } from "./payload-checksum.ts";
import {
  expectReadable,
  noSignal,
  recordOf,
  recoverAll,
  RecordingOwner,
  stored,
  tests,
  type TierFixture,
  withAbsentParts,
} from "./tier-suite.ts";

export interface LogFixture extends TierFixture<LogTier> {
  /** Flips a bit of a payload where it is stored. Its first bytes are like no others. */
  rot(payload: Uint8Array): void;
}

const tokens = Uint32Array.from([1, 2, 0xffff_ffff]);

export function ownedLogSuite(name: string, makeFixture: () => Promise<LogFixture>): void {
  const withTier = tests(name, makeFixture);

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

  for (const lengths of withAbsentParts) {
    const title = `a chunk with parts of ${lengths.join(", ")} bytes`;
    const payloads = lengths.map((bytes) => randomBytes(bytes));
    const first = recordOf(tokens, payloads);
    const second = recordOf(Uint32Array.from([9]), payloads, first);

    withTier(`${title} comes back after it was closed, with these lengths`, async (fixture) => {
      const expected = await Promise.all(payloads.map(payloadChecksum));
      {
        await using tier = await fixture.open();
        await recoverAll(tier);
        const id = await stored(tier, first, payloads);
        expect(tier.checksums(id)).toEqual(expected);
        await stored(tier, second, payloads); // where it begins shows that the first takes no more room than it says
      }
      await using tier = await fixture.open();
      const records = await recoverAll(tier);
      expect(records).toMatchObject([first, second]);
      for (const record of records) {
        await expectReadable(tier, record, payloads);
        expect(tier.checksums(record.id)).toEqual(expected);
      }
    });

    const large = [...lengths.entries()].filter(([, bytes]) => bytes >= 4096).map(([part]) => part);
    for (const rotten of large)
      withTier(`of ${title} part ${rotten} rots, and the others are read until it is wanted`, async (fixture) => {
        {
          await using tier = await fixture.open();
          await recoverAll(tier);
          await stored(tier, first, payloads);
        }
        fixture.rot(payloads[rotten]!); // one for each length
        await using tier = await fixture.open();
        const [found] = await recoverAll(tier);
        const others = payloads.map((payload, part) => (part === rotten ? undefined : payload));
        await expectReadable(tier, found!, others);
        const alone = lengths.map((bytes, part) => (part === rotten ? new Uint8Array(bytes) : undefined));
        await expect(tier.read(found!.id, first.key, alone, noSignal)).rejects.toMatchObject({
          code: "RECORD_CORRUPT",
        });
        expect(tier.stats()).toMatchObject({ records: 0, corruptRecords: 1 });
      });
  }

  withTier(
    "until a batch is read, what it gives is found by its keys; then it is its owner's to know",
    async (fixture) => {
      const payload = randomBytes(100);
      const written: ChunkRecord[] = [];
      for (let i = 0; i < 300; i += 1) written.push(recordOf(Uint32Array.from([i, 7]), [payload], written.at(-1)));
      {
        await using tier = await fixture.open();
        await recoverAll(tier);
        for (const record of written) await tier.write(record, [payload], noSignal);
      }
      await using tier = await fixture.open();
      const { space, root } = written[0]!; // 300 were written
      const keys = written.map(({ key }) => key);
      const find = (from: number) => tier.find(space, root, keys.slice(from), noSignal);
      const given: StoredRecord[] = [];
      for await (const batch of tier.recover(new RecordingOwner())) {
        const before = given.length;
        const found = await find(before); // of later batches as well, as far as they are known
        for await (const record of batch.records()) given.push(record);
        expect(given.length - before).toBe(batch.count);
        const its = given.slice(before).map(({ id, payloadBytes }) => ({ id, payloadBytes }));
        expect(found.slice(0, batch.count)).toEqual(its);
        expect(await tier.find(space, root, [keys[before]!], noSignal)).toEqual([]);
      }
      expect(given).toMatchObject(written);
      expect(await find(0)).toEqual([]);
    },
  );

  withTier("a record that was dropped is not found by its key", async (fixture) => {
    const payload = randomBytes(100);
    const records = [1, 2, 3].map((token) => recordOf(Uint32Array.from([token]), [payload]));
    {
      await using tier = await fixture.open();
      await recoverAll(tier);
      for (const record of records) await tier.write(record, [payload], noSignal);
    }
    await using tier = await fixture.open();
    const { space, root } = records[0]!; // three were written
    const keys = records.map(({ key }) => key);
    for await (const _batch of tier.recover(new RecordingOwner()));
    const found = await tier.find(space, root, keys, noSignal);
    expect(found).toHaveLength(3);
    expect(tier.has(found[1]!.id)).toBe(true);
    tier.drop(found[1]!.id);
    expect(tier.has(found[1]!.id)).toBe(false);
    expect(await tier.find(space, root, keys, noSignal)).toEqual(found.slice(0, 1));
    expect(await tier.find(space, root, keys.slice(2), noSignal)).toEqual(found.slice(2));
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
}
