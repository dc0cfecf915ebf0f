/**
 * How long a lookup of a 32,000-token prompt takes that is stored whole, in chunks of 64 tokens.
 *
 *     npm run bench -- index-lookup [--tokens N] [--rounds N] [--write-gbps G] [--json FILE]
 *
 * Three figures: in the cache's process; through the unix socket from another process; and through the socket while a
 * third process saves chunks of 1 MiB into the pool, each written whole, one after the other at an even pace (1 GB/s unless
 * --write-gbps says otherwise). The cache also holds 20,000 other texts, so that the index is no toy. The first half of the
 * lookups is not counted: V8 compiles for three seconds, on threads that want the same two cores.
 */
import { fork, type ChildProcess } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { CountingPool } from "./eviction/counting-pool.ts";
import { answerOf } from "./support/child.ts";
import { Cache } from "../src/cache/cache.ts";
import { bareRoot } from "../src/identity/keys.ts";
import { type Tokens } from "../src/identity/tokens.ts";
import type { CacheSession } from "../src/session.ts";
import type { SpaceDescription } from "../src/identity/space.ts";
import { PoolMapping } from "../src/ffi/pool-mapping.ts";
import { MemoryPool } from "../src/tiers/memory.ts";
import { connectCache } from "../src/wire/guest/link.ts";
import { WireServer } from "../src/wire/cache/server.ts";
import { testSpace } from "../test/support/cache.ts";

const { values } = parseArgs({
  options: {
    role: { type: "string", default: "cache" },
    socket: { type: "string", default: "" },
    tokens: { type: "string", default: "32000" },
    rounds: { type: "string", default: "6000" },
    "write-gbps": { type: "string", default: "1" },
    json: { type: "string" },
  },
});
const tokenCount = Number(values.tokens);
const rounds = Number(values.rounds);
const wait = { deadlineMs: 10_000 };
const space: SpaceDescription = testSpace({ chunkTokens: 64 });
const otherSpace: SpaceDescription = testSpace({ chunkTokens: 64, engine: "writer" });
const slotBytes = 4096;
const writtenBytes = 2 ** 20;

if (values.role === "reader") await read();
else if (values.role === "writer") await write();
else await serve();

interface Figures {
  readonly p50: number;
  readonly p99: number;
  readonly max: number;
}

async function serve(): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "reprise-bench-"));
  const socketPath = join(folder, "s");
  const chunks = Math.ceil(tokenCount / 64);
  const result: Record<string, unknown> = { tokens: tokenCount, rounds };
  {
    await using cache = await Cache.open({ pool: new CountingPool(chunks + 40_000) });
    const session = cache.openSession({ space, rank: 0, slotBytes: [1] });
    await fill(session, 1);
    result["inProcess"] = await time(session);
  }
  const pool = MemoryPool.open({ capacityBytes: 768 * 2 ** 20 });
  await using cache = await Cache.open({ pool });
  await using _server = await WireServer.listen({ socketPath, cache });
  await fill(cache.openSession({ space, rank: 0, slotBytes: [slotBytes] }), slotBytes);
  result["socket"] = await answerOf(child("reader", socketPath));
  const writer = child("writer", socketPath);
  result["socketWhileWriting"] = await answerOf(child("reader", socketPath));
  writer.send("enough");
  result["writer"] = await answerOf(writer);
  cache.check();
  rmSync(folder, { recursive: true });
  console.log(JSON.stringify(result, null, 2));
  if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(result, null, 2)}\n`);
}

function prompt(): Tokens {
  return Uint32Array.from({ length: tokenCount }, (_, i) => Math.imul(i + 1, 2_654_435_761) >>> 15);
}

async function fill(session: CacheSession, bytes: number): Promise<void> {
  const texts = [
    prompt(),
    ...Array.from({ length: 20_000 }, (_, i) => Uint32Array.from({ length: 64 }, (_, at) => at * i)),
  ];
  for (const tokens of texts) {
    const { parts } = await session.reserve(bareRoot, tokens, wait);
    await session.commit(
      parts.map(({ lease }) => ({ lease, bytes })),
      wait,
    );
  }
}

async function time(session: CacheSession, pauseMs = 0): Promise<Figures> {
  const tokens = prompt();
  const micros: number[] = [];
  for (let i = 0; i < rounds; i += 1) {
    const started = performance.now();
    const { hitTokens } = await session.lookup(bareRoot, tokens, wait);
    micros.push((performance.now() - started) * 1000);
    if (hitTokens !== tokenCount) throw new Error(`${hitTokens} of ${tokenCount} tokens were found`);
    if (pauseMs > 0) await new Promise((resolve) => setTimeout(resolve, pauseMs));
  }
  const sorted = micros.slice(rounds >> 1).toSorted((a, b) => a - b);
  const at = (share: number) => Math.round(sorted[Math.floor(share * (sorted.length - 1))]!); // not empty
  return { p50: at(0.5), p99: at(0.99), max: at(1) };
}

async function read(): Promise<void> {
  const session = await connectCache({ space, rank: 0, slotBytes: [slotBytes], socketPath: values.socket });
  process.send!(await time(session, 1)); // a child has a channel
  await session.close();
  process.disconnect();
}

/** Saves chunks at the rate asked for, each filled whole, until it is told that this is enough. */
async function write(): Promise<void> {
  const session = await connectCache({
    space: otherSpace,
    rank: 0,
    slotBytes: [writtenBytes],
    socketPath: values.socket,
  });
  const mapping = PoolMapping.open(session.pool.path, session.pool.bytes);
  const payload = new Uint8Array(writtenBytes).fill(7);
  const bytesPerMs = Number(values["write-gbps"]) * 1e6;
  const enough = new AbortController();
  process.once("message", () => enough.abort());
  const started = performance.now();
  let written = 0;
  for (let text = 0; !enough.signal.aborted; text += 1) {
    const tokens = Uint32Array.from({ length: 64 * 16 }, (_, i) => text * 1024 + i);
    const { parts } = await session.reserve(bareRoot, tokens, wait);
    for (const { slot } of parts) {
      mapping.slot(slot.offset, writtenBytes).set(payload);
      written += writtenBytes;
      const aheadMs = written / bytesPerMs - (performance.now() - started);
      if (aheadMs > 0) await new Promise((resolve) => setTimeout(resolve, aheadMs));
    }
    await session.commit(
      parts.map(({ lease }) => ({ lease, bytes: writtenBytes })),
      wait,
    );
  }
  process.send!({ gigabytesPerSecond: Number((written / 1e6 / (performance.now() - started)).toFixed(2)) }); // a child has a channel
  mapping.close();
  await session.close();
  process.disconnect();
}

function child(role: "reader" | "writer", socketPath: string): ChildProcess {
  const args = ["--role", role, "--socket", socketPath, "--tokens", values.tokens, "--rounds", values.rounds];
  return fork(fileURLToPath(import.meta.url), [...args, "--write-gbps", values["write-gbps"]]);
}
