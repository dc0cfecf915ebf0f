import { randomBytes } from "node:crypto";
import { afterAll, beforeEach, expect, test } from "vitest";
import { sequentialRequests, startFakeS3, type FakeS3 } from "../../../test/support/fake-s3.ts";
import { partOf, readText, textOf, writeText } from "../../../test/support/s3-texts.ts";
import { tierOf } from "../../../test/support/s3.ts";
import { codeOf } from "../../errors.ts";
import { chunkKey, type ChunkKey } from "../../identity/keys.ts";
import type { ChunkRecord } from "../../tier.ts";
import { TierKey } from "../shared/tier-keys.ts";
import { askedKeys, noSignal, stored } from "../tier-suite.ts";
import { decodeIndex } from "./index-object.ts";
import { isRunEnd } from "./run-ends.ts";

const fake = await startFakeS3();
afterAll(() => fake[Symbol.asyncDispose]());
beforeEach(() => {
  fake.objects.clear();
  fake.requests.length = 0;
  fake.meddle = () => undefined;
  fake.now = Date.now;
  fake.keepsConditions = true;
});

const namesOf = ({ objects }: FakeS3, folder: string) => [...objects.keys()].filter((name) => name.includes(folder));

/** A text whose only end of a run may be its last chunk. */
const inside = (chunks: number) => textOf(chunks, { hasEnds: false });

test("32 thousand tokens are found and read in two sequential round trips, or three where the text ends inside a run", async () => {
  const text = textOf(128);
  await writeText(tierOf(fake), text);
  fake.meddle = () => ({ delayMs: 150 });
  for (const [wanted, more, trips] of [
    [128, text, 2],
    [128, textOf(20, { before: text }), 3],
  ] as const) {
    fake.requests.length = 0;
    expect(await readText(tierOf(fake), more)).toBe(wanted);
    expect(sequentialRequests(fake.requests)).toBeLessThanOrEqual(trips);
  }
  // Requests are for runs, not for chunks.
  expect(fake.requests.length).toBeLessThan(60);
  expect(namesOf(fake, "/d/")).toHaveLength(1);
});

test("a text without a single end of a run is found by its last chunk, and by one that goes on", async () => {
  const text = textOf(100, { hasEnds: false });
  await writeText(tierOf(fake, { targetBytes: 10_000 }), text);
  expect(await readText(tierOf(fake), text)).toBe(100);
  expect(await readText(tierOf(fake), textOf(5, { before: text }))).toBe(100);
});

test("a store that gives more than indexes of the text can have is not listened to", async () => {
  const text = textOf(500);
  await writeText(tierOf(fake), text);
  const [{ space, root }] = text.records as [ChunkRecord];
  const keys = askedKeys(text.records);
  const given = (name: string) => fake.objects.get(name)!.bytes.length; // it is there
  const longest = Math.max(...namesOf(fake, "/i/").map(given));
  fake.requests.length = 0;
  expect(await tierOf(fake).find(space, root, keys, noSignal)).toHaveLength(500);
  // Each object has four megabytes now. Behind the first run, which may have begun before, nobody asks for more than there was.
  for (const name of namesOf(fake, "/i/")) fake.objects.get(name)!.bytes = randomBytes(4 * 1024 * 1024);
  const asked = fake.requests.map(({ name, range }) => ({ name, bytes: Number(/-(\d+)$/.exec(range!)![1]) + 1 }));
  const second = text.records.findIndex(({ key }) => isRunEnd(key)) + 1;
  const behind = new Set(text.records.slice(second).map(({ key }) => key));
  const laterOnes = asked.filter(({ name }) => behind.has(name.split("/").at(-1) as ChunkKey));
  expect(laterOnes.length).toBeGreaterThan(30);
  for (const { bytes } of laterOnes) expect(bytes).toBeLessThanOrEqual(longest);
  for (const { bytes } of asked) expect(bytes).toBeLessThan(256 * 600);
  expect(await tierOf(fake).find(space, root, keys, noSignal)).toEqual([]);
});

