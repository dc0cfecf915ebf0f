import { expect, test } from "vitest";
import { counting } from "../../../test/support/cache.ts";
import { rounds, seedOr, timeoutMs } from "../../../test/support/depth.ts";
import { IndexedTexts } from "../../../test/support/indexed-texts.ts";
import type { Tokens } from "../../identity/tokens.ts";
import { noChunk, type ChunkId } from "../index/chunk-id.ts";
import { field, flag } from "../index/chunk-table.ts";
import type { RootIndex } from "../index/stored-chunk.ts";
import type { FoundRun } from "./anywhere-index.ts";
import { RunReader, shortestRun } from "./stored-run.ts";

type Random = (limit: number) => number;

function randomFrom(seed: number): Random {
  let state = Math.imul(seed + 1, 0x9e3779b1) | 1;
  return (limit) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % limit;
  };
}

function join(...parts: readonly (Tokens | readonly number[])[]): Tokens {
  return Uint32Array.from(parts.flatMap((part) => [...part]));
}

function randomText(random: Random, length: number, vocabulary = 50_000): Tokens {
  return Uint32Array.from({ length }, () => random(vocabulary));
}

/** The prompt's parts that a lookup found, each with what it says of it. */
function summaries(runs: readonly FoundRun[]): { at: number; tokens: number; sourcePosition: number; left: number }[] {
  return runs.map(({ at, tokens, sourcePosition, leftContextTokens: left }) => ({ at, tokens, sourcePosition, left }));
}

test("a run is found in the middle of another prompt, across chunks, to the token", () => {
  const texts = new IndexedTexts(64);
  const path = texts.save(join(counting(100, 1000), counting(300, 5000), counting(77, 9000)));
  const [run, ...more] = texts.index.find(texts.root, join(counting(37, 70_000), counting(300, 5000), [1, 2, 3]));
  expect(more).toEqual([]);
  expect(run).toMatchObject({ at: 37, tokens: 300, sourcePosition: 100, leftContextTokens: 0 });
  expect(run!.source).toEqual([
    { chunk: path[1], from: 36, tokens: 28 },
    ...[2, 3, 4, 5].map((i) => ({ chunk: path[i], from: 0, tokens: 64 })),
    { chunk: path[6], from: 0, tokens: 16 },
  ]);
});

test("a run of 64 tokens is found wherever it stands among chunks, and one of 63 is not", () => {
  const document = counting(64, 5000);
  for (const chunkTokens of [1, 3, 16, 64, 200])
    for (let before = 0; before < 130; before += 13) {
      const texts = new IndexedTexts(chunkTokens);
      texts.save(join(counting(before, 1000), document, counting(90, 9000)));
      const prompt = (run: Tokens) => join([1, 2], run, [3]);
      expect(summaries(texts.index.find(texts.root, prompt(document)))).toEqual([
        { at: 2, tokens: 64, sourcePosition: before, left: 0 },
      ]);
      expect(texts.index.find(texts.root, prompt(document.subarray(1)))).toEqual([]);
    }
});

test("in the largest chunk there is, what lies beyond an entry's reach is not found, and nothing wrong", () => {
  const texts = new IndexedTexts(65_536);
  const stored = randomText(randomFrom(3), 65_536);
  const [chunk] = texts.save(stored);
  const middle = join([1], stored.subarray(65_000, 65_200), [2]);
  expect(summaries(texts.index.find(texts.root, middle))).toMatchObject([
    { at: 1, tokens: 200, sourcePosition: 65_000 },
  ]);
  expect(texts.index.find(texts.root, join([1], stored.subarray(65_460), [2]))).toEqual([]);
  texts.check();
  texts.drop(chunk!);
  expect(texts.index.stats().entries).toBe(0);
});

test("one root never finds another's text", () => {
  const texts = new IndexedTexts(64, 2);
  const [mine, theirs] = [texts.roots[0]!, texts.roots[1]!];
  const document = counting(500, 5000);
  texts.save(document, theirs);
  expect(texts.index.find(mine, join([1], document))).toEqual([]);
  texts.save(join(counting(70, 1), document), mine);
  expect(summaries(texts.index.find(mine, join([1], document)))).toEqual([
    { at: 1, tokens: 500, sourcePosition: 70, left: 0 },
  ]);
  expect(summaries(texts.index.find(theirs, join([1], document)))).toMatchObject([{ sourcePosition: 0 }]);
});

test("a place in another root's text is none, should hashes be equal", () => {
  const texts = new IndexedTexts(64, 2);
  const [mine, theirs] = [texts.roots[0]!, texts.roots[1]!]; // two were made
  const tokens = counting(128, 5000);
  const [chunk] = texts.save(tokens, theirs);
  const readerOf = (root: RootIndex) => new RunReader(texts.chunks.table, root, { tokens, from: 0 });
  expect(readerOf(mine).around(20, chunk!, 20)).toBeUndefined();
  expect(readerOf(theirs).around(20, chunk!, 20)).toMatchObject({ at: 0, tokens: 128 });
});

