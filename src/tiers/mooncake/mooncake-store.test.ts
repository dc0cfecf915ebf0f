import { randomBytes } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { isHere, python, startMaster, startPool } from "../../../test/support/mooncake.ts";
import { freePort } from "../../../test/support/valkey.ts";
import { codeOf } from "../../errors.ts";
import type { ChunkRecord, RecordId } from "../../tier.ts";
import { ValueTier } from "../shared/value-tier.ts";
import { expectReadable, noSignal, recordOf, stored, tierSuite } from "../tier-suite.ts";
import { parseMooncakeAddress } from "./address.ts";
import { MooncakeStore } from "./mooncake-store.ts";

const maxRecordBytes = 4 * 1024 * 1024;

if (!isHere)
  process.stderr.write("The Mooncake tier is not tested: REPRISE_TEST_MOONCAKE names no Python with its wheel.\n");

async function connected(store: MooncakeStore): Promise<void> {
  const ask = () => store.getAll(["nobody's"], 10, noSignal).catch(codeOf);
  await expect.poll(ask, { timeout: 20_000 }).toEqual([undefined]);
}

async function openStore(address: string): Promise<MooncakeStore> {
  const store = new MooncakeStore(parseMooncakeAddress(address));
  await connected(store);
  return store;
}

async function open(address: string): Promise<ValueTier> {
  return new ValueTier({ store: await openStore(address), keys: [], prefix: "reprise:", maxRecordBytes });
}

let number = 0;
function newRecord(bytes = 100_000): { record: ChunkRecord; payloads: [Buffer] } {
  const payloads: [Buffer] = [randomBytes(bytes)];
  return { record: recordOf(Uint32Array.from([(number += 1)]), payloads), payloads };
}

async function writeAndRead(tier: ValueTier): Promise<void> {
  const { record, payloads } = newRecord();
  const id = await stored(tier, record, payloads);
  await expectReadable(tier, { ...record, id }, payloads);
}

if (isHere)
  tierSuite("a pool of Mooncake's", async () => {
    const pool = await startPool();
    return {
      capacityBytes: maxRecordBytes,
      open: () => open(pool.address),
      dispose: async () => pool[Symbol.asyncDispose](),
    };
  });

