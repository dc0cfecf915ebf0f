import { expect, test } from "vitest";
import { isPayload, payloadBytes, readLayout } from "./sequence-state.ts";
import type { PayloadLayout } from "./sequence-state.ts";

const layout: PayloadLayout = {
  keys: [
    { type: 1, bytes: 8 },
    { type: 1, bytes: 16 },
  ],
  values: [
    { type: 1, bytes: 8 },
    { type: 1, bytes: 4 },
  ],
};

/** A payload as llama.cpp writes it, cells in the order of `positions`. */
function payload(positions: readonly number[]): Uint8Array {
  const bytes = Buffer.alloc(payloadBytes(layout, positions.length));
  let at = 0;
  const u32 = (value: number) => (at = bytes.writeUInt32LE(value, at));
  [0xaf143cd8, 3, 1, positions.length].forEach(u32);
  for (const position of positions) [position, 1, 3].forEach(u32);
  [0, 2].forEach(u32);
  for (const row of [...layout.keys, ...layout.values]) {
    [row.type, row.bytes, 0].forEach(u32);
    at += row.bytes * positions.length;
  }
  expect(at).toBe(bytes.length);
  return new Uint8Array(bytes);
}

test("a payload is known whatever the order of its cells", () => {
  expect(isPayload(layout, payload([6, 4, 5]), { firstToken: 4, tokenCount: 3 })).toBe(true);
  expect(readLayout(payload([0, 1]))).toEqual(layout);
});

test("other positions, another count or a missing position are no payload", () => {
  expect(isPayload(layout, payload([4, 5, 6]), { firstToken: 5, tokenCount: 3 })).toBe(false);
  expect(isPayload(layout, payload([4, 5, 6]), { firstToken: 4, tokenCount: 2 })).toBe(false);
  expect(isPayload(layout, payload([4, 5, 5]), { firstToken: 4, tokenCount: 3 })).toBe(false);
  expect(isPayload(layout, payload([4, 5, 6]).subarray(0, -1), { firstToken: 4, tokenCount: 3 })).toBe(false);
});

test("any flipped header byte that matters makes it a miss", () => {
  const good = payload([0, 1]);
  const rows = new Set<number>();
  let at = 16 + 2 * 12 + 8;
  for (const row of [...layout.keys, ...layout.values]) {
    for (let byte = 0; byte < 2 * row.bytes; byte += 1) rows.add(at + 12 + byte);
    at += 12 + 2 * row.bytes;
  }
  const sequenceIds = new Set([
    4,
    5,
    6,
    7,
    ...[0, 1].flatMap((cell) => [24, 25, 26, 27].map((byte) => byte + 12 * cell)),
  ]);
  for (let index = 0; index < good.length; index += 1) {
    const bad = good.slice();
    bad[index]! ^= 0x40;
    const harmless = rows.has(index) || sequenceIds.has(index);
    expect(isPayload(layout, bad, { firstToken: 0, tokenCount: 2 }), `byte ${index}`).toBe(harmless);
  }
});

test("a state of an unknown kind has no layout", () => {
  expect(readLayout(payload([0]).subarray(0, 30))).toBeUndefined();
  const composite = Buffer.concat([payload([0]), payload([0])]);
  expect(readLayout(composite)).toBeUndefined();
});
