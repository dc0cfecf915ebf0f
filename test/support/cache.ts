/** A cache of real parts for tests: a small pool, spaces and texts of any length. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Cache, type CacheOptions } from "../../src/cache/cache.ts";
import { bareRoot, type Root } from "../../src/identity/keys.ts";
import { type Tokens } from "../../src/identity/tokens.ts";
import type { CacheSession, LoadedPart, Segment } from "../../src/session.ts";
import type { TierName } from "../../src/tier.ts";
import type { SpaceDescription } from "../../src/identity/space.ts";
import { MemoryPool } from "../../src/tiers/memory.ts";

export const wait = { deadlineMs: 10_000 };
export const slotBytes = 8192;

export function testSpace(change: Partial<SpaceDescription> = {}): SpaceDescription {
  return {
    engine: "test",
    payloadFormat: 1,
    weights: "00",
    keyType: "f16",
    valueType: "f16",
    layers: 1,
    keyValueHeads: 1,
    keySize: 8,
    valueSize: 8,
    layout: "token-major",
    attention: "dense",
    rope: "",
    tensorParallel: 1,
    chunkTokens: 4,
    ...change,
  };
}

/** A folder that the test removes with `await using`. */
export function temporaryFolder(): { readonly path: string } & Disposable {
  const path = mkdtempSync(join(tmpdir(), "reprise-test-"));
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) };
}

export function testPool(capacityBytes = 64 * 1024 * 1024): MemoryPool {
  return MemoryPool.open({ capacityBytes });
}

export function openTestCache(options: Partial<CacheOptions> = {}): Promise<Cache> {
  return Cache.open({ pool: testPool(), ...options });
}

export function text(...ids: number[]): Tokens {
  return Uint32Array.from(ids);
}

/** Tokens 1, 2, 3 … */
export function counting(length: number, from = 1): Tokens {
  return Uint32Array.from({ length }, (_, i) => from + i);
}

/** What a chunk of these tokens must hold: bytes that no other chunk or rank has. */
export function payloadOf(tokens: Tokens, firstToken: number, rank = 0, bytes = 512): Uint8Array {
  const payload = new Uint8Array(bytes);
  let state = (0x9e3779b9 ^ firstToken ^ (rank << 24)) >>> 0;
  for (const token of tokens) state = (Math.imul(state ^ token, 0x85ebca6b) + 0xc2b2ae35) >>> 0;
  for (let i = 0; i < bytes; i += 1) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    payload[i] = state >>> 24;
  }
  return payload;
}

export interface SlotMemory {
  view(offset: number, bytes: number): Uint8Array;
}

/** Stores `tokens` as an engine would, in as many goes as it takes. @returns chunks written */
export async function save(
  session: CacheSession,
  memory: SlotMemory,
  tokens: Tokens,
  options: { root?: Root; rank?: number; bytes?: number } = {},
): Promise<number> {
  const { root = bareRoot, rank = 0, bytes = 512 } = options;
  const { parts, full } = await session.reserve(root, tokens, wait);
  const written = parts.map(({ lease, firstToken, tokenCount, slot }) => {
    const payload = payloadOf(tokens.subarray(firstToken, firstToken + tokenCount), firstToken, rank, bytes);
    memory.view(slot.offset, payload.length).set(payload);
    return { lease, bytes: payload.length };
  });
  await session.commit(written, wait);
  return full && parts.length > 0 ? parts.length + (await save(session, memory, tokens, options)) : parts.length;
}

/** Loads `tokens`, and keeps the leases. */
export async function loadAll(session: CacheSession, tokens: Tokens, from = 0): Promise<LoadedPart[]> {
  const chunks: LoadedPart[] = [];
  for await (const batch of session.load(bareRoot, tokens, from, wait)) chunks.push(...batch);
  return chunks;
}

/** Loads `tokens` and checks every byte against what was saved. @returns tokens that can be used */
export async function loadAndVerify(
  session: CacheSession,
  memory: SlotMemory,
  tokens: Tokens,
  options: {
    root?: Root;
    rank?: number;
    from?: number;
    bytes?: number;
    stored?: (firstToken: number, tokenCount: number) => Tokens;
  } = {},
): Promise<number> {
  const { root = bareRoot, rank = 0, from = 0, bytes = 512 } = options;
  const stored = options.stored ?? ((firstToken, tokenCount) => tokens.subarray(firstToken, firstToken + tokenCount));
  let end = 0;
  for await (const batch of session.load(root, tokens, from, wait)) {
    for (const { firstToken, tokenCount, take, target, slot } of batch) {
      const expected = payloadOf(stored(firstToken, tokenCount), firstToken, rank, bytes);
      const actual = memory.view(slot.offset, slot.bytes);
      if (Buffer.compare(actual, expected) !== 0) throw new Error(`the chunk at ${firstToken} has another's bytes`);
      end = target + take;
    }
    session.release(batch.map(({ lease }) => lease));
  }
  return end;
}

/** The segments of a stored prefix: the tokens of each of its runs, in order, by tier. */
export function prefix(...runs: readonly [tokens: number, tier: TierName][]): Segment[] {
  let from = 0;
  return runs.map(([tokens, tier]) => {
    const segment = { kind: "exact", source: from, from, to: from + tokens, tier } as const;
    from += tokens;
    return segment;
  });
}
