import { randomBytes } from "node:crypto";
import { expect, test } from "vitest";
import { merge, split } from "./planes.ts";

/** Of every length and place in memory, aligned or not. */
const cases = [0, 1, 2, 3, 4, 5, 7, 8, 1000, 1001, 65_537].flatMap((bytes) =>
  [0, 1, 2, 4].map((offset) => [bytes, offset] as const),
);

test.each(cases)("%i bytes at %i: every byte in its plane, and back", (bytes, offset) => {
  const whole = new Uint8Array(bytes + offset + 8).subarray(offset, offset + bytes);
  whole.set(randomBytes(bytes));
  const first = new Uint8Array(Math.ceil(bytes / 2));
  const second = new Uint8Array(Math.floor(bytes / 2));
  split(whole, first, second);
  expect([...first]).toEqual([...whole].filter((_, i) => i % 2 === 0));
  expect([...second]).toEqual([...whole].filter((_, i) => i % 2 === 1));

  const around = new Uint8Array(bytes + offset + 8).fill(0xee);
  merge(first, second, around.subarray(offset, offset + bytes));
  expect([...around.subarray(offset, offset + bytes)]).toEqual([...whole]);
  expect(around.filter((byte, i) => (i < offset || i >= offset + bytes) && byte !== 0xee)).toHaveLength(0);
});
