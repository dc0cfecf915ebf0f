import { constants } from "node:buffer";
import { expect, test } from "vitest";
import { copyRows } from "../../../../test/support/state-rows.ts";
import { isPayload, readLayout, type PayloadLayout } from "./sequence-state.ts";
import { StateCells, type StateShape } from "./state-cells.ts";

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

function made(cells: number, first: number, change: Partial<StateShape> = {}): StateCells {
  const shape = { layout, cells, streams: 1, sequence: 0, ...change };
  return StateCells.make(new Uint8Array(StateCells.bytesOf(shape)).fill(0xee), shape, first);
}

function bytesOf({ memory }: StateCells): Uint8Array {
  return new Uint8Array(memory.buffer, memory.byteOffset, memory.byteLength);
}

/** Every row of a position is filled with its number. */
function marked(cells: number, first: number, change: Partial<StateShape> = {}): StateCells {
  const state = made(cells, first, change);
  const before = change.streams === undefined ? 0 : (change.sequence ?? 0);
  let at = 16 + 4 * before + cells * 12 + 8;
  for (const row of [...layout.keys, ...layout.values]) {
    at += 12;
    for (let cell = 0; cell < cells; cell += 1, at += row.bytes) bytesOf(state).fill(first + cell, at, at + row.bytes);
  }
  return state;
}

test("what is made is a payload, in the layout that it was made in", () => {
  const payload = made(5, 20);
  expect(isPayload(layout, bytesOf(payload), { firstToken: 20, tokenCount: 5 })).toBe(true);
  expect(readLayout(bytesOf(payload))).toEqual(layout);
  expect(readLayout(bytesOf(made(5, 0, { streams: 3 })), 3)).toEqual(layout);
  expect(readLayout(bytesOf(made(5, 0, { streams: 3 })))).toBeUndefined();
});

test("rows go from a payload into a sequence's state in a context of streams, and back", () => {
  const whole = made(12, 0, { streams: 4, sequence: 2 });
  expect(copyRows(whole, marked(5, 0), 0, 5)).toBe(true);
  expect(copyRows(whole, marked(9, 3), 5, 12)).toBe(true);
  expect(bytesOf(whole)).toEqual(bytesOf(marked(12, 0, { streams: 4, sequence: 2 })));
  const payload = made(4, 6);
  expect(copyRows(payload, whole, 6, 10)).toBe(true);
  expect(bytesOf(payload)).toEqual(bytesOf(marked(4, 6)));
});

test("cells in any order are copied by their positions; one that lacks is told", () => {
  const odd = marked(4, 0);
  const view = new DataView(bytesOf(odd).buffer);
  for (const [cell, position] of [2, 3, 0, 1].entries()) view.setInt32(16 + 12 * cell, position, true);
  const straight = made(4, 0);
  expect(copyRows(straight, odd, 0, 4)).toBe(true);
  const expected = made(4, 0);
  for (const [position, mark] of [2, 3, 0, 1].entries())
    copyRows(expected, StateCells.of(renamed(marked(1, mark), position), { layout, cells: 1, streams: 1, sequence: 0 }), position, position + 1); // prettier-ignore
  expect(bytesOf(straight)).toEqual(bytesOf(expected));
  expect(copyRows(made(4, 0), marked(3, 0), 0, 4)).toBe(false);
});

/** One cell's state, at another position. */
function renamed(state: StateCells, position: number): Uint8Array {
  const bytes = bytesOf(state);
  new DataView(bytes.buffer).setInt32(16, position, true);
  return bytes;
}

test("a state may have more bytes than a typed array", () => {
  const cells = 70_000; // of 64 KiB: memory that is not touched is not taken
  const large = { keys: [{ type: 1, bytes: 2 ** 16 }], values: [{ type: 1, bytes: 4 }] };
  const shape = { layout: large, cells, streams: 1, sequence: 0 };
  const byteLength = StateCells.bytesOf(shape);
  expect(byteLength).toBeGreaterThan(constants.MAX_LENGTH);
  const state = StateCells.make({ buffer: new ArrayBuffer(byteLength), byteOffset: 0, byteLength }, shape, 0);
  const small = { layout: large, cells: 2, streams: 1, sequence: 0 };
  const payload = new Uint8Array(StateCells.bytesOf(small)).fill(7);
  expect(copyRows(state, StateCells.make(payload, small, cells - 2), cells - 2, cells)).toBe(true);
  const back = new Uint8Array(payload.length);
  expect(copyRows(StateCells.make(back, small, cells - 2), state, cells - 2, cells)).toBe(true);
  expect(Buffer.compare(back, payload)).toBe(0);
});