describe.skipIf(!isHere)("values in a pool", { timeout: 40_000 }, () => {
  test("small ones come in whatever number and length; longer ones than wanted, and those that are not there, do not", async () => {
    await using pool = await startPool();
    await using store = await openStore(pool.address);
    const values = Array.from({ length: 700 }, (_, i) => ({
      name: `small:${i}`,
      bytes: randomBytes(i % 50 === 0 ? 40_000 : 1 + i * 40),
    }));
    expect(await store.write(values, "", noSignal)).toBe("written");
    const names = [...values.flatMap(({ name }, i) => (i % 7 === 0 ? [`absent:${i}`, name] : [name])), "absent"];
    const found = await store.getAll(names, 30_000, noSignal);
    const expected = new Map(values.map(({ name, bytes }) => [name, bytes.length <= 30_000 ? bytes : undefined]));
    expect(found).toHaveLength(names.length);
    for (const [i, name] of names.entries())
      expect(found[i]?.equals(expected.get(name)!) ?? undefined, name).toBe(expected.get(name) && true);
  });

  test("one of another length is gone, and leaves the memory alone", async () => {
    await using pool = await startPool();
    await using store = await openStore(pool.address);
    const bytes = randomBytes(5000);
    expect(await store.write([{ name: "a", bytes }], "", noSignal)).toBe("written");
    for (const length of [4999, 5001, 1, 100_000]) {
      const into = new Uint8Array(length);
      expect(await store.read("a", into, noSignal)).toBe("gone");
      expect(into.every((byte) => byte === 0)).toBe(true);
    }
    expect(await store.read("absent", new Uint8Array(5000), noSignal)).toBe("gone");
    const into = Buffer.alloc(5000);
    expect(await store.read("a", into, noSignal)).toBe("read");
    expect(into.equals(bytes)).toBe(true);
  });

  test("one that is written anew is the new one, whatever its length", async () => {
    await using pool = await startPool();
    await using one = await openStore(pool.address);
    await using two = await openStore(pool.address);
    for (const length of [3000, 3000, 5000, 100]) {
      const bytes = randomBytes(length);
      expect(await one.write([{ name: "a", bytes }], "", noSignal)).toBe("written");
      expect((await two.getAll(["a"], 10_000, noSignal))[0]?.equals(bytes)).toBe(true);
    }
  });

  test("a chunk that one host writes again and again, another host reads right or not at all", async () => {
    await using pool = await startPool();
    await using one = await open(pool.address);
    await using two = await open(pool.address);
    const known = [1, 2, 3].map((fill) => Buffer.alloc(200_000, fill));
    const record = recordOf(Uint32Array.from([77]), [known[0]!]);
    await stored(one, record, [known[0]!]);
    const writing = (async () => {
      for (let i = 0; i < 60; i += 1) await one.write(record, [known[i % 3]!], noSignal);
    })();
    const seen = { read: 0, not: 0 };
    const isOver = { now: false };
    void writing.then(() => (isOver.now = true));
    while (!isOver.now) {
      const [found] = await two.find(record.space, record.root, [record.key], noSignal);
      const into = Buffer.alloc(200_000);
      const outcome =
        found === undefined ? "none" : await two.read(found.id, record.key, [into], noSignal).catch(codeOf);
      if (outcome === "read") expect(known.some((each) => each.equals(into))).toBe(true);
      else expect(["none", "gone", "RECORD_CORRUPT"]).toContain(outcome);
      seen[outcome === "read" ? "read" : "not"] += 1;
    }
    await writing;
    expect(seen.read).toBeGreaterThan(0);
  });

  test("where all that there is is being read there is no room; no head without its pieces; and room again later", async () => {
    await using pool = await startPool({ bytes: 64 * 2 ** 20, leaseMs: 6000 });
    const store = await openStore(pool.address);
    await using tier = new ValueTier({ store, keys: [], prefix: "reprise:", maxRecordBytes });
    const kept: { record: ChunkRecord; payloads: [Buffer] }[] = [];
    let outcome: unknown;
    for (let i = 0; i < 80 && outcome !== "rejected"; i += 1) {
      const each = newRecord(2_000_000);
      outcome = await tier.write(each.record, each.payloads, noSignal);
      if (typeof outcome === "number")
        await expectReadable(tier, { ...each.record, id: outcome as RecordId }, each.payloads);
      kept.push(each);
    }
    expect(outcome).toBe("rejected");
    const { record, payloads } = kept.pop()!; // the one that was refused
    expect(await tier.find(record.space, record.root, [record.key], noSignal)).toEqual([]);
    const { record: last, payloads: lastPayloads } = kept.at(-1)!;
    const [found] = await tier.find(last.space, last.root, [last.key], noSignal);
    await expectReadable(tier, { ...last, id: found!.id }, lastPayloads);
    const write = () => tier.write(record, payloads, noSignal);
    await expect.poll(write, { timeout: 30_000, interval: 500 }).not.toBe("rejected");
  });

  test("a host may give memory itself, and takes leave of the master when it ends", async () => {
    const port = await freePort();
    const master = await startMaster(port);
    try {
      const address = `mooncake://127.0.0.1:${port}?python=${encodeURIComponent(python)}`;
      const giving = await openStore(`${address}&segment=64MiB`);
      await using other = await openStore(address);
      expect(await other.write([{ name: "a", bytes: randomBytes(1000) }], "", noSignal)).toBe("written");
      expect(await giving.read("a", new Uint8Array(1000), noSignal)).toBe("read");
      await giving[Symbol.asyncDispose]();
      expect(await other.read("a", new Uint8Array(1000), noSignal)).toBe("gone");
      expect(await other.write([{ name: "b", bytes: randomBytes(1000) }], "", noSignal)).toBe("full");
    } finally {
      await master.kill();
    }
  });
});