test("of several children the one that matches is followed", () => {
  const texts = new IndexedTexts(64);
  const start = counting(128, 1000);
  for (let i = 0; i < 50; i += 1) texts.save(join(start, counting(200, 10_000 * (i + 1))));
  const found = texts.index.find(texts.root, join([7, 7], start, counting(200, 10_000 * 33), [8]));
  expect(summaries(found)).toEqual([{ at: 2, tokens: 328, sourcePosition: 0, left: 0 }]);
});

test("chunks that cannot be read are not found, and are again once they can", () => {
  const texts = new IndexedTexts(64);
  const document = counting(640, 5000);
  const path = texts.save(document);
  const prompt = join([1, 2, 3], document);
  texts.drop(path[4]!);
  expect(summaries(texts.index.find(texts.root, prompt))).toEqual([
    { at: 3, tokens: 256, sourcePosition: 0, left: 0 },
    // What was computed before it agrees, although it is gone.
    { at: 323, tokens: 320, sourcePosition: 320, left: 320 },
  ]);
  texts.save(document);
  expect(summaries(texts.index.find(texts.root, prompt))).toMatchObject([{ at: 3, tokens: 640 }]);
  for (const chunk of path.toReversed()) texts.drop(chunk);
  expect(texts.index.find(texts.root, prompt)).toEqual([]);
  expect(texts.index.stats().entries).toBe(0);
});

test("a chunk that has the name of one that is gone is not taken for it", () => {
  const texts = new IndexedTexts(64);
  const { tree } = texts.root;
  const [gone] = texts.save(counting(64, 1000));
  texts.drop(gone!);
  // Names come again after 64 chunks; these are placeholders, of which nobody hears.
  let again = noChunk;
  for (let i = 0; again !== gone; i += 1) {
    if (again !== noChunk) tree.prune(again);
    again = tree.insert(tree.top, counting(64, 2000 + i))!; // there is room
  }
  const child = tree.insert(again, counting(64, 5000))!; // there is room
  texts.chunks.table.mark(child, flag.filled, true);
  texts.chunks.setVisible(child, true);
  texts.check();
});

test("of equal runs the one is taken whose left context is the prompt's for longer", () => {
  const document = counting(128, 5000);
  const before = counting(64, 3000);
  for (const isFirst of [true, false]) {
    const texts = new IndexedTexts(64);
    const saveAfter = (start: Tokens) => {
      const path = texts.save(join(start, document));
      texts.drop(path[0]!); // its rows are gone, and it still says what stood there
      return path;
    };
    if (isFirst) saveAfter(join(counting(32, 1), before.subarray(32)));
    const path = saveAfter(before);
    if (!isFirst) saveAfter(join(counting(32, 1), before.subarray(32)));
    const [run] = texts.index.find(texts.root, join([1, 2], before, document, [3]));
    expect(run).toMatchObject({ at: 66, tokens: 128, leftContextTokens: 64 });
    expect(run!.source.map(({ chunk }) => chunk)).toEqual([path[1], path[2]]);
  }
});

test("the longest run comes first, and what overlaps it is cut", () => {
  const texts = new IndexedTexts(64);
  const [a, b, c] = [counting(200, 1000), counting(100, 2000), counting(300, 3000)];
  texts.save(join([1], a, b, [2]));
  texts.save(join([3], b, c, [4]));
  expect(summaries(texts.index.find(texts.root, join([5], a, b, c, [6])))).toEqual([
    { at: 1, tokens: 200, sourcePosition: 1, left: 0 },
    { at: 201, tokens: 400, sourcePosition: 1, left: 0 },
  ]);
});

test("where a run was cut until too little was left, a shorter one is found", () => {
  const [q, x] = [counting(300, 1000), counting(64, 5000)];
  const texts = new IndexedTexts(64);
  texts.save(join([1], q, [2]));
  texts.save(join([3], q.subarray(240), x.subarray(0, 60), [4])); // longer than x, but what is left beside q is not
  texts.save(join([5], x, [6]));
  expect(summaries(texts.index.find(texts.root, join([7], q, x, [8])))).toEqual([
    { at: 1, tokens: 300, sourcePosition: 1, left: 0 },
    { at: 301, tokens: 64, sourcePosition: 1, left: 0 },
  ]);
});

test("one run serves several places", () => {
  const texts = new IndexedTexts(64);
  const document = counting(150, 5000);
  texts.save(join([1, 2], document, [3]));
  const found = texts.index.find(texts.root, join([4], document, [5, 6], document, [7], document));
  expect(found.map(({ at, tokens }) => [at, tokens])).toEqual([
    [1, 150],
    [153, 150],
    [304, 150],
  ]);
});

test("what comes before the place where a search begins is in no run, and counts as left context", () => {
  const texts = new IndexedTexts(64);
  const document = counting(500, 5000);
  texts.save(document);
  expect(summaries(texts.index.find(texts.root, document, 200))).toEqual([
    { at: 200, tokens: 300, sourcePosition: 200, left: 200 },
  ]);
});

