/**
 * What it costs to find texts anywhere in a prompt: memory per 64 stored tokens, and the time of a lookup.
 *
 *     npm run bench -- anywhere-index [--chunks 1000000] [--depth 100] [--tokens 131072] [--rounds 20] [--json FILE]
 *
 * The index has `--chunks` chunks of 64 tokens, in texts of `--depth` chunks. Prompts of `--tokens` are: documents of 300 to
 * 3000 tokens out of those texts with 50 new tokens between them, a text that was never stored, one token again and again, and
 * the first once more with every document stored ten thousand times over in other texts. Then, by turns: what a save and a
 * lookup of a prefix take in a cache with the index and in one without, in texts of `--depth` chunks whose payloads are not written.
 */
import { writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { CountingPool } from "./eviction/counting-pool.ts";
import { Cache } from "../src/cache/cache.ts";
import { bareRoot } from "../src/identity/keys.ts";
import type { Tokens } from "../src/identity/tokens.ts";
import type { CacheSession } from "../src/session.ts";
import { testSpace } from "../test/support/cache.ts";
import { IndexedTexts } from "../test/support/indexed-texts.ts";

const { values } = parseArgs({
  options: {
    chunks: { type: "string", default: "1000000" },
    depth: { type: "string", default: "100" },
    tokens: { type: "string", default: "131072" },
    rounds: { type: "string", default: "20" },
    json: { type: "string" },
  },
});
const [depth, promptTokens, rounds] = [Number(values.depth), Number(values.tokens), Number(values.rounds)];
const textCount = Math.floor(Number(values.chunks) / depth);
const wait = { deadlineMs: 60_000 };
let state = 42;

const { saveMicrosPerChunk, prefixLookupMicros } = await besideNone();
const texts = new IndexedTexts(64);
let slowestTextMs = 0;
let highestBytes = 0;
for (let text = 0; text < textCount; text += 1) {
  const started = performance.now();
  texts.save(textOf(text));
  slowestTextMs = Math.max(slowestTextMs, performance.now() - started);
  const chunks = (text + 1) * depth;
  if (chunks >= 10_000) highestBytes = Math.max(highestBytes, texts.index.stats().bytes / chunks);
}
const { entries, bytes } = texts.index.stats();
const stored = textCount * depth;
const documents = prompt();
const lookups = {
  documents: time(prompt),
  unknown: time(() => randomText(promptTokens)),
  oneToken: time(() => new Uint32Array(promptTokens).fill(7)),
};
for (let copy = 0; copy < 10_000; copy += 1)
  texts.save(Uint32Array.from([...randomText(40), ...documents.subarray(0, 984)]));
const result = {
  chunks: stored,
  entriesPer64Tokens: round(entries / stored),
  bytesPer64Tokens: round(bytes / stored),
  highestBytesPer64Tokens: round(highestBytes),
  slowestTextMs: round(slowestTextMs),
  lookupMs: { ...lookups, tenThousandCopies: time(() => documents) },
  saveMicrosPerChunk,
  prefixLookupMicros,
};
console.log(JSON.stringify(result, null, 2));
if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(result, null, 2)}\n`);

interface Lookup {
  /** Of the last prompt. */
  readonly runs: number;
  readonly foundTokens: number;
  readonly median: number;
  readonly max: number;
}

/** Each round has a prompt of its own. The first half is not counted: V8 compiles. */
function time(make: () => Tokens): Lookup {
  const ms: number[] = [];
  let runs = 0;
  let foundTokens = 0;
  for (let i = 0; i < 2 * rounds; i += 1) {
    const tokens = make();
    const started = performance.now();
    const found = texts.index.find(texts.root, tokens);
    ms.push(performance.now() - started);
    runs = found.length;
    foundTokens = found.reduce((sum, run) => sum + run.tokens, 0);
  }
  const sorted = ms.slice(rounds).toSorted((a, b) => a - b);
  return { runs, foundTokens, median: round(sorted[rounds >> 1]!), max: round(sorted.at(-1)!) }; // not empty
}

/** The same work in a cache with the index and in one without, a text at a time. Medians. */
async function besideNone() {
  const caches = await Promise.all(
    [true, false].map((anywhere) => Cache.open({ pool: new CountingPool(1000 * depth), anywhere })),
  );
  const sessions = caches.map((cache) =>
    cache.openSession({ space: testSpace({ chunkTokens: 64 }), rank: 0, slotBytes: [1] }),
  );
  const saves: [number[], number[]] = [[], []];
  const found: [number[], number[]] = [[], []];
  for (let text = 0; text < 1000; text += 1)
    for (const which of text % 2 === 0 ? ([0, 1] as const) : ([1, 0] as const)) {
      const started = performance.now();
      await save(sessions[which]!, textOf(text)); // one for each
      saves[which].push(((performance.now() - started) * 1000) / depth);
    }
  for (let i = 0; i < 4000; i += 1)
    for (const which of i % 2 === 0 ? ([0, 1] as const) : ([1, 0] as const)) {
      const tokens = textOf((i * 7919) % 1000);
      const started = performance.now();
      await sessions[which]!.lookup(bareRoot, tokens, wait); // one for each
      found[which].push((performance.now() - started) * 1000);
    }
  for (const cache of caches) await cache.close();
  const middle = (of: number[]) => round(of.slice(of.length >> 1).toSorted((a, b) => a - b)[of.length >> 2]!); // not empty
  return {
    saveMicrosPerChunk: { with: middle(saves[0]), without: middle(saves[1]) },
    prefixLookupMicros: { with: middle(found[0]), without: middle(found[1]) },
  };
}

async function save(session: CacheSession, tokens: Tokens): Promise<void> {
  const { parts } = await session.reserve(bareRoot, tokens, wait);
  await session.commit(
    parts.map(({ lease }) => ({ lease, bytes: 1 })),
    wait,
  );
}

function prompt(): Tokens {
  const tokens: number[] = [];
  while (tokens.length < promptTokens) {
    const source = textOf(random(textCount));
    const from = random(source.length - 3000);
    tokens.push(...source.subarray(from, from + 300 + random(2700)), ...randomText(50));
  }
  return Uint32Array.from(tokens.slice(0, promptTokens));
}

function textOf(text: number): Tokens {
  let own = Math.imul(text + 2, 0x9e3779b1) | 1;
  return Uint32Array.from({ length: depth * 64 }, () => {
    own ^= own << 13;
    own ^= own >>> 17;
    own ^= own << 5;
    return (own >>> 0) % 128_000;
  });
}

function randomText(length: number): Tokens {
  return Uint32Array.from({ length }, () => random(128_000));
}

function random(limit: number): number {
  state ^= state << 13;
  state ^= state >>> 17;
  state ^= state << 5;
  return (state >>> 0) % limit;
}

function round(value: number): number {
  return Number(value.toFixed(2));
}
