/**
 * How fast is another host's cache read? The peer tier beside raw TCP between the same two processes, over loopback.
 *
 *     npm run bench -- peer [--bytes 256MiB] [--chunk 2MiB] [--depth 8] [--rounds 5] [--host 127.0.0.1] [--kv bf16]
 *                           [--arms raw,plain,packed,tls]
 *
 * One process serves a cache whose chunks are in memory, this one reads them into slots of its pool with every checksum computed on both
 * sides. Raw TCP: the same process writes the same pages in pieces of 1 MiB, this one reads them into the same slots, and
 * nobody hashes. `packed` is `plain` with compress=lossless. Chunks hold real KV of the shipped model, of type f16, bf16 or q8_0. Who is first alternates; a first round is left out. Medians over the rounds, and processor time of both processes.
 * `lookup` is a text of 32,000 tokens that the host has, as the cache asks for it.
 */
import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { connect, createServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";
import { median } from "../src/bench/statistics.ts";
import { parseBytes } from "../src/bytes.ts";
import { Cache } from "../src/cache/cache.ts";
import { bareRoot, type ChunkKey, chunkKeys, rootKey } from "../src/identity/keys.ts";
import { opaqueSpace, spaceId } from "../src/identity/space.ts";
import { PeerTier } from "../src/peers/reading/peer-tier.ts";
import { PayloadPacker } from "../src/tiers/shared/packing.ts";
import { PeerServer } from "../src/peers/serving/peer-server.ts";
import { pageBytes } from "../src/pages.ts";
import { MemoryPool } from "../src/tiers/memory.ts";
import { noSignal } from "../src/tiers/tier-suite.ts";
import { kvTypes, realKv } from "./support/real-kv.ts";
import { microseconds, printLine, rounded, timesOf } from "./support/timing.ts";

const { values } = parseArgs({
  options: {
    bytes: { type: "string", default: "256MiB" },
    chunk: { type: "string", default: "2MiB" },
    depth: { type: "string", default: "8" },
    rounds: { type: "string", default: "5" },
    host: { type: "string", default: "127.0.0.1" },
    kv: { type: "string", default: "bf16" },
    arms: { type: "string", default: "raw,plain,packed,tls" },
    serve: { type: "string" },
  },
});
const kvType = values.kv as keyof typeof kvTypes;
if (!(kvType in kvTypes)) throw new Error(`--kv is one of ${Object.keys(kvTypes).join(", ")}`);
const chunkBytes = parseBytes(values.chunk);
const count = Math.ceil(parseBytes(values.bytes) / chunkBytes);
const totalBytes = count * chunkBytes;
const depth = Number(values.depth);
const chunkTokens = 64;
const rawPieceBytes = 1024 * 1024;
const space = opaqueSpace("bench", "00", chunkTokens);
const root = rootKey(spaceId(space), bareRoot);
const text = Uint32Array.from({ length: count * chunkTokens }, (_, i) => i + 1);
/** 500 chunks with small payloads, for lookups. */
const longText = Uint32Array.from({ length: 500 * chunkTokens }, (_, i) => 1_000_000 + i);
const token = "a token of the benchmark's own".replaceAll(" ", "-");

const allArms = ["raw", "plain", "packed", "tls"] as const;
type Arm = (typeof allArms)[number];
const arms = allArms.filter((arm) => values.arms.split(",").includes(arm));

if (values.serve === undefined) await read();
else await serve(values.serve);

interface Ports {
  readonly plain: number;
  readonly tls: number;
  readonly raw: number;
}

/** The other process: the cache that is read, and the raw sender. Answers each line with its processor time. */
async function serve(folder: string): Promise<void> {
  const kv = Buffer.concat(realKv("models/reprise-22m-q8_0.gguf", kvType, 2048));
  const wholePages = Math.floor(kv.length / pageBytes) * pageBytes;
  const pool = MemoryPool.open({ capacityBytes: 2 * totalBytes + 512 * 2 ** 20 });
  await using cache = await Cache.open({ pool, foundByKey: true });
  for (const [tokens, bytes] of [
    [text, chunkBytes],
    [longText, 4096],
  ] as const) {
    const session = cache.openSession({ space, rank: 0, slotBytes: [bytes] });
    for (;;) {
      const { parts } = await session.reserve(bareRoot, tokens, { deadlineMs: 1000 });
      if (parts.length === 0) break;
      for (const { slot, firstToken } of parts)
        for (let at = 0; at < bytes; at += pageBytes) {
          const from = (firstToken * pageBytes + at) % wholePages;
          pool.view(slot.offset + at, pageBytes).set(kv.subarray(from, from + pageBytes));
        }
      await session.commit(parts.map(({ lease }) => ({ lease, bytes })), { deadlineMs: 1000 }); // prettier-ignore
    }
  }
  const raw = createServer((socket) => {
    socket.once("data", () => {
      let at = 0;
      const next = () => {
        if (at >= totalBytes) return socket.end();
        const piece = pool.view(at, rawPieceBytes); // whatever lies there: chunks, as a rule
        at += rawPieceBytes;
        if (socket.write(piece)) next();
        else socket.once("drain", next);
        return undefined;
      };
      next();
    });
  }).listen(0, values.host);
  const [cert, key] = ["certificate.pem", "key.pem"].map((name) => readFileSync(join(folder, name)));
  const common = { cache, host: values.host, port: 0, token };
  const plain = await PeerServer.listen(common);
  const secure = await PeerServer.listen({ ...common, tls: { cert: cert!, key: key! } });
  const ports: Ports = { plain: plain.port, tls: secure.port, raw: (raw.address() as AddressInfo).port };
  process.stdout.write(`${JSON.stringify(ports)}\n`);
  for await (const _line of createInterface(process.stdin)) {
    const { user, system } = process.cpuUsage();
    process.stdout.write(`${(user + system) / 1e6}\n`);
  }
  await plain.close();
  await secure.close();
  raw.close();
}

interface Run {
  readonly MBps: number;
  /** Processor seconds a second: cores. */
  readonly readerCores: number;
  readonly serverCores: number;
}

async function read(): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "reprise-bench-peer-"));
  const how = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=bench".split(" ");
  const files = ["-keyout", join(folder, "key.pem"), "-out", join(folder, "certificate.pem")];
  execFileSync("openssl", [...how, "-addext", `subjectAltName=IP:${values.host}`, ...files], { stdio: "ignore" });
  const same = (["bytes", "chunk", "host", "kv"] as const).flatMap((name) => [`--${name}`, values[name]]);
  const child = spawn(process.execPath, ["scripts/run-ts.mjs", "bench/peer.ts", "--serve", folder, ...same], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
  const nextLine = async () => String((await lines.next()).value);
  const ports = JSON.parse(await nextLine()) as Ports;
  const serverCpu = async () => {
    child.stdin.write("\n");
    return Number(await nextLine());
  };

  const pool = MemoryPool.open({ capacityBytes: Math.max(64 * 2 ** 20, 2 * depth * chunkBytes) });
  const slots = Array.from({ length: depth }, () => pool.view(pool.allocate(chunkBytes) as number, chunkBytes));
  const keys = chunkKeys(root, text, chunkTokens);
  const address = { host: values.host, token };
  const packer = PayloadPacker.open();
  const tiers = {
    plain: new PeerTier({ hosts: [{ ...address, port: ports.plain, tls: undefined }] }),
    packed: new PeerTier({ hosts: [{ ...address, port: ports.plain, tls: undefined, compress: "lossless" }], packer }),
    tls: new PeerTier({
      hosts: [{ ...address, port: ports.tls, tls: { ca: readFileSync(join(folder, "certificate.pem")) } }],
    }),
  };
  for (const tier of Object.values(tiers))
    while (Object.values(tier.stats().hosts).includes("away")) await new Promise((resolve) => setTimeout(resolve, 10));

  const measured = async (work: () => Promise<void>): Promise<Run> => {
    const [server, reader, began] = [await serverCpu(), process.cpuUsage(), performance.now()];
    await work();
    const seconds = (performance.now() - began) / 1000;
    const { user, system } = process.cpuUsage(reader);
    return {
      MBps: totalBytes / seconds / 1e6,
      readerCores: (user + system) / 1e6 / seconds,
      serverCores: ((await serverCpu()) - server) / seconds,
    };
  };
  const runs: Record<Arm, Run[]> = { raw: [], plain: [], packed: [], tls: [] };
  for (let round = 0; round <= Number(values.rounds); round += 1)
    for (const arm of round % 2 === 0 ? arms : arms.toReversed())
      runs[arm].push(
        await measured(() => (arm === "raw" ? readRaw(ports.raw, slots) : readAll(tiers[arm], keys, slots))),
      );
  const figures = (arm: Arm) => ({
    ...Object.fromEntries(
      (["MBps", "readerCores", "serverCores"] as const).map((figure) => [
        figure,
        rounded(median(runs[arm].slice(1).map((run) => run[figure]))),
      ]),
    ),
    ...(arm !== "raw" &&
      runs.raw.length > 0 && {
        ofRaw: rounded(median(runs[arm].slice(1).map(({ MBps }, i) => MBps / runs.raw[i + 1]!.MBps))),
      }),
    ...(arm === "packed" && {
      ratio: rounded((runs.packed.length * totalBytes) / tiers.packed.stats().readStoredBytes),
    }),
  });
  const longKeys = chunkKeys(root, longText, chunkTokens);
  const lookup = microseconds(
    await timesOf(200, async () => {
      const found = await tiers.plain.find(spaceId(space), root, longKeys, noSignal);
      if (found.length !== longKeys.length) throw new Error(`${found.length} chunks were found`);
    }),
  );
  printLine(
    "peer",
    {
      ...Object.fromEntries(arms.map((arm) => [arm, figures(arm)])),
      lookup,
    },
    {
      host: values.host,
      kv: kvType,
      chunkBytes,
      totalBytes,
      depth,
      rounds: Number(values.rounds),
      lookupTokens: longText.length,
    },
  );
  for (const tier of Object.values(tiers)) await tier[Symbol.asyncDispose]();
  child.stdin.end();
  await pool[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true, force: true });
}

