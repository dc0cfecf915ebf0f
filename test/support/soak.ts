/** Random operations on a cache of real parts, with every invariant checked on the way. See bench/soak.ts. */
import { readFileSync } from "node:fs";
import { Cache } from "../../src/cache/cache.ts";
import { bareRoot } from "../../src/identity/keys.ts";
import type { CacheSession, LeaseId } from "../../src/session.ts";
import { MemoryPool } from "../../src/tiers/memory.ts";
import { testSpace, wait } from "./cache.ts";
import { seededRandom } from "./prompts.ts";

export interface SoakResult {
  readonly operations: number;
  readonly seconds: number;
  readonly checks: number;
  readonly savedChunks: number;
  readonly loadedChunks: number;
  readonly evictedChunks: number;
  readonly rejectedChunks: number;
  readonly resizes: number;
  /** Private memory, the pool's pages not counted: at the half and at the end. */
  readonly halfBytes: number;
  readonly endBytes: number;
  readonly rssSlopeBytesPerOperation: number;
}

interface Guest {
  readonly session: CacheSession;
  readonly reading: LeaseId[];
  writing: { lease: LeaseId; bytes: number }[];
}

/** Slots of a few KiB to a few MiB: size classes that take extents from each other. */
const slotSizes = [4096, 9000, 65_536, 300_000, 2_500_000];
const extentBytes = 64 * 2 ** 20;
const samples = 200;

export async function soak(options: { operations: number; seed: number }): Promise<SoakResult> {
  const random = seededRandom(options.seed);
  const below = (limit: number) => Math.floor(random() * limit);
  const pool = MemoryPool.open({ capacityBytes: 4 * extentBytes, maximumBytes: 8 * extentBytes });
  await using cache = await Cache.open({ pool });
  const open = (): Guest => {
    const kind = below(slotSizes.length);
    const space = testSpace({ weights: `0${kind}`, chunkTokens: 4 + 4 * kind });
    return { session: cache.openSession({ space, rank: 0, slotBytes: [slotSizes[kind]!] }), reading: [], writing: [] };
  };
  /** A text of a family: texts of one family share their beginnings. */
  const text = () => {
    const [family, fork, length] = [below(30), below(4), 1 + below(48)];
    return Uint32Array.from({ length }, (_, i) => (i < 12 ? family * 100 + i : family * 100 + fork * 10_000 + i));
  };
  const guests = Array.from({ length: 12 }, open);
  let loadedChunks = 0;
  let resizes = 0;

  const step = async (): Promise<void> => {
    const at = below(guests.length);
    const guest = guests[at]!; // below its length
    const { session } = guest;
    const what = random();
    if (what < 0.3) {
      for await (const batch of session.load(bareRoot, text(), 0, wait)) {
        loadedChunks += batch.length;
        guest.reading.push(...batch.map(({ lease }) => lease));
      }
    } else if (what < 0.6) {
      const { parts } = await session.reserve(bareRoot, text(), wait);
      guest.writing.push(...parts.map(({ lease, slot }) => ({ lease, bytes: 1 + below(slot.bytes) })));
    } else if (what < 0.85) {
      const written = guest.writing.splice(0, 1 + below(8));
      await session.commit(written, wait);
    } else if (what < 0.93) session.release(guest.reading.splice(0, 1 + below(40)));
    else if (what < 0.97) session.abandon(guest.writing.splice(0, below(4)).map(({ lease }) => lease));
    else if (what < 0.99) await session.lookup(bareRoot, text(), wait);
    else if (what < 0.9995) {
      await session.close();
      guests[at] = open();
    } else {
      resizes += 1;
      void cache.resize((1 + below(8)) * extentBytes); // while it goes on
    }
  };

  const memory: { operation: number; bytes: number }[] = [];
  const began = performance.now();
  let checks = 0;
  for (let operation = 0; operation < options.operations; operation += 1) {
    await step();
    const { usedBytes, capacityBytes } = pool.stats();
    if (usedBytes > capacityBytes) throw new Error(`${usedBytes} bytes in use of ${capacityBytes}`);
    if (operation % 20_000 === 0) {
      cache.check(); // free + used = total, for every extent; and that index, leases and pool agree
      checks += 1;
    }
    // Timers and the thread that allocates pages come in between, as in a server.
    if (operation % 500 === 0) await new Promise((resolve) => setImmediate(resolve));
    if (operation % Math.ceil(options.operations / samples) === 0) memory.push({ operation, bytes: privateBytes() });
  }
  const seconds = (performance.now() - began) / 1000;
  for (const { session } of guests) await session.close();
  cache.check();
  const second = memory.slice(memory.length >> 1);
  const { savedChunks, evictedChunks, rejectedChunks } = cache.stats();
  return {
    operations: options.operations,
    seconds: Number(seconds.toFixed(1)),
    checks: checks + 1,
    savedChunks,
    loadedChunks,
    evictedChunks,
    rejectedChunks,
    resizes,
    halfBytes: second[0]!.bytes, // there are samples
    endBytes: second.at(-1)!.bytes,
    rssSlopeBytesPerOperation: Number(slope(second.map(({ operation, bytes }) => [operation, bytes])).toFixed(3)),
  };
}

/** Resident memory that is this process's alone: the pool's pages are shared memory. */
function privateBytes(): number {
  const kibibytes = /RssAnon:\s+(\d+) kB/.exec(readFileSync("/proc/self/status", "utf8"))?.[1];
  return kibibytes === undefined ? process.memoryUsage.rss() : Number(kibibytes) * 1024;
}

/** Of the straight line that lies closest to the points (least squares). */
export function slope(points: readonly (readonly [x: number, y: number])[]): number {
  const mean = (values: number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const [middle, height] = [mean(points.map(([x]) => x)), mean(points.map(([, y]) => y))];
  const covariance = points.reduce((sum, [x, y]) => sum + (x - middle) * (y - height), 0);
  return covariance / points.reduce((sum, [x]) => sum + (x - middle) ** 2, 0);
}
