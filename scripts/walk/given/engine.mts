/** What docs/library.md takes as given: a text, and an engine of somebody's own. What the first run has saved, the second loads. */
import assert from "node:assert";

export const tokens = Uint32Array.from({ length: 600 }, (_, index) => 1000 + index);
const stateBytes = 131_072;
let restored = 0;

export const engine = {
  restore(firstToken: number, tokenCount: number, bytes: Uint8Array): void {
    assert.equal(firstToken, restored);
    assert.equal(bytes[0], firstToken & 0xff);
    restored += tokenCount;
  },
  export(firstToken: number, tokenCount: number, into: Uint8Array): number {
    into.fill(firstToken & 0xff, 0, tokenCount * stateBytes);
    return tokenCount * stateBytes;
  },
};

process.on("exit", () => assert.equal(restored, process.env["WALK_TIME"] === "first" ? 0 : tokens.length));
