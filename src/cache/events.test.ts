import * as fc from "fast-check";
import { afterEach, expect, test } from "vitest";
import {
  counting,
  openTestCache,
  save,
  slotBytes,
  temporaryFolder,
  testPool,
  testSpace,
  wait,
} from "../../test/support/cache.ts";
import { rounds, seedOr } from "../../test/support/depth.ts";
import { bareRoot, chunkKey, keyedRoot, type ChunkKey, type RootKey } from "../identity/keys.ts";
import { spaceId } from "../identity/space.ts";
import type { Tokens } from "../identity/tokens.ts";
import type { CacheSession, Lookup } from "../session.ts";
import { filesThrough } from "../../test/support/disk.ts";
import { DiskTier } from "../tiers/disk/disk-tier.ts";
import { nodeFiles, type DiskFile, type DiskFiles } from "../tiers/disk/files.ts";
import { leavesOf } from "../tiers/payload-checksum.ts";
import { Cache } from "./cache.ts";
import { newCounters } from "./counters.ts";
import { ChunkEvents } from "./events.ts";
import type { CacheEvent, Subscription } from "./subscription.ts";

const open = new Set<Cache>();
afterEach(async () => {
  for (const cache of open) await cache.close();
  open.clear();
});

async function setUp() {
  const pool = testPool();
  const cache = await openTestCache({ pool });
  open.add(cache);
  return { cache, pool, session: cache.openSession({ space: testSpace(), rank: 0, slotBytes: [slotBytes] }) };
}

test("a chunk is told with its place, its parent and, where asked for, its tokens", async () => {
  const { cache, pool, session } = await setUp();
  const plain = cache.subscribe();
  const whole = cache.subscribe({ tokens: true });
  await save(session, pool, counting(6));
  const space = spaceId(testSpace());
  const root = keyedRoot(space, bareRoot).key;
  const first = chunkKey(root, counting(4));
  const common = { kind: "stored", tier: "memory", space, root, chunkTokens: 4 };
  const told = [
    { ...common, key: first, parent: root, firstToken: 0, tokenCount: 4 },
    { ...common, key: chunkKey(first, counting(2, 5)), parent: first, firstToken: 4, tokenCount: 2 },
  ];
  expect(plain.take()).toEqual({ events: told, missed: 0 });
  expect(whole.take().events).toEqual([
    { ...told[0], tokens: counting(4) },
    { ...told[1], tokens: counting(2, 5) },
  ]);
});

test("a chunk that is committed before its parent is told after it", async () => {
  const { cache, pool, session } = await setUp();
  const subscription = cache.subscribe();
  const { parts } = await session.reserve(bareRoot, counting(12), wait);
  for (const { lease, slot } of parts.toReversed()) {
    pool.view(slot.offset, 512).fill(1);
    cache.check();
    await session.commit([{ lease, bytes: 512 }], wait);
  }
  const { events } = subscription.take();
  expect(events.map((event) => event.kind !== "cleared" && event.firstToken)).toEqual([0, 4, 8]);
  await cache.clear();
  expect(cache.subscribe().take().events).toEqual([]);
});

test("who is behind is told how many it missed, and can read what is there", async () => {
  const { cache, pool, session } = await setUp();
  const subscription = cache.subscribe({ keepEvents: 2 });
  const reading = subscription[Symbol.asyncIterator]();
  await save(session, pool, counting(20));
  expect((await reading.next()).value).toMatchObject({ events: [{ firstToken: 0 }, { firstToken: 4 }], missed: 3 });
  expect([...subscription.held()].map(({ firstToken }) => firstToken)).toEqual([0, 4, 8, 12, 16]);
  await save(session, pool, counting(4, 100));
  expect((await reading.next()).value).toMatchObject({ events: [{ firstToken: 0 }], missed: 0 });
  await cache.close();
  expect((await reading.next()).done).toBe(true);
  expect(() => cache.subscribe()).toThrow(expect.objectContaining({ code: "CACHE_UNAVAILABLE" }));
});

test("who throws ends its own subscription and nothing else", async () => {
  const { cache, pool, session } = await setUp();
  const other = cache.subscribe();
  const failed = (async () => {
    for await (const { events } of cache.subscribe()) throw new Error(`cannot take ${events.length}`);
  })();
  await save(session, pool, counting(8));
  await expect(failed).rejects.toThrow("cannot take 2");
  await save(session, pool, counting(4, 100));
  expect(other.take().events).toHaveLength(3);
  cache.check();
  expect(() => cache.subscribe({ keepEvents: 0 })).toThrow(expect.objectContaining({ field: "keepEvents" }));
});

test("clearing tells of each chunk, and then of itself", async () => {
  const { cache, pool, session } = await setUp();
  await save(session, pool, counting(8));
  const subscription = cache.subscribe();
  await cache.clear();
  const { events } = subscription.take();
  expect(events.map(({ kind }) => kind)).toEqual(["evicted", "evicted", "cleared"]);
});

