/**
 * What does a bucket give and take? A text is written by one host and found and read by another, beside plain objects of the same
 * bytes: through the same client, through Node's fetch, and through bare connections of `node:http` (both of these without signing and
 * checking anything, and so only where the store asks for no keys).
 *
 *     npm run bench -- bucket [--tier 's3://BUCKET/PREFIX?endpoint=…'] [--latency 20] [--chunks 128] [--chunk 1MiB] [--target 16MiB]
 *                             [--depth 16] [--rounds 3]
 *
 * Without `--tier` the store is the tests' fake in a process of its own, which answers every request `--latency` milliseconds late. Keys
 * come from the environment. Medians over the rounds; requests are those of one round, by kind, and per GiB written and read; `…Cores` are
 * this process's. Who is first alternates.
 */
import { fork } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { Agent, type IncomingMessage, request } from "node:http";
import { parseArgs } from "node:util";
import { median } from "../src/bench/statistics.ts";
import { parseBytes } from "../src/bytes.ts";
import { parseS3Address, type S3Address } from "../src/tiers/s3/address.ts";
import { S3Client } from "../src/tiers/s3/s3-client.ts";
import { S3Tier } from "../src/tiers/s3/s3-tier.ts";
import { noSignal, recordOf } from "../src/tiers/tier-suite.ts";
import type { ChunkRecord } from "../src/tier.ts";
import { startFakeS3 } from "../test/support/fake-s3.ts";
import { printLine, rounded } from "./support/timing.ts";

const { values } = parseArgs({
  options: {
    tier: { type: "string", default: "" },
    latency: { type: "string", default: "20" },
    chunks: { type: "string", default: "128" },
    chunk: { type: "string", default: "1MiB" },
    target: { type: "string", default: "16MiB" },
    depth: { type: "string", default: "16" },
    rounds: { type: "string", default: "3" },
  },
});
const [chunks, chunkBytes, depth] = [Number(values.chunks), parseBytes(values.chunk), Number(values.depth)];
const totalBytes = chunks * chunkBytes;
/** Texts of their own for every run: a bucket remembers. */
let token = randomBytes(3).readUIntLE(0, 3) * 200;

if (process.send === undefined) await measure();
else await serve();

async function measure(): Promise<void> {
  const store = values.tier === "" ? fork(import.meta.filename, process.argv.slice(2)) : undefined;
  const port = store === undefined ? 0 : ((await once(store, "message")) as [number])[0];
  const text = values.tier === "" ? `s3://bench-bucket?endpoint=http://127.0.0.1:${port}&anonymous=yes` : values.tier;
  const address = parseS3Address(text);
  const open = () => new S3Tier({ ...address, client: new S3Client(address), keys: [], maxRecordBytes: 2 ** 30, targetBytes: parseBytes(values.target) }); // prettier-ignore
  const rounds: Record<string, number>[] = [];
  for (let round = 0; round <= Number(values.rounds); round += 1) {
    const arms = [
      () => tierRound(open),
      () => plainRound("plain", clientOf(new S3Client(address))),
      ...(address.login === "anonymous" ? bareArms(address) : []),
    ];
    const figures: Record<string, number> = {};
    for (const arm of round % 2 === 0 ? arms : arms.toReversed()) Object.assign(figures, await arm());
    if (round > 0) rounds.push(figures); // the first one connects
  }
  const medians = Object.fromEntries(
    Object.keys(rounds[0]!).map((name) => [name, rounded(median(rounds.map((each) => each[name]!)))]), // one at least
  );
  const place = values.tier === "" ? `fake, ${values.latency} ms` : address.url;
  printLine("bucket", medians, { store: place, chunks, chunkBytes, target: values.target, depth });
  store?.kill();
}

async function tierRound(open: () => S3Tier): Promise<Record<string, number>> {
  const records: ChunkRecord[] = [];
  const payload = randomBytes(chunkBytes);
  for (let i = 0; i < chunks; i += 1)
    records.push(
      recordOf(
        Uint32Array.from({ length: 256 }, () => (token += 1)),
        [payload],
        records.at(-1),
      ),
    );
  const { space, root } = records[0]!;
  const writer = open();
  const cpuWriting = process.cpuUsage();
  const beganWriting = performance.now();
  await Promise.all(records.map((record) => writer.write(record, [payload], noSignal)));
  // The last run waits for more: that is no part of the store's speed.
  const writeMs = performance.now() - beganWriting;
  const writeCores = coresSince(cpuWriting, writeMs);
  const { put, get } = writer.stats().requests;
  await writer[Symbol.asyncDispose]();

  const reader = open();
  const beganFinding = performance.now();
  const found = await reader.find(space, root, records.map(({ key }) => key), noSignal); // prettier-ignore
  const findMs = performance.now() - beganFinding;
  const finds = reader.stats().requests.get;
  const cpuReading = process.cpuUsage();
  const beganReading = performance.now();
  await side(depth, found, async ({ id }, i) => {
    const into = [new Uint8Array(chunkBytes)];
    if ((await reader.read(id, records[i]!.key, into, noSignal)) !== "read") throw new Error("a chunk is gone");
  });
  const readMs = performance.now() - beganReading;
  const readCores = coresSince(cpuReading, readMs);
  const reads = reader.stats().requests.get - finds;
  await reader[Symbol.asyncDispose]();
  if (found.length !== chunks) throw new Error(`${found.length} of ${chunks} chunks were found`);
  const gib = totalBytes / 2 ** 30;
  return {
    writeMBps: mbps(writeMs),
    writeCores,
    findMs,
    readMBps: mbps(readMs),
    readCores,
    findRequests: finds,
    readRequests: reads,
    putsPerGiB: put / gib,
    getsPerGiBWritten: get / gib,
    getsPerGiBRead: (finds + reads) / gib,
  };
}

