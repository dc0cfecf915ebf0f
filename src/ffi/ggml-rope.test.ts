/** ggml's rotations beside a plain twin of them. */
import { expect, test } from "vitest";
import { library } from "../../test/support/scheduler-rig.ts";
import { numbers } from "../../test/support/tokens.ts";
import { type Rope, rotatableTypes } from "./ggml-rope.ts";
import { addressOf } from "./posix.ts";

const plain: Rope = {
  dimensions: 64,
  mode: 0,
  originalContext: 4096,
  base: 10_000,
  scale: 1,
  extension: 0,
  magnitude: 1,
  betaFast: 32,
  betaSlow: 1,
  factors: undefined,
};
const divisors = Float32Array.from({ length: 32 }, (_, i) => 1 + i / 4);
const rotateRows = library.createRotateRows(undefined)!; // CI's libraries have it

function someFloats(count: number, seed: number): Float32Array {
  const random = numbers(seed);
  return Float32Array.from({ length: count }, () => (random(2000) - 1000) / 250);
}

/** Su et al. 2021 (RoPE) and Peng et al. 2023 (YaRN), in f32 where ggml has f32, an element at a time. */
function twin(rows: Float32Array, rope: Rope, headSize: number, positions: number): Float32Array {
  const { dimensions, mode, base, scale, extension, magnitude, factors } = rope;
  const f32 = Math.fround;
  const step = f32(base ** (-2 / dimensions));
  const [low, high] = corrections(rope);
  const into = rows.slice();
  for (let head = 0; head < rows.length; head += headSize) {
    let angle = f32(positions);
    for (let pair = 0; pair < dimensions / 2; pair += 1) {
      const [a, b] = mode === 0 ? [2 * pair, 2 * pair + 1] : [pair, pair + dimensions / 2];
      const extrapolated = f32(angle / (factors?.[pair] ?? 1));
      const interpolated = f32(scale * extrapolated);
      const ramp = extension * (1 - Math.min(1, Math.max(0, (pair - low) / Math.max(0.001, high - low))));
      const theta = f32(interpolated * (1 - ramp) + extrapolated * ramp);
      const by = magnitude * (extension === 0 ? 1 : 1 + 0.1 * Math.log(1 / scale));
      const [x, y] = [rows[head + a]!, rows[head + b]!];
      into[head + a] = by * (x * Math.cos(theta) - y * Math.sin(theta));
      into[head + b] = by * (x * Math.sin(theta) + y * Math.cos(theta));
      angle = f32(angle * step);
    }
  }
  return into;
}

/** The pairs between which YaRN goes over from one frequency to the other. */
function corrections({ dimensions, originalContext, base, betaFast, betaSlow }: Rope): [number, number] {
  const pairOf = (turns: number) =>
    (dimensions * Math.log(originalContext / (turns * 2 * Math.PI))) / (2 * Math.log(base));
  return [Math.max(0, Math.floor(pairOf(betaFast))), Math.min(dimensions - 1, Math.ceil(pairOf(betaSlow)))];
}

function rotated(rows: Float32Array, rope: Rope, headSize: number, positions: number): Float32Array {
  const into = new Float32Array(rows.length).fill(NaN);
  const [from, to] = [rows, into].map((each) => addressOf(each.buffer)) as [bigint, bigint];
  const { f32: type } = rotatableTypes;
  rotateRows([{ rope, type, headSize, heads: rows.length / headSize, from, to }], positions, 1);
  return into;
}

const largest = (values: Float32Array) => values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);

test.each<[string, Partial<Rope>, number]>([
  ["neighbours", {}, 64],
  ["halves", { mode: 2 }, 64],
  ["a part of a head", { dimensions: 32, mode: 2 }, 80],
  ["neighbours of a part of a head", { dimensions: 16 }, 64],
  ["another base", { base: 1e6, mode: 2 }, 64],
  ["linear scaling", { scale: 0.25 }, 64],
  ["divisors", { factors: divisors }, 64],
  ["YaRN", { extension: 1, scale: 0.25, magnitude: 1 / (1 + 0.1 * Math.log(4)) }, 64],
  ["a magnitude", { magnitude: 1.19 }, 64],
])("%s are rotated as by the twin", (_, changed, headSize) => {
  const rope = { ...plain, ...changed };
  const rows = someFloats(headSize * 7, 3);
  for (const positions of [1, 100, -100, 4096, 131_072, -131_072]) {
    const expected = twin(rows, rope, headSize, positions);
    const off = rotated(rows, rope, headSize, positions).map((value, i) => value - expected[i]!);
    // An angle in f32 is off by as much as its size allows.
    expect(largest(off)).toBeLessThan(4 * (2e-6 + 4 * 2 ** -24 * Math.abs(positions)));
  }
});

test("forth and back is the same, and twice is once by both", () => {
  const rows = someFloats(64 * 4, 5);
  const there = rotated(rows, plain, 64, 500);
  expect(largest(rotated(there, plain, 64, -500).map((value, i) => value - rows[i]!))).toBeLessThan(1e-4);
  const once = rotated(rows, plain, 64, 600);
  expect(largest(rotated(there, plain, 64, 100).map((value, i) => value - once[i]!))).toBeLessThan(1e-3);
});

test("rows are rotated where they are, at any address, and nothing beside them is written", () => {
  const { f16: type } = rotatableTypes;
  const bytes = Uint8Array.from({ length: 2 * 64 * 3 + 12 }, (_, i) => (i % 2 === 0 ? i : 0x3c));
  const at = addressOf(bytes.buffer);
  const into = new Uint8Array(bytes.length + 10).fill(0xa5);
  rotateRows([{ rope: plain, type, headSize: 64, heads: 3, from: at + 6n, to: addressOf(into.buffer) + 2n }], 9, 1);
  expect([...into.subarray(0, 2), ...into.subarray(2 + 2 * 64 * 3)]).toEqual(Array.from({ length: 22 }, () => 0xa5));
  const inPlace = bytes.slice();
  const own = addressOf(inPlace.buffer) + 6n;
  rotateRows([{ rope: plain, type, headSize: 64, heads: 3, from: own, to: own }], 9, 2);
  expect(inPlace.subarray(6, 6 + 2 * 64 * 3)).toEqual(into.subarray(2, 2 + 2 * 64 * 3));
  expect(inPlace.subarray(0, 6)).toEqual(bytes.subarray(0, 6));
});

test("many rows are rotated as few are", () => {
  const { f16: type } = rotatableTypes;
  const [heads, headBytes] = [10_001, 2 * 64]; // more than a block has
  const rows = Uint8Array.from({ length: heads * headBytes }, (_, i) => (i % 2 === 0 ? i % 251 : 0x38 + (i % 5)));
  const [together, apart] = [new Uint8Array(rows.length), new Uint8Array(rows.length)];
  const from = addressOf(rows.buffer);
  rotateRows([{ rope: plain, type, headSize: 64, heads, from, to: addressOf(together.buffer) }], 77, 1);
  for (let head = 0; head < heads; head += 1000) {
    const at = BigInt(head * headBytes);
    const part = { heads: Math.min(1000, heads - head), from: from + at, to: addressOf(apart.buffer) + at };
    rotateRows([{ rope: plain, type, headSize: 64, ...part }], 77, 1);
  }
  expect(Buffer.compare(together, apart)).toBe(0);
  expect(Buffer.compare(together, rows)).not.toBe(0);
});