describe.skipIf(!isHere)("when something fails", { timeout: 60_000 }, () => {
  test.each(["the master", "the host that has the value", "Mooncake's client"])(
    "%s hangs: it is given up at the deadline, nothing comes later, and it is used again when it goes on",
    async (who) => {
      await using pool = await startPool();
      const store = await openStore(pool.address);
      await using tier = new ValueTier({ store, keys: [], prefix: "reprise:", maxRecordBytes });
      const { record, payloads } = newRecord();
      const id = await stored(tier, record, payloads);
      const pid = { "the master": pool.master.process.pid, "Mooncake's client": store.pid }[who] ?? pool.hosts[0]!.process.pid!; // prettier-ignore
      await halt(pid);
      const into = [new Uint8Array(100_000)];
      const began = performance.now();
      const works = [
        tier.read(id, record.key, into, AbortSignal.timeout(300)),
        tier.find(record.space, record.root, [record.key], AbortSignal.timeout(300)),
        tier.write(record, payloads, AbortSignal.timeout(300)),
      ];
      for (const work of works) await expect(work).rejects.toMatchObject({ code: "TIER_UNAVAILABLE" });
      expect(performance.now() - began).toBeLessThan(1500);
      payloads[0].fill(1); // what was to be written is the caller's again
      process.kill(pid, "SIGCONT");
      await sleep(500);
      expect(into[0]!.every((byte) => byte === 0)).toBe(true); // a late answer goes nowhere
      await expect.poll(() => writeAndRead(tier).then(() => "done", codeOf), { timeout: 20_000 }).toBe("done");
    },
  );

  test("a client that hangs for good is ended when half of its memory waits for it, and started again", async () => {
    await using pool = await startPool();
    await using store = await openStore(pool.address);
    const hanging = store.pid!;
    await halt(hanging);
    for (let i = 0; i < 8; i += 1)
      expect(await store.getAll(["a"], 10, AbortSignal.timeout(20)).catch(codeOf)).toBe("TIER_UNAVAILABLE");
    await connected(store);
    expect(store.pid).not.toBe(hanging);
    expect(isAlive(hanging)).toBe(false);
  });

  test("the master is killed: away, and not without what is asked for; started again it is used again, and all is gone", async () => {
    await using pool = await startPool();
    const store = await openStore(pool.address);
    await using tier = new ValueTier({ store, keys: [], prefix: "reprise:", maxRecordBytes });
    const { record, payloads } = newRecord();
    await stored(tier, record, payloads);
    await pool.master.kill();
    const find = () => tier.find(record.space, record.root, [record.key], AbortSignal.timeout(1000));
    await expect(find()).rejects.toMatchObject({ code: "TIER_UNAVAILABLE" });
    // Nobody's deadline, but Mooncake's own.
    await expect(store.getAll(["a"], 10, noSignal)).rejects.toThrow(/its master does not answer/);
    await expect(store.read("a", new Uint8Array(10), noSignal)).rejects.toThrow(/its master does not answer/);
    const client = store.pid;
    await pool.restartMaster();
    await expect.poll(() => find().catch(codeOf), { timeout: 20_000 }).toEqual([]);
    await expect.poll(() => writeAndRead(tier).then(() => "done", String), { timeout: 20_000 }).toBe("done");
    expect(store.pid).toBe(client);
  });

  test("a master that comes later than we do is used when it is there", async () => {
    const port = await freePort();
    const address = `mooncake://127.0.0.1:${port}?python=${encodeURIComponent(python)}`;
    await using store = new MooncakeStore(parseMooncakeAddress(address));
    const said = () => store.getAll(["a"], 10, noSignal).then(() => "", String);
    await expect.poll(said, { timeout: 15_000 }).toMatch(/Mooncake at 127\.0\.0\.1:\d+: .*refused/i);
    const master = await startMaster(port);
    try {
      await connected(store);
    } finally {
      await master.kill();
    }
  });

  test("Mooncake's client is killed: whoever waited is told, and it is started again", async () => {
    await using pool = await startPool();
    const store = await openStore(pool.address);
    await using tier = new ValueTier({ store, keys: [], prefix: "reprise:", maxRecordBytes });
    const { record, payloads } = newRecord();
    const id = await stored(tier, record, payloads);
    await halt(pool.master.process.pid!);
    const waiting = tier.read(id, record.key, [new Uint8Array(100_000)], noSignal);
    await sleep(50);
    process.kill(store.pid!, "SIGKILL");
    await expect(waiting).rejects.toMatchObject({ code: "TIER_UNAVAILABLE" });
    process.kill(pool.master.process.pid!, "SIGCONT");
    await connected(store);
    await expectReadable(tier, { ...record, id }, payloads);
  });

  test("one of two hosts is killed: what lay there is gone, the rest is read, and new values go to the other", async () => {
    await using pool = await startPool({ hosts: 2 });
    await using store = await openStore(pool.address);
    const values = Array.from({ length: 40 }, (_, i) => ({ name: `v:${i}`, bytes: randomBytes(50_000) }));
    expect(await store.write(values, "", noSignal)).toBe("written");
    await pool.hosts[0]!.kill();
    const outcomes = await Promise.all(values.map(({ name }) => store.read(name, new Uint8Array(50_000), noSignal)));
    expect(new Set(outcomes)).toEqual(new Set(["read", "gone"]));
    const again = async () =>
      (await store.write([{ name: "new", bytes: randomBytes(1000) }], "", noSignal).catch(codeOf)) as string;
    await expect.poll(again, { timeout: 20_000, interval: 300 }).toBe("written");
  });

  test("its process holds little more than the memory that we share, however much goes through", async () => {
    await using pool = await startPool({ bytes: 2 ** 28 });
    await using store = await openStore(pool.address);
    const bytes = randomBytes(4_000_000);
    for (let i = 0; i < 100; i += 1) {
      await store.write([{ name: `v:${i}`, bytes }], "", noSignal);
      await store.read(`v:${i}`, new Uint8Array(bytes.length), noSignal);
    }
    const kib = Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${store.pid}/status`, "utf8"))?.[1]);
    expect(kib).toBeLessThan(300 * 1024);
  });
});

/** Resolves when it stands still, with all of its threads. */
async function halt(pid: number): Promise<void> {
  process.kill(pid, "SIGSTOP");
  const isStill = () =>
    readdirSync(`/proc/${pid}/task`).every((thread) =>
      /^State:\tT/m.test(readFileSync(`/proc/${pid}/task/${thread}/status`, "utf8")),
    );
  await expect.poll(isStill).toBe(true);
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