test("what is held is read in one go", async () => {
  const { cache, pool, session } = await setUp();
  await save(session, pool, counting(8));
  const held = cache.subscribe().held()[Symbol.iterator]();
  held.next();
  await save(session, pool, counting(4, 100));
  expect(() => held.next()).toThrow("read it without waiting");
});

test("without subscribers nothing is looked at but what is counted", () => {
  const untouchable = new Proxy({} as ConstructorParameters<typeof ChunkEvents>[0]["chunks"], {
    get: () => expect.fail("a chunk was looked at"),
  });
  const counters = newCounters();
  const events = new ChunkEvents({ chunks: untouchable, counters, indexes: () => [] });
  events.stored(1 as never, "saved");
  events.stored(1 as never, "promoted");
  events.recorded(1 as never, "disk");
  events.evicted(1 as never, "dropped");
  events.removed(1 as never, "disk");
  events.cleared();
  expect(counters).toEqual({ ...newCounters(), savedChunks: 1 });
});

/** A subscriber that keeps the set of what is where, and knows the rules. */
class Mirror {
  /** Tiers by chunk. */
  readonly tiers = new Map<ChunkKey, Set<string>>();
  readonly parents = new Map<ChunkKey, ChunkKey | RootKey>();
  readonly kinds = new Set<string>();

  take(event: CacheEvent): void {
    this.kinds.add(event.kind);
    if (event.kind === "cleared") return;
    const { kind, key, parent, root, tier } = event;
    const known = this.tiers.get(key) ?? new Set();
    if (kind === "stored" || kind === "recorded") {
      expect(chunkKey(parent, event.tokens!)).toBe(key);
      expect(parent === root || this.tiers.has(parent as ChunkKey), "a parent is told before its children").toBe(true);
      expect(known.has(tier), "a chunk came twice").toBe(false);
      this.parents.set(key, parent);
      this.tiers.set(key, known.add(tier));
      return;
    }
    expect(known.delete(tier), "a chunk left where it was not").toBe(true);
    if (known.size > 0) return;
    this.tiers.delete(key);
    this.parents.delete(key);
    expect([...this.parents.values()], "children are taken back before their parent").not.toContain(key);
  }

  list(): string[] {
    return [...this.tiers].flatMap(([key, tiers]) => [...tiers].map((tier) => `${key} ${tier}`)).sort();
  }
}

/** Files that damage every fifth read. */
function damaging(): DiskFiles {
  let reads = 0;
  const wrap = (file: DiskFile): DiskFile => ({
    ...file,
    read: async (into, position) => {
      const isDamaged = (reads += 1) % 5 === 0;
      const answer = await file.read(into, position);
      const last = into.at(-1)!;
      if (isDamaged) last[last.length >> 1]! ^= 4;
      return { ...answer, leaves: into.map(leavesOf) };
    },
  });
  return filesThrough(wrap);
}

const kinds = ["save", "save", "save", "save", "load", "load", "backwards", "clear", "shrink", "restart"] as const;
const modelStep = fc.record({
  kind: fc.constantFrom(...kinds),
  tokens: fc.array(fc.integer({ min: 0, max: 1 }), { minLength: 1, maxLength: 7 }),
});
type Step = { kind: (typeof kinds)[number]; tokens: number[] };

const space = testSpace({ chunkTokens: 2 });
const mebibyte = 2 ** 20;
/** Every text of three whole chunks. */
const texts = Array.from({ length: 64 }, (_, bits) => Uint32Array.from({ length: 6 }, (_, i) => (bits >> i) & 1));

/** A cache of eight slots to an extent over a disk, with a mirror of it or without. */
class Model {
  readonly folder = temporaryFolder();
  readonly #disk: "small and damaged" | "sound";
  readonly #files: DiskFiles;
  readonly isWatched: boolean;
  readonly kinds = new Set<string>();
  #tick = 0;
  #state:
    | {
        cache: Cache;
        pool: ReturnType<typeof testPool>;
        session: CacheSession;
        told: Subscription | undefined;
        mirror: Mirror;
      }
    | undefined;

  constructor({ isWatched, disk }: { isWatched: boolean; disk: "small and damaged" | "sound" }) {
    this.isWatched = isWatched;
    this.#disk = disk;
    this.#files = disk === "sound" ? nodeFiles : damaging();
  }