test("what nobody has is looked for in two round trips, of few requests", async () => {
  fake.meddle = () => ({ delayMs: 150 });
  const text = textOf(256);
  expect(await readText(tierOf(fake), text)).toBe(0);
  expect(sequentialRequests(fake.requests)).toBeLessThanOrEqual(2);
  expect(fake.requests.length).toBeLessThan(100);
  expect(new Set(fake.requests.map(({ name }) => name)).size).toBe(fake.requests.length); // none twice
});

test("a text that goes on is found, turn by turn, by whoever asks for it from any chunk on", async () => {
  let text = textOf(3);
  for (const host of [tierOf(fake), tierOf(fake)]) {
    for (let turn = 0; turn < 4; turn += 1) {
      const from = text.records.length;
      if (turn > 0 || host !== undefined) text = textOf(1 + turn * 2, { before: text });
      await writeText(host, from === 3 ? text : partOf(text, from, text.records.length));
      for (const asked of [0, 1, from - 1])
        expect(await readText(tierOf(fake), text, asked), `${asked} of ${from}`).toBe(text.records.length - asked);
    }
  }
});

test("an index tells of chunks that an earlier turn has stored: two round trips are enough", async () => {
  const text = inside(5);
  const host = tierOf(fake);
  await writeText(host, partOf(text, 0, 3));
  await writeText(host, partOf(text, 3, 5));
  expect(namesOf(fake, "/d/")).toHaveLength(2);
  fake.requests.length = 0;
  fake.meddle = () => ({ delayMs: 150 });
  expect(await readText(tierOf(fake), text)).toBe(5);
  expect(sequentialRequests(fake.requests)).toBeLessThanOrEqual(2);
});

test("a tail is found with what comes before it, and what comes before it without the tail", async () => {
  const text = inside(6);
  const start = partOf(text, 0, 4);
  const tier = tierOf(fake);
  const payload = [randomBytes(100)];
  const last = start.records[3]!;
  const tail = {
    ...textOf(1, { before: start }).records.at(-1)!,
    tokens: Uint32Array.from([7]),
    payloadBytes: [100],
  };
  const record = { ...tail, key: chunkKey(last.key, tail.tokens) };
  await Promise.all([writeText(tier, start), stored(tier, record, payload)]);
  expect(await readText(tierOf(fake), text)).toBe(4);
  const withTail = { records: [...start.records, record], payloads: [...start.payloads, payload] };
  fake.requests.length = 0;
  fake.meddle = () => ({ delayMs: 150 });
  expect(await readText(tierOf(fake), withTail)).toBe(5);
  expect(sequentialRequests(fake.requests)).toBeLessThanOrEqual(3);
});

test("texts that branch off inside of a run are found whole, and the next branch finds what they share", async () => {
  const trunk = inside(8);
  const shared = partOf(trunk, 0, 5);
  const host = tierOf(fake);
  await writeText(host, trunk);
  const branch = textOf(6, { before: shared });
  // The host has the first chunks stored, and writes what is new.
  await writeText(host, partOf(branch, 5, 11));
  expect(await readText(tierOf(fake), branch)).toBe(11);
  expect(await readText(tierOf(fake), textOf(6, { before: shared }))).toBe(5);
  expect(await readText(tierOf(fake), trunk)).toBe(8);
});

test("a branch that comes while the trunk is still gathered waits for it", async () => {
  const trunk = inside(8);
  const branch = textOf(3, { before: partOf(trunk, 0, 5) });
  const host = tierOf(fake);
  await Promise.all([writeText(host, trunk), writeText(host, partOf(branch, 5, 8))]);
  for (const text of [trunk, branch]) expect(await readText(tierOf(fake), text)).toBe(8);
});

