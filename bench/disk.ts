/**
 * Is the disk used as fast as it is? A text's payloads written behind and loaded again by the cache with its disk tier,
 * against plain writes and reads of the same bytes, in pieces of the same size and with as many under way, in the same run.
 *
 *     npm run bench -- disk [--directory DIR] [--bytes 256MiB]
 *
 * Writing ends with all bytes forced to the disk, for both. Reading is from the system's page cache, for both, since all was
 * written just before: what it measures is our own cost over that of reading. Both sides make and check what they must:
 * the cache checksums and headers, the plain side nothing. Three passes by turns; medians.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { open } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { median } from "../src/bench/statistics.ts";
import { formatBytes, parseBytes } from "../src/bytes.ts";
import { Cache } from "../src/cache/cache.ts";
import { bareRoot } from "../src/cache/chunk.ts";
import { DiskTier } from "../src/tiers/disk/disk-tier.ts";
import { counting, testPool, testSpace } from "../test/support/cache.ts";
import { printLine, rounded } from "./support/timing.ts";

const { values } = parseArgs({
  options: { directory: { type: "string", default: tmpdir() }, bytes: { type: "string", default: "256MiB" } },
});
const chunkTokens = 64;
const payloadBytes = 2 ** 20;
const chunks = Math.max(1, Math.floor(parseBytes(values.bytes) / payloadBytes));
const totalBytes = chunks * payloadBytes;
/** What one write call of the disk tier takes at most, and one is under way at a time. */
const groupBytes = 16 * 2 ** 20;
/** Chunks that a load reads at a time: the one that is waited for and those ahead of it. */
const readDepth = 5;
const passes = 3;
const wait = { deadlineMs: 600_000 };

const directory = mkdtempSync(join(values.directory, "reprise-bench-disk-"));
const seconds = {
  writeBehind: [] as number[],
  load: [] as number[],
  plainWrite: [] as number[],
  plainRead: [] as number[],
};
try {
  for (let pass = 0; pass < passes; pass += 1) {
    for (const side of pass % 2 === 0 ? [cacheSide, plainSide] : [plainSide, cacheSide]) {
      await side(join(directory, `${side.name}-${pass}`));
    }
  }
} finally {
  rmSync(directory, { recursive: true, force: true });
}

const rate = (times: readonly number[]) => totalBytes / median(times) / 1e6;
const [written, plainWritten] = [rate(seconds.writeBehind), rate(seconds.plainWrite)];
const [loaded, plainRead] = [rate(seconds.load), rate(seconds.plainRead)];
printLine(
  "disk",
  {
    writeBehindMBps: rounded(written),
    plainWriteMBps: rounded(plainWritten),
    writeRatio: rounded(written / plainWritten),
    loadMBps: rounded(loaded),
    plainReadMBps: rounded(plainRead),
    loadRatio: rounded(loaded / plainRead),
  },
  { directory: values.directory, total: formatBytes(totalBytes), payloadBytes, groupBytes, readDepth, passes },
);

async function cacheSide(path: string): Promise<void> {
  const tokens = counting(chunks * chunkTokens);
  const session = { space: testSpace({ chunkTokens }), rank: 0, slotBytes: payloadBytes };
  const openCache = async () => {
    const pool = testPool(2 * totalBytes);
    const tiers = [await DiskTier.open({ directory: path, capacityBytes: 4 * totalBytes + groupBytes })];
    const cache = await Cache.open({ pool, tiers, writeBehindBytes: totalBytes });
    return { pool, cache, guest: cache.openSession(session) };
  };

  const first = await openCache();
  const { chunks: reserved } = await first.guest.reserve(bareRoot, tokens, wait);
  if (reserved.length !== chunks) throw new Error(`${reserved.length} of ${chunks} chunks have a place in the pool`);
  for (const { slot, firstToken } of reserved) fill(first.pool.view(slot.offset, payloadBytes), firstToken);
  seconds.writeBehind.push(
    await secondsOf(async () => {
      await first.guest.commit(
        reserved.map(({ lease }) => ({ lease, bytes: payloadBytes })),
        wait,
      );
      await first.cache.flush();
    }),
  );
  await first.cache.close();

  const second = await openCache(); // with an empty pool
  seconds.load.push(
    await secondsOf(async () => {
      let loaded = 0;
      for await (const batch of second.guest.load(bareRoot, tokens, 0, wait)) {
        for (const { tier } of batch) if (tier !== "disk") throw new Error(`a chunk came from ${tier}`);
        loaded += batch.length;
        second.guest.release(batch.map(({ lease }) => lease));
      }
      if (loaded !== chunks) throw new Error(`${loaded} of ${chunks} chunks were loaded`);
    }),
  );
  await second.cache.close();
}

async function plainSide(path: string): Promise<void> {
  const group = Buffer.alloc(Math.min(groupBytes, totalBytes));
  fill(group, 0);
  const file = await open(path, "wx+");
  seconds.plainWrite.push(
    await secondsOf(async () => {
      for (let at = 0; at < totalBytes; at += group.length) {
        await file.write(group, 0, Math.min(group.length, totalBytes - at), at);
      }
      await file.datasync();
    }),
  );
  const into = testPool(2 * totalBytes); // read into the same kind of memory
  const slots = Array.from({ length: chunks }, () => into.allocate(payloadBytes));
  let next = 0;
  const reader = async () => {
    for (let chunk = next++; chunk < chunks; chunk = next++) {
      const slot = slots[chunk];
      if (typeof slot !== "number") throw new Error("the pool is smaller than it should be");
      await file.read(into.view(slot, payloadBytes), 0, payloadBytes, chunk * payloadBytes);
    }
  };
  seconds.plainRead.push(await secondsOf(() => Promise.all(Array.from({ length: readDepth }, reader))));
  await file.close();
  await into[Symbol.asyncDispose]();
}

async function secondsOf(work: () => Promise<unknown>): Promise<number> {
  const started = performance.now();
  await work();
  return (performance.now() - started) / 1000;
}

/** Bytes that no file system can leave out. */
function fill(bytes: Uint8Array, seed: number): void {
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
  let state = (seed + 1) >>> 0;
  for (let index = 0; index < words.length; index += 1) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    words[index] = state;
  }
}
