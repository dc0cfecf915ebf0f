/**
 * What does the index take to remember a text? A 32,000-token text put into a tree that already holds many, chunk by chunk:
 * one that shares nothing with them (its first chunk finds its place among all), and one that shares its first half.
 *
 *     npm run bench -- radix-insert
 */
import { ChunkTable, flag } from "../src/cache/index/chunk-table.ts";
import type { Tokens } from "../src/identity/tokens.ts";
import { RadixTree } from "../src/cache/index/radix.ts";
import { microseconds, printLine, timesOf, warmUpRounds } from "./support/timing.ts";

const promptTokens = 32_000;
const chunkTokens = 64;
const otherTexts = 2000;
const otherTokens = 2048;
const rounds = 200;

const table = new ChunkTable();
const tree = RadixTree.make(table, table.shape({ chunkTokens, parts: ["rows"], tiers: 1 }), 1)!; // the table is empty
for (let text = 0; text < otherTexts; text += 1) insert(textOf(otherTokens, 1_000_000 + text));

const alone = Array.from({ length: rounds + warmUpRounds(rounds) }, (_, round) => textOf(promptTokens, round));
const unshared = await timesOf(rounds, (round) => insert(alone[round]!)); // one for each round

const half = promptTokens / 2;
const branches = alone.map((text, round) => {
  const branch = text.slice();
  branch.set(textOf(half, 500_000 + round), half);
  return branch;
});
const shared = await timesOf(rounds, (round) => insert(branches[round]!)); // one for each round

const chunks = promptTokens / chunkTokens;
const perChunk = (times: readonly number[]) => microseconds(times.map((time) => time / chunks));
printLine(
  "radix-insert",
  { unshared: microseconds(unshared), unsharedPerChunk: perChunk(unshared), halfShared: microseconds(shared) },
  { promptTokens, chunkTokens, otherTexts, otherTokens, nodesAtEnd: tree.size, rounds },
);

function insert(text: Tokens): void {
  let node = tree.top;
  for (let first = 0; first < text.length; first += chunkTokens) {
    node = tree.insert(node, text.subarray(first, first + chunkTokens))!; // 300,000 chunks fit
    table.mark(node, flag.filled, true);
    table.mark(node, flag.visible, true);
  }
}

/** Tokens below 32,768 that look random and are the same for the same number. */
function textOf(tokens: number, number: number): Tokens {
  let state = Math.imul(number + 1, 0x9e3779b9) >>> 0;
  return Uint32Array.from({ length: tokens }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state >>> 17;
  });
}