/** The twin: every gram of the shortest run's length that a root's readable texts have, each in a set. */
function twinOf(texts: IndexedTexts, { tree }: RootIndex): (tokens: Tokens, at: number) => boolean {
  const { table } = texts.chunks;
  const known = new Set<string>();
  for (const node of tree.nodes()) {
    let path: number[] = [];
    for (let at: ChunkId = node; at !== tree.top && texts.chunks.isVisible(at); at = table.link(at, field.parent))
      path = [...table.tokens(at), ...path];
    for (let at = 0; at + shortestRun <= path.length; at += 1) known.add(path.slice(at, at + shortestRun).join(" "));
  }
  return (tokens, at) => known.has([...tokens.subarray(at, at + shortestRun)].join(" "));
}

/** Asserts that runs are what is stored, in order and apart, and that no 64 tokens in a row are stored and not found. */
function expectExact(texts: IndexedTexts, root: RootIndex, prompt: Tokens, isKnown: ReturnType<typeof twinOf>): void {
  const { table } = texts.chunks;
  const found = texts.index.find(root, prompt);
  const served = new Uint8Array(prompt.length);
  let last: FoundRun | undefined;
  for (const run of found) {
    expect(run.tokens).toBeGreaterThanOrEqual(shortestRun);
    let at = run.at;
    let position = run.sourcePosition;
    let before: ChunkId = noChunk;
    for (const { chunk, from, tokens } of run.source) {
      expect([texts.chunks.isVisible(chunk), texts.chunks.rootOf(chunk)]).toEqual([true, root]);
      expect(texts.chunks.firstToken(chunk) + from).toBe(position);
      if (before !== noChunk) expect(texts.chunks.parentOf(chunk)).toBe(before);
      expect([...table.tokens(chunk).subarray(from, from + tokens)]).toEqual([...prompt.subarray(at, at + tokens)]);
      [before, at, position] = [chunk, at + tokens, position + tokens];
    }
    expect(at - run.at).toBe(run.tokens);
    const end = last === undefined ? 0 : last.at + last.tokens;
    expect(run.at).toBeGreaterThanOrEqual(end);
    const follows = last !== undefined && run.at === end && last.source.at(-1)!.chunk === run.source[0]!.chunk;
    if (follows) expect(run.sourcePosition).not.toBe(last!.sourcePosition + last!.tokens);
    served.fill(1, run.at, run.at + run.tokens);
    last = run;
  }
  for (let at = 0; at + shortestRun <= prompt.length; at += 1)
    if (isKnown(prompt, at))
      expect(served.subarray(at, at + shortestRun), `64 tokens at ${at} are stored, and were not found`).toContain(1);
}

/** A text made of others: pieces of them in any order, with tokens changed, inserted and left out. */
function edited(random: Random, pool: readonly Tokens[], vocabulary: number): Tokens {
  const parts: (Tokens | number[])[] = [];
  for (let left = 1 + random(4); left > 0; left -= 1) {
    const source = pool[random(pool.length)]!; // within
    const from = random(source.length);
    const piece = [...source.subarray(from, from + 1 + random(source.length - from))];
    for (let edits = random(3); edits > 0; edits -= 1)
      piece.splice(random(piece.length), random(4), ...randomText(random, random(4), vocabulary));
    parts.push(piece);
    if (random(2) === 0) parts.push(randomText(random, random(90), vocabulary));
  }
  return join(...parts).slice(0, 1500);
}

test.each([
  { chunkTokens: 64, vocabulary: 50_000 },
  { chunkTokens: 16, vocabulary: 50_000 },
  { chunkTokens: 5, vocabulary: 50_000 },
  { chunkTokens: 300, vocabulary: 50_000 },
  { chunkTokens: 64, vocabulary: 3 },
])(
  "finds all that a search by brute force finds, whatever is saved and lost: $chunkTokens a chunk, $vocabulary words",
  ({ chunkTokens, vocabulary }) => {
    for (let seed = 0; seed < rounds({ small: 8, full: 40 }); seed += 1) {
      const random = randomFrom(seedOr(1) * 1000 + seed);
      const texts = new IndexedTexts(chunkTokens, 2);
      const pool = Array.from({ length: 5 }, () => randomText(random, 100 + random(600), vocabulary));
      for (let step = 0; step < 12; step += 1) {
        const root = texts.roots[random(2)]!; // one of two
        const prompt = edited(random, pool, vocabulary);
        expectExact(texts, root, prompt, twinOf(texts, root));
        const path = texts.save(prompt, root);
        if (random(2) === 0) pool.push(prompt);
        // From the end, or from the middle: then what comes after it stays.
        for (let lost = random(3); lost > 0; lost -= 1) {
          const nodes = [...root.tree.nodes()].filter((node) => texts.chunks.isVisible(node));
          if (nodes.length > 0) texts.drop(nodes[random(nodes.length)]!); // within
        }
        if (random(4) === 0)
          for (const chunk of path.toReversed())
            if (texts.chunks.table.has(chunk) && texts.chunks.isVisible(chunk)) texts.drop(chunk);
        texts.check();
      }
    }
  },
  timeoutMs(120_000),
);
