/** Keys that were moved, beside those that llama.cpp computes at that place, and beside those that it moves itself. */
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { RawKv } from "../../../../test/support/raw-kv.ts";
import { repositoryRoot } from "../../../../test/support/repository.ts";
import { library, loadModel, loadTiny } from "../../../../test/support/scheduler-rig.ts";
import type { Family } from "../../../../test/support/tiny-gguf.ts";
import { copyRows } from "../../../../test/support/state-rows.ts";
import { someTokens } from "../../../../test/support/tokens.ts";
import { rotatableTypes } from "../../../ffi/ggml-rope.ts";
import type { Model } from "../model/model.ts";
import { familyFacts } from "./family.ts";
import { distance, floatsOf } from "./key-floats.ts";
import { KeyRotation } from "./key-rotation.ts";
import { movable, type KeyMove } from "./movable.ts";
import { isPayload } from "./sequence-state.ts";
import { StateCells } from "./state-cells.ts";

const count = 24;
const text = someTokens(count, 5);
const rotateRows = library.createRotateRows(undefined)!; // CI's libraries have it
const all = { from: 0, to: count, tokenCount: count };
const layers = 4; // the fourth of SmolLM3 has no positions

class Moved {
  readonly kv: RawKv;
  readonly by: readonly KeyMove[];
  readonly layout;
  readonly rotation: KeyRotation;

  constructor(model: Model, keyType?: number) {
    this.kv = new RawKv(model, keyType === undefined ? {} : { keyType });
    this.layout = this.kv.layout;
    const found = movable({ family: familyFacts(model), layout: this.layout, keys: this.kv.keys });
    if ("refused" in found) throw new Error(found.refused);
    this.by = found.by;
    this.rotation = new KeyRotation({ layout: this.layout, by: this.by, rotateRows });
  }

  move(payload: Uint8Array, place: Parameters<KeyRotation["move"]>[1], threads = 1): Uint8Array {
    const into = new Uint8Array(this.rotation.bytesOf(place.to - place.from)).fill(0xa5);
    expect(this.rotation.move(payload, place, into, threads)).toBe(true);
    expect(isPayload(this.layout, into, { firstToken: place.first, tokenCount: place.to - place.from })).toBe(true);
    return into;
  }

  row(payload: Uint8Array, index: number, cells = count): Uint8Array {
    const { at, bytes } = StateCells.of(payload, { layout: this.layout, cells, streams: 1, sequence: 0 }).rows[index]!;
    return payload.subarray(at, at + cells * bytes);
  }

  /** Of a layer's keys; at most 1 where rounding explains it. */
  distance(actual: Uint8Array, expected: Uint8Array, layer: number): number {
    const { headSize, rope } = this.by[layer]!; // a layer with positions
    const { type } = this.layout.keys[layer]!;
    const floats = (payload: Uint8Array) => floatsOf(type, this.row(payload, layer));
    return distance({ type, headSize, dimensions: rope.dimensions, mode: rope.mode }, floats(actual), floats(expected));
  }

  /** Keys of all layers, then values. */
  unequalRows(actual: Uint8Array, expected: Uint8Array): number[] {
    const rows = [...this.layout.keys, ...this.layout.values];
    return rows.flatMap((_, i) => (Buffer.compare(this.row(actual, i), this.row(expected, i)) === 0 ? [] : [i]));
  }

  expectSameValues(actual: Uint8Array, expected: Uint8Array): void {
    expect(this.unequalRows(actual, expected).filter((i) => i >= this.layout.keys.length)).toEqual([]);
  }
}

const made = new Map<string, Moved>();
function of(family: Family, keyType?: number): Moved {
  const name = `${family} ${keyType}`;
  const moved = made.get(name) ?? new Moved(loadTiny({ family, layers, keyValueHeads: 2 }), keyType);
  made.set(name, moved);
  return moved;
}

afterAll(() => {
  for (const { kv } of made.values()) kv.free();
});

const families: readonly Family[] = ["llama", "qwen3", "yarn", "linear", "llama3", "longrope", "stablelm", "smollm3"];