/** Whoever moves plain objects. */
interface Mover {
  put(name: string, object: Buffer): Promise<void>;
  read(name: string, into: Buffer): Promise<void>;
  close(): void;
}

function clientOf(client: S3Client): Mover {
  return {
    put: async (name, object) => void (await client.put(name, [object], { ifAbsent: false }, noSignal)),
    async read(name, into) {
      let at = 0;
      const sink = (piece: Buffer) => {
        into.set(piece, at);
        at += piece.length;
      };
      await client.read(name, { from: 0, bytes: into.length, makeSink: () => sink }, noSignal);
    },
    close: () => client.close(),
  };
}

function bareArms({ url, style, bucket, prefix }: S3Address): (() => Promise<Record<string, number>>)[] {
  const at = (name: string) => `${url}/${style === "path" ? `${bucket}/` : ""}${prefix}/${name}`;
  const fetching: Mover = {
    async put(name, object) {
      const answer = await fetch(at(name), { method: "PUT", body: new Uint8Array(object) });
      await answer.arrayBuffer();
      if (!answer.ok) throw new Error(`PUT was answered with ${answer.status}`);
    },
    async read(name, into) {
      const answer = await fetch(at(name));
      into.set(new Uint8Array(await answer.arrayBuffer()));
    },
    close: () => {},
  };
  const agent = new Agent({ keepAlive: true });
  const asked = (name: string, method: string, body?: Buffer) =>
    new Promise<IncomingMessage>((resolve, reject) => {
      const headers = body === undefined ? {} : { "content-length": body.length };
      request(at(name), { method, agent, headers }, resolve).on("error", reject).end(body);
    });
  const bare: Mover = {
    put: async (name, object) => void (await (await asked(name, "PUT", object)).resume().toArray()),
    async read(name, into) {
      let offset = 0;
      for await (const piece of await asked(name, "GET")) {
        into.set(piece as Buffer, offset); // no encoding is set
        offset += (piece as Buffer).length;
      }
    },
    close: () => agent.destroy(),
  };
  return [() => plainRound("fetch", fetching), () => plainRound("http", bare)];
}

/** Objects of 16 MiB, as many at a time. */
async function plainRound(who: string, mover: Mover): Promise<Record<string, number>> {
  const object = randomBytes(16 * 2 ** 20);
  const names = Array.from({ length: Math.max(1, Math.round(totalBytes / object.length)) }, (_, i) => `d/${who}${i}`);
  const bytes = names.length * object.length;
  const beganWriting = performance.now();
  await side(depth, names, (name) => mover.put(name, object));
  const writeMs = performance.now() - beganWriting;
  const beganReading = performance.now();
  await side(depth, names, (name) => mover.read(name, Buffer.alloc(object.length)));
  const readMs = performance.now() - beganReading;
  mover.close();
  return { [`${who}WriteMBps`]: bytes / 1e3 / writeMs, [`${who}ReadMBps`]: bytes / 1e3 / readMs };
}

/** Of this process, since `began` of both clocks. */
function coresSince({ user, system }: NodeJS.CpuUsage, ms: number): number {
  const now = process.cpuUsage();
  return (now.user + now.system - user - system) / 1000 / ms;
}

function mbps(ms: number): number {
  return totalBytes / 1e3 / ms;
}

/** So many at a time. */
async function side<T>(atATime: number, all: readonly T[], work: (each: T, i: number) => Promise<void>): Promise<void> {
  let next = 0;
  const worker = async () => {
    for (let i = next++; i < all.length; i = next++) await work(all[i]!, i);
  };
  await Promise.all(Array.from({ length: atATime }, worker));
}

async function serve(): Promise<void> {
  const fake = await startFakeS3();
  fake.meddle = () => ({ delayMs: Number(values.latency) });
  process.send!(fake.port); // forked
}
