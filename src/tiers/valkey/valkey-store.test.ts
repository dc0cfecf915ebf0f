import { randomBytes } from "node:crypto";
import { rmSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { temporaryDirectory } from "../../../test/support/data-directory.ts";
import { kvSample, kvTypes } from "../../../test/support/kv-sample.ts";
import { makeCertificate, programs, startCluster, startSentinels, startStore } from "../../../test/support/valkey.ts";
import { codeOf } from "../../errors.ts";
import type { ChunkRecord } from "../../tier.ts";
import { PayloadPacker } from "../shared/packing.ts";
import { ValueTier } from "../shared/value-tier.ts";
import { expectReadable, noSignal, recordOf, stored, tierSuite } from "../tier-suite.ts";
import { parseValkeyAddress } from "./address.ts";
import { ValkeyStore } from "./valkey-store.ts";

const maxRecordBytes = 4 * 1024 * 1024;

/** A tier that is connected: what cannot be asked yet is a miss. */
async function open(address: string): Promise<ValueTier> {
  const parsed = parseValkeyAddress(address);
  const packer = PayloadPacker.open();
  const options = { keys: [], prefix: "reprise:", packer, compress: parsed.compress, maxRecordBytes };
  const tier = new ValueTier({ store: new ValkeyStore(parsed), ...options });
  await connected(tier);
  return tier;
}

async function connected(tier: ValueTier): Promise<void> {
  const { space, root, key } = recordOf(Uint32Array.from([0xabcdef]), [randomBytes(1)]);
  await expect.poll(() => tier.find(space, root, [key], noSignal).catch(codeOf), { timeout: 15_000 }).toEqual([]);
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

if (programs.length === 0) process.stderr.write("The Valkey tier is not tested: there is no redis-server.\n");

for (const { name, path } of programs)
  for (const compress of ["none", "lossless"])
    tierSuite(`a ${name} server, compress=${compress}`, async () => {
      const server = await startStore({}, path);
      return {
        capacityBytes: maxRecordBytes,
        open: () => open(`valkey://127.0.0.1:${server.port}?compress=${compress}`),
        dispose: async () => server[Symbol.asyncDispose](),
      };
    });

describe.skipIf(programs.length === 0)("a server", () => {
  test("every value ends by itself, a head before its pieces", async () => {
    await using server = await startStore();
    await using tier = await open(`valkey://127.0.0.1:${server.port}?ttl=2h`);
    const { record, payloads } = newRecord();
    await stored(tier, record, payloads);
    const names = (await server.command("KEYS", "*")) as string[];
    expect(names).toHaveLength(2);
    const lives = await Promise.all(names.map(async (name) => [name, await server.command("TTL", name)] as const));
    for (const [name, seconds] of lives) {
      const expected = name.endsWith(record.key) ? 7200 : 7800;
      expect(Number(seconds)).toBeGreaterThan(expected - 60);
      expect(Number(seconds)).toBeLessThanOrEqual(expected);
    }
  });

  test("real KV takes less of the store with compress=lossless, and any host reads it", async () => {
    await using server = await startStore();
    await using packing = await open(`valkey://127.0.0.1:${server.port}?compress=lossless`);
    await using plain = await open(`valkey://127.0.0.1:${server.port}`);
    const payloads = kvTypes.map(kvSample);
    const record = recordOf(Uint32Array.from([(number += 1)]), payloads);
    await stored(packing, record, payloads);
    const names = ((await server.command("KEYS", "*:*:*")) as string[]).toSorted();
    const bytes = await Promise.all(names.map(async (name) => Number(await server.command("STRLEN", name))));
    for (const [part, { length }] of payloads.entries()) expect(bytes[part]).toBeLessThan(length);
    expect(bytes.reduce((sum, each) => sum + each, 0)).toBe(packing.stats().writtenStoredBytes);
    for (const tier of [packing, plain]) {
      const [found] = await tier.find(record.space, record.root, [record.key], noSignal);
      await expectReadable(tier, { ...record, id: found!.id }, payloads);
    }
  });

  test("one at its memory limit refuses writes and goes on answering reads", async () => {
    await using server = await startStore({ maxmemory: "40mb", "maxmemory-policy": "noeviction" });
    await using tier = await open(`valkey://127.0.0.1:${server.port}`);
    const kept: { record: ChunkRecord; payloads: [Buffer] }[] = [];
    let outcome: unknown;
    for (let i = 0; i < 60; i += 1) {
      const each = newRecord(1_000_000);
      outcome = await tier.write(each.record, each.payloads, noSignal);
      if (outcome === "rejected") break;
      kept.push(each);
    }
    expect(outcome).toBe("rejected");
    for (const { record, payloads } of kept) {
      const [found] = await tier.find(record.space, record.root, [record.key], noSignal);
      await expectReadable(tier, { ...record, id: found!.id }, payloads);
    }
    // It is left alone for a while, then tried again.
    const asked = Number(/cmdstat_set:calls=(\d+)/.exec(String(await server.command("INFO", "commandstats")))?.[1]);
    const more = newRecord();
    expect(await tier.write(more.record, more.payloads, noSignal)).toBe("rejected");
    expect(String(await server.command("INFO", "commandstats"))).toContain(`cmdstat_set:calls=${asked}`);
    await server.command("CONFIG", "SET", "maxmemory", "200mb");
    await expect
      .poll(() => tier.write(more.record, more.payloads, noSignal), { timeout: 10_000, interval: 500 })
      .not.toBe("rejected");
  }, 30_000);

  test.each([
    ["with a disk that is full", "MISCONF"],
    ["with too few replicas", "NOREPLICAS"],
  ])("one %s refuses writes and goes on answering reads", async (_, code) => {
    await using server = await startStore();
    await using tier = await open(`valkey://127.0.0.1:${server.port}`);
    const { record, payloads } = newRecord();
    const id = await stored(tier, record, payloads);
    if (code === "MISCONF") {
      // What a disk without room does: a snapshot that cannot be written.
      await server.command("CONFIG", "SET", "save", "3600 1");
      rmSync(server.folder, { recursive: true });
      await server.command("BGSAVE");
      const failed = async () => String(await server.command("INFO", "persistence"));
      await expect.poll(failed).toContain("rdb_last_bgsave_status:err");
    } else await server.command("CONFIG", "SET", "min-replicas-to-write", "1");
    await expect(server.command("SET", "x", "y")).rejects.toThrow(code);
    const more = newRecord();
    expect(await tier.write(more.record, more.payloads, noSignal)).toBe("rejected");
    await expectReadable(tier, { ...record, id }, payloads);
  });

  test("one that we may only read, a replica or by our rights, refuses writes and goes on answering reads", async () => {
    await using server = await startStore();
    await using writer = await open(`valkey://127.0.0.1:${server.port}`);
    const { record, payloads } = newRecord();
    await stored(writer, record, payloads);
    await using replica = await startStore({ replicaof: `127.0.0.1|${server.port}`, "repl-diskless-sync-delay": "0" });
    await expect.poll(() => replica.command("DBSIZE"), { timeout: 10_000 }).toBe(2);
    const rights = ["+get", "+getrange", "+info", "+ping", "+hello", "+client"];
    await server.command("ACL", "SETUSER", "reader", "on", ">secret", "~reprise:*", "-@all", ...rights);
    for (const where of [`127.0.0.1:${replica.port}`, `reader:secret@127.0.0.1:${server.port}`]) {
      await using tier = await open(`valkey://${where}`);
      const more = newRecord();
      expect(await tier.write(more.record, more.payloads, noSignal)).toBe("rejected");
      const [found] = await tier.find(record.space, record.root, [record.key], noSignal);
      await expectReadable(tier, { ...record, id: found!.id }, payloads);
    }
  }, 30_000);

  test("one that hangs in the middle of a value is given up before the deadline", async () => {
    await using server = await startStore();
    await using tier = await open(`valkey://127.0.0.1:${server.port}`);
    const { record, payloads } = newRecord();
    const id = await stored(tier, record, payloads);
    server.process.kill("SIGSTOP");
    const began = performance.now();
    const read = tier.read(id, record.key, [new Uint8Array(100_000)], AbortSignal.timeout(30_000));
    await expect(read).rejects.toThrow("nothing was said for 5 s");
    expect(performance.now() - began).toBeLessThan(12_000);
    server.process.kill("SIGCONT");
    await expect.poll(() => tier.read(id, record.key, [new Uint8Array(100_000)], noSignal).catch(codeOf)).toBe("read");
  }, 30_000);

  test("of a wrong password, a user without rights or a wrong certificate the tier is away, and says why", async () => {
    await using server = await startStore({ requirepass: "right" });
    const said = async (address: string) => {
      const store = new ValkeyStore(parseValkeyAddress(address));
      await using tier = new ValueTier({ store, keys: [], prefix: "reprise:", maxRecordBytes });
      await sleep(300);
      const { record, payloads } = newRecord();
      return tier.write(record, payloads, noSignal).then(() => "written", (error: Error) => error.message); // prettier-ignore
    };
    expect(await said(`valkey://127.0.0.1:${server.port}`)).toMatch(/NOAUTH|unauthenticated/);
    expect(await said(`valkey://:wrong@127.0.0.1:${server.port}`)).toMatch(/WRONGPASS/);
    expect(await said("valkey://127.0.0.1:1")).toMatch(/^Valkey at 127\.0\.0\.1:1: .*ECONNREFUSED/);
    await using tier = await open(`valkey://:right@127.0.0.1:${server.port}`);
    await writeAndRead(tier);
  });

  test("a user of an ACL with just the commands that are needed", async () => {
    await using server = await startStore();
    const rights = [
      "+get",
      "+getrange",
      "+set",
      "+incrby",
      "+expire",
      "+info",
      "+ping",
      "+select",
      "+hello",
      "+client",
    ];
    await server.command("ACL", "SETUSER", "reprise", "on", ">secret", "~reprise:*", "-@all", ...rights);
    await using tier = await open(`valkey://reprise:secret@127.0.0.1:${server.port}?max=1GiB`);
    await writeAndRead(tier);
  });

  test("over TLS with the store's own certificate, and not without it", async () => {
    const { key, certificate } = makeCertificate(temporaryDirectory());
    const tls = { "tls-cert-file": certificate, "tls-key-file": key, "tls-ca-cert-file": certificate };
    await using server = await startStore({ "tls-port": "yes", ...tls, "tls-auth-clients": "no" });
    await using tier = await open(`valkeys://127.0.0.1:${server.port}?ca=${certificate}`);
    await writeAndRead(tier);
    const store = new ValkeyStore(parseValkeyAddress(`valkeys://127.0.0.1:${server.port}`));
    await using stranger = new ValueTier({ store, keys: [], prefix: "reprise:", maxRecordBytes });
    await sleep(500);
    const { record } = newRecord();
    await expect(stranger.find(record.space, record.root, [record.key], noSignal)).rejects.toMatchObject({
      code: "TIER_UNAVAILABLE",
    });
  });

  test("one that hangs is given up at the deadline, and used again when it goes on", async () => {
    await using server = await startStore();
    await using tier = await open(`valkey://127.0.0.1:${server.port}`);
    const { record, payloads } = newRecord();
    const id = await stored(tier, record, payloads);
    server.process.kill("SIGSTOP");
    const into = [new Uint8Array(100_000)];
    const began = performance.now();
    for (const work of [
      tier.find(record.space, record.root, [record.key], AbortSignal.timeout(300)),
      tier.read(id, record.key, into, AbortSignal.timeout(300)),
      tier.write(record, payloads, AbortSignal.timeout(300)),
    ])
      await expect(work).rejects.toMatchObject({ code: "TIER_UNAVAILABLE" });
    expect(performance.now() - began).toBeLessThan(2000);
    const untouched = into[0]!.slice();
    server.process.kill("SIGCONT");
    await sleep(200);
    expect(into[0]).toEqual(untouched); // a late answer goes nowhere
    await connected(tier);
    await writeAndRead(tier);
  }, 30_000);

  test("one that is killed and started again is used again", async () => {
    await using server = await startStore();
    await using tier = await open(`valkey://127.0.0.1:${server.port}`);
    await writeAndRead(tier);
    await server.kill();
    const { record } = newRecord();
    await expect(tier.find(record.space, record.root, [record.key], noSignal)).rejects.toMatchObject({
      code: "TIER_UNAVAILABLE",
    });
    await server.restart();
    await connected(tier);
    await writeAndRead(tier);
  }, 30_000);

  test("one tenant's writes end at its quota, and take nothing from another's", async () => {
    await using server = await startStore();
    const address = `valkey://127.0.0.1:${server.port}?max=3MiB&max-per-tenant=1MiB`;
    await using one = await open(address);
    await using two = await open(address);
    const write = async (tier: ValueTier, root: string) => {
      const { record, payloads } = newRecord();
      return (
        (await tier.write({ ...record, root: root.repeat(64) as ChunkRecord["root"] }, payloads, noSignal)) !==
        "rejected"
      );
    };
    let taken = 0;
    while (taken < 50 && (await write(taken % 2 === 0 ? one : two, "a"))) taken += 1;
    expect(taken).toBe(10); // of 100 kB
    expect(await write(two, "b")).toBe(true);
    const { where, quota } = two.stats();
    expect(where).toBe(`127.0.0.1:${server.port}`);
    expect(quota).toMatchObject({ limitBytes: 3 * 2 ** 20 });
    expect(quota?.usedBytes).toBeGreaterThan(100_000);
    expect(quota?.usedBytes).toBeLessThanOrEqual(3 * 2 ** 20);
  });

  test("where it is is told without secrets, and without a limit there is no quota", async () => {
    const at = (address: string) => new ValkeyStore(parseValkeyAddress(address));
    for (const [address, where] of [
      ["valkey://me:secret@127.0.0.1:1/3", "127.0.0.1:1/3"],
      ["valkeys://:secret@[::1]:1", "[::1]:1"],
      ["valkey+sentinel://:secret@127.0.0.1:1,127.0.0.1:2/mine", "mine of 127.0.0.1:1,127.0.0.1:2"],
    ] as const) {
      await using store = at(address);
      expect(store.where).toBe(where);
      expect(store.quota()).toBeUndefined();
    }
    await using limited = at("valkey://127.0.0.1:1?max=1GiB");
    expect(limited.quota()).toEqual({ limitBytes: 2 ** 30 }); // nobody has asked yet
  });
});

describe.skipIf(programs.length === 0)("several servers", () => {
  test("a cluster keeps what was written on all of its nodes", async () => {
    await using cluster = await startCluster();
    await using tier = await open(`valkey+cluster://127.0.0.1:${cluster.nodes[0]!.port}`);
    for (let i = 0; i < 20; i += 1) await writeAndRead(tier);
    for (const node of cluster.nodes) expect(Number(await node.command("DBSIZE"))).toBeGreaterThan(0);
  }, 60_000);

  test("after a failover the new primary is asked, with what the old one had", async () => {
    await using group = await startSentinels();
    const hosts = group.sentinels.map(({ port }) => `127.0.0.1:${port}`).join(",");
    await using tier = await open(`valkey+sentinel://${hosts}/mymaster`);
    const { record, payloads } = newRecord();
    const id = await stored(tier, record, payloads);
    await expect.poll(() => group.replica.command("DBSIZE")).toBe(2);
    await group.primary.kill();
    await expect
      .poll(() => tier.read(id, record.key, [new Uint8Array(100_000)], noSignal).catch(codeOf), { timeout: 30_000 })
      .toBe("read");
    await expect.poll(() => writeAndRead(tier).then(() => "done", codeOf), { timeout: 15_000 }).toBe("done");
  }, 90_000);
});
