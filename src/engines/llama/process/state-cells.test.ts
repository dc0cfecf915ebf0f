import { expect, test } from "vitest";
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

/** Every row of a position is filled with its number. */
function marked(cells: number, first: number, change: Partial<StateShape> = {}): StateCells {
  const state = made(cells, first, change);
  const before = change.streams === undefined ? 0 : (change.sequence ?? 0);
  let at = 16 + 4 * before + cells * 12 + 8;
  for (const row of [...layout.keys, ...layout.values]) {
    at += 12;
    for (let cell = 0; cell < cells; cell += 1, at += row.bytes) state.bytes.fill(first + cell, at, at + row.bytes);
  }
  return state;
}

test("what is made is a payload, in the layout that it was made in", () => {
  const payload = made(5, 20);
  expect(isPayload(layout, payload.bytes, { firstToken: 20, tokenCount: 5 })).toBe(true);
  expect(readLayout(payload.bytes)).toEqual(layout);
  expect(readLayout(made(5, 0, { streams: 3 }).bytes, 3)).toEqual(layout);
  expect(readLayout(made(5, 0, { streams: 3 }).bytes)).toBeUndefined();
});

test("rows go from a payload into a sequence's state in a context of streams, and back", () => {
  const whole = made(12, 0, { streams: 4, sequence: 2 });
  expect(whole.copyRows(marked(5, 0), 0, 5)).toBe(true);
  expect(whole.copyRows(marked(9, 3), 5, 12)).toBe(true);
  expect(whole.bytes).toEqual(marked(12, 0, { streams: 4, sequence: 2 }).bytes);
  const payload = made(4, 6);
  expect(payload.copyRows(whole, 6, 10)).toBe(true);
  expect(payload.bytes).toEqual(marked(4, 6).bytes);
});

test("cells in any order are copied by their positions; one that lacks is told", () => {
  const odd = marked(4, 0);
  const view = new DataView(odd.bytes.buffer);
  for (const [cell, position] of [2, 3, 0, 1].entries()) view.setInt32(16 + 12 * cell, position, true);
  const straight = made(4, 0);
  expect(straight.copyRows(odd, 0, 4)).toBe(true);
  const expected = made(4, 0);
  for (const [position, mark] of [2, 3, 0, 1].entries())
    expected.copyRows(StateCells.of(renamed(marked(1, mark), position), { layout, cells: 1, streams: 1, sequence: 0 }), position, position + 1); // prettier-ignore
  expect(straight.bytes).toEqual(expected.bytes);
  expect(made(4, 0).copyRows(marked(3, 0), 0, 4)).toBe(false);
});

/** One cell's state, at another position. */
function renamed({ bytes }: StateCells, position: number): Uint8Array {
  new DataView(bytes.buffer).setInt32(16, position, true);
  return bytes;
}
