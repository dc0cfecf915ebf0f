import * as fc from "fast-check";
import { expect, test } from "vitest";
import { text } from "../../../test/support/cache.ts";
import { rounds, seedOr } from "../../../test/support/depth.ts";
import type { Tokens } from "../../identity/tokens.ts";
import type { ChunkId } from "./chunk-id.ts";
import { ChunkTable, field, flag } from "./chunk-table.ts";
import { chunksOf, RadixTree } from "./radix.ts";

const chunkTokens = 3;
const siblings = rounds({ small: 20_000, full: 100_000 });

function newTree(tokensPerChunk = chunkTokens): { table: ChunkTable; tree: RadixTree } {
  const table = new ChunkTable();
  const shape = table.shape({ chunkTokens: tokensPerChunk, parts: ["rows"], tiers: 1 });
  return { table, tree: RadixTree.make(table, shape, 1)! };
}

function setVisible(table: ChunkTable, node: ChunkId, visible: boolean): void {
  table.mark(node, flag.filled, visible);
  table.mark(node, flag.visible, visible);
}

function insertPath({ table, tree }: ReturnType<typeof newTree>, tokens: Tokens, visible = true): ChunkId {
  let node = tree.top;
  for (const slice of chunksOf(tokens, chunkTokens)) {
    node = tree.insert(node, slice)!;
    if (!table.is(node, flag.filled) && visible) setVisible(table, node, true);
    table.mark(node, flag.filled, true);
  }
  return node;
}

function hitTokens(tree: RadixTree, tokens: Tokens): number {
  const { length, matchedInLast } = tree.match(tokens);
  return length === 0 ? 0 : (length - 1) * tree.chunkTokens + matchedInLast;
}

test("a match goes through whole chunks and into part of the next", () => {
  const { table, tree } = newTree();
  insertPath({ table, tree }, text(1, 2, 3, 4, 5, 6));
  expect(hitTokens(tree, text(1, 2, 3, 4, 5, 9))).toBe(5);
  expect(hitTokens(tree, text(1, 2, 9))).toBe(2);
  expect(hitTokens(tree, text(9))).toBe(0);
  expect(hitTokens(tree, text())).toBe(0);
});

test("a match stops at a placeholder and goes on once it is filled", () => {
  const { table, tree } = newTree();
  insertPath({ table, tree }, text(1, 2, 3, 4, 5, 6));
  const first = tree.child(tree.top, text(1, 2, 3))!;
  setVisible(table, first, false);
  tree.prune(first);
  expect(hitTokens(tree, text(1, 2, 3, 4, 5, 6))).toBe(0);
  setVisible(table, first, true);
  expect(hitTokens(tree, text(1, 2, 3, 4, 5, 6))).toBe(6);
  tree.check();
});

test("a removed leaf takes ancestors that are placeholders along", () => {
  const { table, tree } = newTree();
  const leaf = insertPath({ table, tree }, text(1, 2, 3, 4));
  setVisible(table, tree.child(tree.top, text(1, 2, 3))!, false);
  setVisible(table, leaf, false);
  tree.prune(leaf);
  expect(tree.size).toBe(0);
  tree.dispose();
  expect(table.size).toBe(0);
});

test("all tails that a chunk begins with are found, and nothing else", () => {
  const { table, tree } = newTree(5);
  for (const tail of [[1], [1, 1], [1, 2], [1, 2, 2], [1, 2, 3, 4], [2]])
    setVisible(table, tree.insert(tree.top, text(...tail))!, true);
  const node = tree.insert(tree.top, text(1, 2, 3, 4, 5))!;
  expect(tree.shorterSiblings(node).map((tail) => [...table.tokens(tail)])).toEqual([[1, 2, 3, 4], [1, 2], [1]]);
});

test("the name of a chunk that is gone names nobody, also when its row is used again", () => {
  const { table, tree } = newTree();
  const old = tree.insert(tree.top, text(1, 2, 3))!;
  tree.prune(old);
  const young = tree.insert(tree.top, text(4, 5, 6))!;
  expect(young & 0x1ff_ffff).toBe(old & 0x1ff_ffff);
  expect([table.has(old), table.has(young)]).toEqual([false, true]);
  expect(() => table.tokens(old)).toThrow(/after it left the index/);
});

test(`${siblings} siblings are found, in order, and removed again`, () => {
  const { table, tree } = newTree();
  const nodes = Array.from({ length: siblings }, (_, i) =>
    tree.insert(tree.top, text(Math.imul(i, 48_271) >>> 8, i, 7))!,
  );
  for (const node of nodes) setVisible(table, node, true);
  tree.check();
  for (let i = 0; i < siblings; i += 997) {
    const tokens = text(Math.imul(i, 48_271) >>> 8, i, 9);
    expect(tree.match(tokens).at(0)).toBe(nodes[i]);
    expect(hitTokens(tree, tokens)).toBe(2);
  }
  let depth = 0;
  for (let at = table.link(tree.top, field.children); at !== 0; at = table.link(at, field.left)) depth += 1;
  expect(depth).toBeLessThan(60);
  for (const node of nodes) {
    setVisible(table, node, false);
    tree.prune(node);
  }
  expect(table.size).toBe(1);
});

/** The twin: a list of texts up to each chunk's end, searched from one end to the other. */
class NaiveIndex {
  readonly visible = new Map<string, boolean>();

  hitTokens(tokens: Tokens): number {
    let best = 0;
    const walk = (prefix: readonly number[]): void => {
      for (const [key, isVisible] of this.visible) {
        const chunk = key.split(" ").map(Number);
        const start = prefix.length;
        if (!isVisible || chunk.length <= start || chunk.length > start + chunkTokens) continue;
        if (prefix.some((token, i) => chunk[i] !== token)) continue;
        if (start % chunkTokens !== 0 || start >= tokens.length) continue;
        let length = start;
        while (length < chunk.length && length < tokens.length && chunk[length] === tokens[length]) length += 1;
        if (length === start) continue;
        best = Math.max(best, length);
        if (length === chunk.length && chunk.length === start + chunkTokens) walk(chunk);
      }
    };
    walk([]);
    return best;
  }
}

test("agrees with a naive index on whatever is inserted, hidden and removed", () => {
  const texts = fc.array(fc.integer({ min: 0, max: 2 }), { minLength: 1, maxLength: 9 });
  const step = fc.record({ kind: fc.constantFrom("save", "draft", "hide", "look"), tokens: texts });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      const { table, tree } = newTree();
      const naive = new NaiveIndex();
      for (const { kind, tokens } of steps) {
        const asTokens = text(...tokens);
        if (kind === "save" || kind === "draft") {
          insertPath({ table, tree }, asTokens, kind === "save");
          for (let end = chunkTokens; end < tokens.length + chunkTokens; end += chunkTokens) {
            const key = tokens.slice(0, end).join(" ");
            if (!naive.visible.has(key)) naive.visible.set(key, kind === "save");
          }
        } else if (kind === "hide") {
          const match = tree.match(asTokens);
          if (match.length === 0) continue;
          const last = match.at(match.length - 1);
          const path: number[] = [];
          for (let at = last; at !== tree.top; at = table.link(at, field.parent)) path.unshift(...table.tokens(at));
          naive.visible.delete(path.join(" "));
          setVisible(table, last, false);
          tree.prune(last);
        }
        expect(hitTokens(tree, asTokens)).toBe(naive.hitTokens(asTokens));
        tree.check();
      }
    }),
    { seed: seedOr(7), numRuns: rounds({ small: 100, full: 500 }) },
  );
});