/** Every chunk once, `depth` of them at a time, each with a slot of its own. */
async function readAll(tier: PeerTier, keys: readonly ChunkKey[], slots: readonly Uint8Array[]): Promise<void> {
  const found = await tier.find(spaceId(space), root, keys, noSignal);
  if (found.length !== keys.length) throw new Error(`${found.length} chunks were found`);
  let next = 0;
  const readInto = async (slot: Uint8Array) => {
    for (let i = next++; i < keys.length; i = next++)
      if ((await tier.read(found[i]!.id, keys[i]!, [slot], noSignal)) !== "read") throw new Error("it is there");
  };
  await Promise.all(slots.map(readInto));
}

function readRaw(port: number, slots: readonly Uint8Array[]): Promise<void> {
  return new Promise((resolve, reject) => {
    let got = 0;
    const room = () => {
      const slot = slots[Math.floor(got / chunkBytes) % slots.length]!; // one of them
      const at = got % chunkBytes;
      return slot.subarray(at, Math.min(chunkBytes, at + rawPieceBytes));
    };
    const onread = {
      buffer: room,
      callback(bytes: number) {
        got += bytes;
        return true;
      },
    };
    const socket = connect({ host: values.host, port, onread }, () => socket.write("go"));
    socket.on("error", reject);
    socket.on("close", () => (got === totalBytes ? resolve() : reject(new Error(`${got} bytes came`))));
  });
}
