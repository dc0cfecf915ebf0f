/** Texts that repeat themselves, and texts that are stored thousands of times: found, in bounded time. */
import { expect, test } from "vitest";
import { IndexedTexts } from "../../../test/support/indexed-texts.ts";
import type { Tokens } from "../../identity/tokens.ts";
import { mix32 } from "../index/linked-index.ts";
import { mostPerGram } from "./gram-table.ts";

const promptTokens = 131_072;
/** Without bounds these take minutes; with them some milliseconds. */
const boundMs = 400;

let state = 1;

function fresh(length: number): Tokens {
  return Uint32Array.from({ length }, () => mix32((state += 1)) % 100_000);
}

function periodic(period: number, length: number): Tokens {
  return Uint32Array.from({ length }, (_, i) => 200_000 + mix32(i % period) / 2 ** 16);
}

function join(...parts: readonly Tokens[]): Tokens {
  return Uint32Array.from(parts.flatMap((part) => [...part]));
}

function find(texts: IndexedTexts, prompt: Tokens) {
  const started = performance.now();
  const runs = texts.index.find(texts.root, prompt);
  expect(performance.now() - started).toBeLessThan(boundMs);
  return { runs, tokens: runs.reduce((sum, run) => sum + run.tokens, 0) };
}

test.each([1, 3, 47, 64, 1000])(
  "a text that repeats itself every %i tokens is found, whole and in pieces",
  (period) => {
    const prompt = periodic(period, promptTokens);
    const long = new IndexedTexts(64);
    long.save(prompt);
    expect(find(long, prompt)).toMatchObject({ runs: [{ at: 0, tokens: promptTokens }], tokens: promptTokens });
    const short = new IndexedTexts(64);
    short.save(join(fresh(30), periodic(period, 2000), fresh(30)));
    expect(find(short, prompt).tokens).toBeGreaterThan(0.99 * promptTokens);
    const tooShort = new IndexedTexts(64);
    tooShort.save(join(fresh(30), periodic(period, 60), fresh(30)));
    expect(find(tooShort, prompt).tokens).toBe(0);
    for (const texts of [long, short, tooShort]) texts.check();
    expect(long.index.stats().entries).toBeLessThan(4 * mostPerGram + period);
  },
);

test("what repeats itself leaves work for what comes after it", () => {
  const texts = new IndexedTexts(64);
  for (let i = 0; i < mostPerGram; i += 1) texts.save(join(fresh(30), periodic(1, 60), fresh(30)));
  const document = fresh(500);
  texts.save(document);
  const { runs } = find(texts, join(periodic(1, promptTokens), document));
  expect(runs).toMatchObject([{ at: promptTokens, tokens: 500 }]);
});

test("a document that is stored thousands of times is found, with few entries and in little time", () => {
  const texts = new IndexedTexts(64);
  const document = fresh(1000);
  const paths = Array.from({ length: 3000 }, (_, i) => texts.save(join(fresh(50 + (i % 64)), document)));
  const once = join(fresh(500), document, fresh(promptTokens - 1500));
  expect(find(texts, once)).toMatchObject({ runs: [{ at: 500, tokens: 1000, sourcePosition: 50 }] });
  expect(find(texts, join(...Array.from({ length: 131 }, () => document))).runs).toHaveLength(131);
  // Twice as many chunks as the document has, for each entry that a gram may have, and what stands before the document.
  expect(texts.index.stats().entries).toBeLessThan(2 * mostPerGram * (1000 / 64) * 4 + 3000 * 6);
  texts.check();
  for (const path of paths) for (const chunk of path.toReversed()) texts.drop(chunk);
  expect(texts.index.stats().entries).toBe(0);
  texts.check();
});

test("runs that are too short everywhere, in as many texts as a gram has entries, are passed over in bounded time", () => {
  const texts = new IndexedTexts(64);
  const pieces = Array.from({ length: 2000 }, () => fresh(60));
  const mixed = () => join(...pieces.flatMap((piece) => [piece, fresh(4)]));
  for (let i = 0; i < mostPerGram; i += 1) texts.save(mixed());
  expect(find(texts, mixed()).tokens).toBe(0);
});

test("a prompt with a token changed every 70 is found between the changes", () => {
  const texts = new IndexedTexts(64);
  const stored = fresh(promptTokens);
  texts.save(stored);
  const { runs, tokens } = find(
    texts,
    stored.map((token, i) => (i % 70 === 0 ? 300_000 : token)),
  );
  expect(runs).toHaveLength(Math.floor(promptTokens / 70));
  expect(tokens).toBe(runs.length * 69);
});