  async open(): Promise<void> {
    const capacityBytes = this.#disk === "sound" ? 64 * mebibyte : mebibyte;
    const drives = [{ directory: this.folder.path, capacityBytes }];
    const tier = await DiskTier.open({ drives, files: this.#files, scrubBytesPerSecond: 0 });
    const pool = testPool(128 * mebibyte);
    const cache = await Cache.open({ pool, tiers: [tier], now: () => (this.#tick += 1) });
    const session = cache.openSession({ space, rank: 0, slotBytes: [8 * mebibyte] });
    await cache.recovered(10_000);
    const told = this.isWatched ? cache.subscribe({ tokens: true }) : undefined;
    const mirror = new Mirror();
    for (const event of told?.held() ?? []) mirror.take(event);
    this.#state = { cache, pool, session, told, mirror };
  }

  async step({ kind, tokens }: Step): Promise<unknown> {
    const { cache, pool, session, told, mirror } = this.#state!;
    const text = Uint32Array.from(tokens);
    if (kind === "save") await save(session, pool, text, { bytes: 100_000 });
    if (kind === "backwards") await this.#saveBackwards(text);
    if (kind === "load")
      for await (const batch of session.load(bareRoot, text, 0, wait)) session.release(batch.map(({ lease }) => lease));
    if (kind === "clear") await cache.clear();
    if (kind === "shrink") await cache.resize(64 * mebibyte).then(() => cache.resize(128 * mebibyte));
    await cache.flush();
    cache.check();
    const { savedChunks, evictedChunks, lostChunks, corruptRecords, tiers, memory } = cache.stats();
    const found = await Promise.all(texts.map((one) => session.lookup(bareRoot, one, wait)));
    if (told !== undefined) this.#compare(mirror, told, found);
    const figures = { savedChunks, evictedChunks, lostChunks, corruptRecords, disk: tiers.disk?.records, memory };
    if (kind === "restart") {
      await cache.close();
      await this.open();
    }
    return { found, figures: { ...figures, memory: memory.usedSlots } };
  }

  async end(): Promise<void> {
    await this.#state!.cache.close();
    this.folder[Symbol.dispose]();
  }

  #compare(mirror: Mirror, told: Subscription, found: readonly Lookup[]): void {
    const { events, missed } = told.take();
    expect(missed).toBe(0);
    for (const event of events) mirror.take(event);
    const fresh = new Mirror();
    for (const event of told.held()) fresh.take(event);
    expect(mirror.list()).toEqual(fresh.list());
    for (const kind of mirror.kinds) this.kinds.add(kind);
    for (const [i, text] of texts.entries()) compareText(mirror, text, found[i]!); // one for each
  }

  async #saveBackwards(text: Tokens): Promise<void> {
    const { pool, session } = this.#state!;
    const { parts } = await session.reserve(bareRoot, text, wait);
    for (const { lease, slot } of parts.toReversed()) {
      pool.view(slot.offset, 512).fill(3);
      await session.commit([{ lease, bytes: 512 }], wait);
    }
  }
}

/** What a lookup finds is what the mirror has: the same chunks, in the same tiers. */
function compareText(mirror: Mirror, text: Tokens, { hitTokens, segments }: Lookup): void {
  const byTier: Record<string, number> = {};
  let parent: ChunkKey | RootKey = keyedRoot(spaceId(space), bareRoot).key;
  let tokens = 0;
  for (; tokens < text.length; tokens += 2) {
    const key = chunkKey(parent, text.subarray(tokens, tokens + 2));
    const tiers = mirror.tiers.get(key);
    if (tiers === undefined) break;
    const tier = tiers.has("memory") ? "memory" : "disk";
    byTier[tier] = (byTier[tier] ?? 0) + 2;
    parent = key;
  }
  expect(hitTokens - (hitTokens % 2)).toBe(tokens);
  const found: Record<string, number> = {};
  for (const { tier, from, to } of segments) found[tier] = (found[tier] ?? 0) + to - from;
  if (hitTokens === tokens) expect(found).toEqual(byTier);
}

const steps = fc.array(modelStep, { minLength: 15, maxLength: 30 });
const depth = {
  seed: seedOr(14),
  numRuns: rounds({ small: 2, full: 6 }),
  endOnFailure: true,
};

test("whatever happens, a subscriber knows what is where", async () => {
  const seen = new Set<string>();
  const property = fc.asyncProperty(steps, async (each) => {
    const model = new Model({ isWatched: true, disk: "small and damaged" });
    await model.open();
    for (const step of each) await model.step(step);
    await model.end();
    for (const kind of model.kinds) seen.add(kind);
  });
  await fc.assert(property, depth);
  expect([...seen].sort()).toEqual(["cleared", "evicted", "recorded", "removed", "stored"]);
}, 600_000);

test("a cache does the same with a subscriber and without", async () => {
  const property = fc.asyncProperty(steps, async (each) => {
    const watched = new Model({ isWatched: true, disk: "sound" });
    const alone = new Model({ isWatched: false, disk: "sound" });
    await Promise.all([watched.open(), alone.open()]);
    for (const step of each) expect(await watched.step(step)).toEqual(await alone.step(step));
    await Promise.all([watched.end(), alone.end()]);
  });
  await fc.assert(property, depth);
}, 600_000);
