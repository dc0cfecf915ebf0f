import * as fc from "fast-check";
import { expect, test } from "vitest";
import { text } from "../../test/support/cache.ts";
import type { Tokens } from "./chunk.ts";
import { chunksOf } from "./chunk-store.ts";
import { RadixTree, type NodePayload, type RadixNode } from "./radix.ts";

interface Payload extends NodePayload {
  visible: boolean;
}

const chunkTokens = 3;

function insertPath(tree: RadixTree<Payload>, tokens: Tokens, visible = true): RadixNode<Payload> {
  let node = tree.top;
  for (const slice of chunksOf(tokens, chunkTokens)) {
    node = tree.insert(node, slice);
    node.payload ??= { visible };
  }
  return node;
}

function hitTokens(tree: RadixTree<Payload>, tokens: Tokens): number {
  return tree.match(tokens).reduce((sum, step) => sum + step.matchedTokens, 0);
}

test("a match goes through whole chunks and into part of the next", () => {
  const tree = new RadixTree<Payload>(chunkTokens);
  insertPath(tree, text(1, 2, 3, 4, 5, 6));
  expect(hitTokens(tree, text(1, 2, 3, 4, 5, 9))).toBe(5);
  expect(hitTokens(tree, text(1, 2, 9))).toBe(2);
  expect(hitTokens(tree, text(9))).toBe(0);
  expect(hitTokens(tree, text())).toBe(0);
});

test("a match stops at a hollow node and goes on once it is filled", () => {
  const tree = new RadixTree<Payload>(chunkTokens);
  insertPath(tree, text(1, 2, 3, 4, 5, 6));
  const first = tree.child(tree.top, text(1, 2, 3))!;
  first.payload = undefined;
  tree.prune(first);
  expect(hitTokens(tree, text(1, 2, 3, 4, 5, 6))).toBe(0);
  first.payload = { visible: true };
  expect(hitTokens(tree, text(1, 2, 3, 4, 5, 6))).toBe(6);
  tree.check();
});

test("a removed leaf takes its hollow ancestors along", () => {
  const tree = new RadixTree<Payload>(chunkTokens);
  const leaf = insertPath(tree, text(1, 2, 3, 4));
  tree.child(tree.top, text(1, 2, 3))!.payload = undefined;
  leaf.payload = undefined;
  tree.prune(leaf);
  expect(tree.size).toBe(0);
});

test("all tails that a chunk begins with are found, and nothing else", () => {
  const tree = new RadixTree<Payload>(5);
  for (const tail of [[1], [1, 1], [1, 2], [1, 2, 2], [1, 2, 3, 4], [2]])
    tree.insert(tree.top, text(...tail)).payload = { visible: true };
  const node = tree.insert(tree.top, text(1, 2, 3, 4, 5));
  expect(tree.shorterSiblings(node).map((tail) => [...tail.tokens])).toEqual([[1, 2, 3, 4], [1, 2], [1]]);
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
      const tree = new RadixTree<Payload>(chunkTokens);
      const naive = new NaiveIndex();
      for (const { kind, tokens } of steps) {
        const asTokens = text(...tokens);
        if (kind === "save" || kind === "draft") {
          insertPath(tree, asTokens, kind === "save");
          for (let end = chunkTokens; end < tokens.length + chunkTokens; end += chunkTokens) {
            const key = tokens.slice(0, end).join(" ");
            if (!naive.visible.has(key)) naive.visible.set(key, kind === "save");
          }
        } else if (kind === "hide") {
          const last = tree.match(asTokens).at(-1)?.node;
          if (last === undefined) continue;
          const path: number[] = [];
          for (let at: RadixNode<Payload> | undefined = last; at !== undefined; at = at.parent)
            path.unshift(...at.tokens);
          naive.visible.delete(path.join(" "));
          last.payload = undefined;
          tree.prune(last);
        }
        expect(hitTokens(tree, asTokens)).toBe(naive.hitTokens(asTokens));
        tree.check();
      }
    }),
    { seed: 7, numRuns: 500 },
  );
});