describe.each(families)("%s", (family) => {
  test.each([1, 100, 1000])("the first layer's keys %i positions later are those that are computed there", (first) => {
    const moved = of(family);
    const stored = moved.kv.computed(text, 0);
    const there = moved.kv.computed(text, first);
    const actual = moved.move(stored, { ...all, first });
    expect(moved.distance(actual, there, 0)).toBeLessThan(1);
    expect(moved.distance(stored, there, 0)).toBeGreaterThan(20); // the test can tell them apart
    moved.expectSameValues(actual, stored);
  });

  test("and so are those that are moved to the front", () => {
    const moved = of(family);
    const stored = moved.kv.computed(text, 300);
    const actual = moved.move(stored, { ...all, from: 300, to: 300 + count, first: 3 });
    expect(moved.distance(actual, moved.kv.computed(text, 3), 0)).toBeLessThan(1);
    moved.expectSameValues(actual, stored);
  });

  test("not moved, all is what it was", () => {
    const moved = of(family);
    const stored = moved.kv.computed(text, 20);
    expect(moved.move(stored, { ...all, from: 20, to: 20 + count, first: 20 })).toEqual(stored);
  });

  test("a token at a time, and on two threads, it is the same as in one go", () => {
    const moved = of(family);
    const stored = moved.kv.computed(text, 0);
    const whole = moved.move(stored, { ...all, first: 77 });
    expect(moved.move(stored, { ...all, first: 77 }, 2)).toEqual(whole);
    for (const from of [0, 1, count - 1]) {
      const one = moved.move(stored, { ...all, from, to: from + 1, first: 77 + from });
      for (const [i, { bytes }] of [...moved.layout.keys, ...moved.layout.values].entries())
        expect(moved.row(one, i, 1)).toEqual(moved.row(whole, i).subarray(from * bytes, (from + 1) * bytes));
    }
  });
});

test.each<Family>(["llama", "qwen3", "linear", "llama3", "stablelm"])(
  "%s: all layers are, bit for bit, what llama.cpp makes of them when it moves them",
  (family) => {
    const moved = of(family);
    const actual = moved.move(moved.kv.computed(text, 0), { ...all, first: 100 });
    expect(moved.unequalRows(actual, moved.kv.shifted(text, 100))).toEqual([]);
  },
);

/** llama.cpp rotates all layers when it moves keys, also those that have no positions (v0.5.0, which knows such layers of other models). */
test("smollm3: the layer without positions stays as it is, which is nearly what is computed there", () => {
  const moved = of("smollm3");
  const stored = moved.kv.computed(text, 0);
  const [actual, shifted] = [moved.move(stored, { ...all, first: 100 }), moved.kv.shifted(text, 100)];
  expect(moved.by.map((move) => move === undefined)).toEqual([false, false, false, true]);
  expect(moved.unequalRows(actual, shifted)).toEqual([3]);
  const floats = (payload: Uint8Array) => floatsOf(rotatableTypes.f16, moved.row(payload, 3));
  const native = floats(moved.kv.computed(text, 100));
  const near = (payload: Uint8Array) =>
    Math.sqrt(floats(payload).reduce((sum, value, i) => sum + (value - native[i]!) ** 2, 0) / native.length);
  expect(near(actual)).toBeLessThan(0.002); // of three layers' rounding
  expect(near(shifted)).toBeGreaterThan(0.1);
});

/** llama.cpp multiplies the keys of these models once more whenever it moves any (build_rope_shift in v0.5.0). */
test.each([
  { family: "yarn", by: 1 + 0.1 * Math.log(4) },
  { family: "longrope", by: 1.19 },
] as const)("$family: all layers are what llama.cpp makes of them, but for its factor", ({ family, by }) => {
  const moved = of(family);
  const stored = moved.kv.computed(text, 0);
  const [actual, shifted] = [moved.move(stored, { ...all, first: 100 }), moved.kv.shifted(text, 100)];
  for (let layer = 0; layer < layers; layer += 1) {
    const { headSize, rope } = moved.by[layer]!;
    const [own, theirs] = [actual, shifted].map((each) => floatsOf(rotatableTypes.f16, moved.row(each, layer))) as [
      Float32Array,
      Float32Array,
    ];
    const heads = { type: rotatableTypes.f16, headSize, dimensions: rope.dimensions, mode: rope.mode };
    expect(
      distance(
        heads,
        own.map((value) => value * by),
        theirs,
      ),
    ).toBeLessThan(1);
    expect(distance(heads, own, theirs)).toBeGreaterThan(20);
  }
});