test("hosts that compute one text at the same time leave nothing that no index names", async () => {
  const text = textOf(40);
  const hosts = [tierOf(fake), tierOf(fake), tierOf(fake)];
  await Promise.all(hosts.map((host) => writeText(host, text)));
  const named = namesOf(fake, "/i/").flatMap((name) => decodeIndex(fake.objects.get(name)!.bytes) ?? []);
  expect(new Set(namesOf(fake, "/d/"))).toEqual(new Set(named.map(({ data }) => `test/d/${data}`)));
  for (const host of [...hosts, tierOf(fake)]) expect(await readText(host, text)).toBe(40);
  // A host that comes later sends no payloads at all.
  fake.requests.length = 0;
  await writeText(tierOf(fake), text);
  expect(fake.requests.filter(({ method }) => method === "PUT")).toEqual([]);
});

test("a store without conditional writes keeps what was written last", async () => {
  fake.keepsConditions = false;
  const text = textOf(40);
  await Promise.all([tierOf(fake), tierOf(fake)].map((host) => writeText(host, text)));
  expect(await readText(tierOf(fake), text)).toBe(40);
});

test("payloads that have gone are a miss, and are found again when they were written anew", async () => {
  const text = inside(12);
  const host = tierOf(fake);
  await writeText(host, text);
  const other = tierOf(fake);
  for (const name of namesOf(fake, "/d/")) fake.objects.delete(name);
  expect(await readText(other, text)).toBe(0);
  // Only the chunks that were missed come again, one after the other, and the old indexes are still there.
  for (const i of text.records.keys()) await writeText(other, partOf(text, i, i + 1));
  for (const tier of [other, tierOf(fake)]) {
    // Those in the middle of a run are looked for under their own names.
    expect(await readText(tier, text)).toBe(12);
  }
});

test("a chunk that was lost and written anew is found by its own name, whatever older indexes say", async () => {
  const text = inside(9);
  await writeText(tierOf(fake, { targetBytes: 2500 }), text);
  const entries = namesOf(fake, "/i/").flatMap((name) => decodeIndex(fake.objects.get(name)!.bytes) ?? []);
  const reader = tierOf(fake);
  const holder = entries.find(({ head }) => head.includes(Buffer.from(text.records[4]!.key, "hex")))!;
  fake.objects.delete(`test/d/${holder.data}`);
  const left = await readText(reader, text);
  expect(left).toBeLessThan(5);
  for (const i of [3, 4, 5]) await writeText(reader, partOf(text, i, i + 1));
  expect(await readText(tierOf(fake), text)).toBe(9);
});

test("no wrong byte of any object gives a wrong payload", async () => {
  for (const keys of [[], [new TierKey(randomBytes(32))]]) {
    fake.objects.clear();
    const text = textOf(3);
    await writeText(tierOf(fake, { keys }), text);
    for (const [name, object] of new Map(fake.objects)) {
      const { bytes } = object;
      const places = [0, 8, 10, 13, 30, 36, 45, 60, 90, 250, 400, bytes.length - 1].filter((at) => at < bytes.length);
      for (const at of places) {
        const bent = Buffer.from(bytes);
        bent[at]! ^= 1 << (at % 8);
        fake.objects.set(name, { ...object, bytes: bent });
        const outcome = await readText(tierOf(fake, { keys }), text).catch(codeOf);
        expect(outcome === "RECORD_CORRUPT" || Number(outcome) <= 3, `${name} at ${at}: ${outcome}`).toBe(true);
      }
      fake.objects.set(name, { ...object, bytes: bytes.subarray(0, -1) });
      expect(await readText(tierOf(fake, { keys }), text).catch(codeOf)).not.toBe(3);
      fake.objects.set(name, object);
    }
    expect(await readText(tierOf(fake, { keys }), text)).toBe(3);
  }
});

