/** Two guests do random work over a small pool and a disk that lies: what is found is always what was saved. */
import * as fc from "fast-check";
import { expect, test } from "vitest";
import {
  loadAll,
  type SlotMemory,
  temporaryFolder,
  testPool,
  testSpace,
  text,
  wait,
} from "../../test/support/cache.ts";
import { rounds, seedOr, timeoutMs } from "../../test/support/depth.ts";
import { filesThrough } from "../../test/support/disk.ts";
import { DiskTier } from "../tiers/disk/disk-tier.ts";
import { leavesOf } from "../tiers/payload-checksum.ts";
import type { DiskFile, DiskFiles } from "../tiers/disk/files.ts";
import { Cache } from "./cache.ts";
import { bareRoot } from "../identity/keys.ts";
import type { GroupKind } from "../identity/space.ts";
import { tokenBytes, tokensFromBytes, type Tokens } from "../identity/tokens.ts";
import type { CacheSession, LoadedPart } from "../session.ts";

/** Sixteen slots fill the smallest pool. */
const slotBytes = 4 * 1024 * 1024;

/** A payload that says whose it is: the rank and the group, then every token of the text up to the chunk's end. */
async function saveSelfDescribing(session: CacheSession, pool: SlotMemory, tokens: Tokens, rank: number) {
  const { parts } = await session.reserve(bareRoot, tokens, wait);
  const written = parts.map(({ lease, group, firstToken, tokenCount, slot }) => {
    const payload = tokenBytes(Uint32Array.from([rank, group, ...tokens.subarray(0, firstToken + tokenCount)]));
    pool.view(slot.offset, payload.length).set(payload);
    return { lease, bytes: payload.length };
  });
  await session.commit(written, wait);
}

/** Files that damage every seventh read and fail every eleventh write. */
function unreliable(): DiskFiles {
  let reads = 0;
  let writes = 0;
  const wrap = (file: DiskFile): DiskFile => ({
    ...file,
    read: async (into, position) => {
      const answer = await file.read(into, position);
      const last = into.at(-1)!;
      if ((reads += 1) % 7 === 0) last[last.length >> 1]! ^= 4;
      return { ...answer, leaves: into.map(leavesOf) };
    },
    write: async (pieces, position, headers) => {
      if ((writes += 1) % 11 === 0) throw new Error("EIO");
      await file.write(pieces, position, headers);
    },
  });
  return filesThrough(wrap);
}

const modelStep = fc.record({
  kind: fc.constantFrom(
    "save",
    "save",
    "save",
    "load",
    "load",
    "hold",
    "draft",
    "release",
    "close",
    "flush",
    "restart",
  ),
  tokens: fc.array(fc.integer({ min: 0, max: 2 }), { minLength: 1, maxLength: 9 }),
  who: fc.nat(1),
});

/**
 * Two guests (of one rank, or of two) save, read, hold and vanish over a pool of sixteen slots and a disk that lies. After
 * each step: no load gave another text's bytes, what is held is untouched, and the books are in order.
 */
async function runModel(
  { ranks, groups, wordTokens = 1 }: { ranks: number; groups: readonly GroupKind[]; wordTokens?: number },
  steps: readonly { kind: string; tokens: number[]; who: number }[],
): Promise<void> {
  using folder = temporaryFolder();
  const space = testSpace({ chunkTokens: 2 * wordTokens, tensorParallel: ranks, groups });
  const files = unreliable();
  const open = async () => {
    const tier = await DiskTier.open({ drives: [{ directory: folder.path, capacityBytes: 1024 * 1024 }], files });
    const pool = testPool();
    return { pool, cache: await Cache.open({ pool, tiers: [tier], foundByKey: true, anywhere: true, retryMs: 1 }) };
  };
  const enter = (who: number) =>
    cache.openSession({ space, rank: who % ranks, slotBytes: groups.map(() => slotBytes) });
  let { pool, cache } = await open();
  let sessions = [enter(0), enter(1)];
  let held: { session: CacheSession; chunk: LoadedPart; text: number[] }[] = [];
  const contents = ({ slot }: LoadedPart) => [...tokensFromBytes(pool.view(slot.offset, slot.bytes))];

  for (const { kind, tokens: words, who } of steps) {
    const tokens = words.flatMap((word) => Array.from({ length: wordTokens }, (_, i) => word * wordTokens + i));
    const session = sessions[who]!;
    const wanted = text(...tokens);
    if (kind === "save") await saveSelfDescribing(session, pool, wanted, who % ranks);
    if (kind === "draft") await session.reserve(bareRoot, wanted, wait);
    if (kind === "flush") await cache.flush().catch(() => {});
    if (kind === "load" || kind === "hold") {
      const loaded = await loadAll(session, wanted);
      for (const chunk of loaded) {
        const stored = contents(chunk);
        const end = chunk.target + chunk.take;
        expect(stored).toHaveLength(2 + chunk.firstToken + chunk.tokenCount);
        expect(stored.slice(0, 2 + end)).toEqual([who % ranks, chunk.group, ...tokens.slice(0, end)]);
        if (groups[chunk.group] === "snapshot") {
          expect(end, "a snapshot is of its whole chunk").toBe(chunk.firstToken + chunk.tokenCount);
          expect(end, "and of the last").toBe(loaded.at(-1)!.target + loaded.at(-1)!.take);
        }
        if (kind === "hold") held.push({ session, chunk, text: stored });
        else session.release([chunk.lease]);
      }
    }
    if (kind === "release") for (const { session, chunk } of held.splice(0)) session.release([chunk.lease]);
    if (kind === "close") {
      await session.close();
      held = held.filter((one) => one.session !== session);
      sessions[who] = enter(who);
    }
    if (kind === "restart") {
      await cache.close();
      ({ pool, cache } = await open());
      sessions = [enter(0), enter(1)];
      held = [];
    }
    for (const { session, chunk, text } of held) {
      expect(session.holds(chunk.lease)).toBe(true);
      expect(contents(chunk)).toEqual(text);
    }
    cache.check();
  }
  await cache.close();
}

test.each([
  { ranks: 1, groups: ["rows"] },
  { ranks: 1, groups: ["rows"], wordTokens: 40 }, // so long that texts are found by their grams as well
  { ranks: 2, groups: ["rows"] },
  { ranks: 1, groups: ["rows", "snapshot"] },
  { ranks: 2, groups: ["snapshot", "rows", "rows"] },
] as const)(
  "whatever $ranks ranks with groups $groups do in whatever order, nobody reads another text's bytes",
  async (shape) => {
    await fc.assert(
      fc.asyncProperty(fc.array(modelStep, { minLength: 20, maxLength: 60 }), (steps) => runModel(shape, steps)),
      { seed: seedOr(11), numRuns: rounds({ small: 5, full: 20 }) },
    );
  },
  timeoutMs(600_000),
);