test.each([
  { title: "bf16", keyType: rotatableTypes.bf16, family: "llama" },
  { title: "f32", keyType: rotatableTypes.f32, family: "qwen3" },
  { title: "f32, half of a head", keyType: rotatableTypes.f32, family: "stablelm" },
] as const)("keys in $title are those that are computed there", ({ keyType, family }) => {
  const moved = of(family, keyType);
  const stored = moved.kv.computed(text, 0);
  expect(moved.layout.keys[0]!.type).toBe(keyType);
  const actual = moved.move(stored, { ...all, first: 100 });
  expect(moved.distance(actual, moved.kv.computed(text, 100), 0)).toBeLessThan(1);
  moved.expectSameValues(actual, stored);
});

test("keys in q8_0 of small heads are moved; those of large ones are stored Hadamard-rotated, and are not", () => {
  const q8 = rotatableTypes.q8_0;
  const moved = new Moved(loadTiny({ family: "qwen3", heads: 4, keyValueHeads: 2 }), q8); // 32 elements each
  const stored = moved.kv.computed(text, 0);
  const actual = moved.move(stored, { ...all, first: 100 });
  expect(moved.distance(actual, moved.kv.computed(text, 100), 0)).toBeLessThan(1);
  expect(moved.distance(stored, moved.kv.computed(text, 100), 0)).toBeGreaterThan(20);
  moved.kv.free();
  expect(() => of("qwen3", q8)).toThrow("Hadamard");
});

test("where nothing is to be rotated nothing is computed", () => {
  const { kv, layout, by } = of("yarn");
  const fail = () => expect.unreachable();
  const rotation = new KeyRotation({ layout, by, rotateRows: fail });
  const stored = kv.computed(text, 9);
  const into = new Uint8Array(rotation.bytesOf(count));
  expect(rotation.move(stored, { ...all, from: 9, to: 9 + count, first: 9 }, into, 1)).toBe(true);
  expect(into).toEqual(stored);
});

test("cells may lie in any order", () => {
  const moved = of("qwen3");
  const stored = moved.kv.computed(text, 0);
  const shape = { layout: moved.layout, cells: count, streams: 1, sequence: 0 };
  const swapped = stored.slice();
  const [first, second] = [
    StateCells.make(new Uint8Array(moved.rotation.bytesOf(10)), { ...shape, cells: 10 }, 0),
    StateCells.make(new Uint8Array(moved.rotation.bytesOf(14)), { ...shape, cells: 14 }, 10),
  ];
  const whole = StateCells.of(stored, shape);
  copyRows(first, whole, 0, 10);
  copyRows(second, whole, 10, count);
  // The last 14 positions before the first 10.
  const view = new DataView(swapped.buffer);
  for (let cell = 0; cell < count; cell += 1) view.setInt32(16 + 12 * cell, cell < 14 ? cell + 10 : cell - 14, true);
  for (const [i, { at, bytes }] of whole.rows.entries()) {
    const row = (state: StateCells) => state.view(state.rows[i]!.at, state.cells * bytes);
    swapped.set(row(second), at);
    swapped.set(row(first), at + 14 * bytes);
  }
  const place = { ...all, from: 5, to: 20, first: 50 };
  expect(moved.move(swapped, place)).toEqual(moved.move(stored, place));
});

test("a payload that lacks a position is not moved", () => {
  const moved = of("llama");
  const stored = moved.kv.computed(text, 0);
  const into = new Uint8Array(moved.rotation.bytesOf(count));
  expect(moved.rotation.move(stored, { from: 1, to: count + 1, tokenCount: count, first: 40 }, into, 1)).toBe(false);
});

test("the shipped model's keys are those that are computed there", () => {
  const moved = new Moved(loadModel(join(repositoryRoot, "models", "reprise-22m-q8_0.gguf")));
  const stored = moved.kv.computed(text, 0);
  const actual = moved.move(stored, { ...all, first: 1000 });
  expect(moved.distance(actual, moved.kv.computed(text, 1000), 0)).toBeLessThan(1);
  expect(moved.unequalRows(actual, moved.kv.shifted(text, 1000))).toEqual([]);
  moved.kv.free();
});