test("an index put under another chunk's name, or of another root or space, tells nothing", async () => {
  const [text, other] = [textOf(1), textOf(1)];
  await writeText(tierOf(fake), text);
  const [name] = namesOf(fake, "/i/");
  fake.objects.set(`test/i/${other.records[0]!.key}`, fake.objects.get(name!)!);
  expect(await readText(tierOf(fake), other)).toBe(0);
  const [record] = text.records;
  for (const change of [{ root: other.records[0]!.key }, { space: other.records[0]!.key }])
    expect(await tierOf(fake).find({ ...record!, ...change }.space as never, { ...record!, ...change }.root as never, [record!.key], noSignal)).toEqual([]); // prettier-ignore
});

test("sealed: neither names nor objects tell anything of the text, and no two writings look alike", async () => {
  const keys = [new TierKey(randomBytes(32))];
  const text = textOf(20);
  const same = { ...text, payloads: text.payloads.map(([, b]) => [Buffer.alloc(1000, "the same KV "), b!]) };
  const seen: Buffer[] = [];
  for (let host = 0; host < 2; host += 1) {
    fake.objects.clear();
    await writeText(tierOf(fake, { keys }), same);
    for (const [name, { bytes }] of fake.objects)
      for (const { key, root, tokens } of text.records) {
        expect(name).not.toContain(key);
        for (const secret of [
          Buffer.from(key, "hex"),
          Buffer.from(root, "hex"),
          Buffer.from(tokens.buffer),
          "the same KV",
        ])
          expect(bytes.includes(secret)).toBe(false);
      }
    seen.push(...namesOf(fake, "/d/").map((name) => fake.objects.get(name)!.bytes.subarray(0, 64)));
    expect(await readText(tierOf(fake, { keys }), same)).toBe(20);
  }
  expect(new Set(seen.map((bytes) => bytes.toString("hex"))).size).toBe(seen.length);
  expect(await readText(tierOf(fake), same)).toBe(0);
  expect(await readText(tierOf(fake, { keys: [new TierKey(randomBytes(32))] }), same)).toBe(0);
  expect(await readText(tierOf(fake, { keys: [new TierKey(randomBytes(32)), ...keys] }), same)).toBe(20);
});

test("chunks that are not taken take with them what follows: it would not be found", async () => {
  const text = textOf(10);
  const host = tierOf(fake, { maxRecordBytes: 2000 });
  const large = textOf(1, { before: partOf(text, 0, 3), bytes: 3000 });
  const after = textOf(3, { before: large });
  await writeText(host, partOf(after, 0, 3));
  expect(await writeText(host, partOf(after, 3, 7))).toEqual(Array.from({ length: 4 }, () => "rejected"));
  expect(await readText(tierOf(fake), after)).toBe(3);
});

test("large chunks become objects of some MiB, found by the ends of runs all the same", async () => {
  const text = textOf(16, { bytes: 300_000 });
  await writeText(tierOf(fake, { targetBytes: 1_000_000 }), text);
  for (const name of namesOf(fake, "/d/")) expect(fake.objects.get(name)!.bytes.length).toBeLessThan(1_300_100);
  fake.meddle = () => ({ delayMs: 150 });
  fake.requests.length = 0;
  expect(await readText(tierOf(fake), text)).toBe(16);
  expect(sequentialRequests(fake.requests)).toBeLessThanOrEqual(3);
});

test("a write that is given up takes its run with it, and no more", async () => {
  const text = textOf(2);
  const host = tierOf(fake, { idleMs: 50 });
  const giveUp = new AbortController();
  const writes = text.records.map((record, i) =>
    host.write(record, text.payloads[i]!, i === 0 ? giveUp.signal : noSignal).catch(codeOf),
  );
  giveUp.abort();
  const outcomes = await Promise.all(writes);
  expect(outcomes[0]).toBe("TIER_UNAVAILABLE");
  expect(namesOf(fake, "/d/").length).toBeLessThanOrEqual(1);
  await writeText(host, text);
  expect(await readText(tierOf(fake), text)).toBe(2);
});
