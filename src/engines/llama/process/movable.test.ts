import { expect, test } from "vitest";
import { rotatableTypes } from "../../../ffi/ggml-rope.ts";
import type { LayerKeys } from "../../../ffi/key-ropes.ts";
import type { FamilyFacts } from "./family.ts";
import { type Movable, type MoveFacts, movable } from "./movable.ts";

const { f16, bf16, f32, q8_0 } = rotatableTypes;
const family: FamilyFacts = {
  architecture: "llama",
  recurrent: false,
  hybrid: false,
  slidingWindow: 0,
  ropeType: 0,
  metadata: new Map([["llama.rope.freq_base", "10000"]]),
};
const rope = {
  dimensions: 128,
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
const rotated = { are: "rotated", headSize: 128, heads: 8, rope } as const;
const withoutPosition: LayerKeys = { are: "without position" };

/** Of two layers whose keys are stored in this type and so many bytes a token. */
function facts(keys: readonly LayerKeys[] | undefined, type: number = f16, bytes = 8 * 128 * 2): MoveFacts {
  const rows = [1, 2].map(() => ({ type, bytes }));
  return { family, layout: { keys: rows, values: rows }, keys };
}
const both = (keys: LayerKeys) => [keys, keys];
const withRope = (changed: Partial<typeof rope>) => ({ ...rotated, rope: { ...rope, ...changed } });
const magnitudes = (found: Movable) => ("by" in found ? found.by.map((move) => move?.rope.magnitude) : found.refused);

test.each([
  ["Llama", facts(both(rotated)), [1, 1]],
  ["Qwen3", facts(both(withRope({ mode: 2, base: 1e6 }))), [1, 1]],
  ["Llama 3, by divisors", facts(both(withRope({ factors: Float32Array.of(1, 2) } as object))), [1, 1]],
  ["a part of a head", facts(both(withRope({ dimensions: 32, mode: 2 }))), [1, 1]],
  ["linear scaling", facts(both(withRope({ scale: 0.25 }))), [1, 1]],
  ["SmolLM3, whose layers have positions or have none", facts([rotated, withoutPosition]), [1, undefined]],
  ["keys in bf16", facts(both(rotated), bf16), [1, 1]],
  ["keys in f32", facts(both(rotated), f32, 8 * 128 * 4), [1, 1]],
  ["keys in q8_0", facts(both(rotated), q8_0, 8 * 4 * 34), [1, 1]],
])("%s is moved", (_, given, expected) => {
  expect(magnitudes(movable(given))).toEqual(expected);
});

test("keys that were multiplied are not multiplied again", () => {
  const yarn = facts(both(withRope({ extension: 1, scale: 0.25, magnitude: 1 })));
  const found = movable(yarn);
  expect(magnitudes(found)).toEqual([1, 2].map(() => 1 / (1 + 0.1 * Math.log(4))));
  expect(found).toMatchObject({ by: [{ headSize: 128, heads: 8, rope: { extension: 1, scale: 0.25 } }, {}] });
  const longRope = facts(both(withRope({ magnitude: 1.19 })));
  expect(magnitudes(movable(longRope))).toEqual([1, 1]);
});

const other = (operation: string): LayerKeys => ({ are: "something else", operation });

test.each<[string, MoveFacts, string]>([
  ["Mamba", { ...facts(both(rotated)), family: { ...family, recurrent: true } }, "recurrent"],
  ["Qwen3-Next", { ...facts(both(rotated)), family: { ...family, hybrid: true } }, "hybrid"],
  ["Gemma 3", { ...facts(both(rotated)), family: { ...family, slidingWindow: 512 } }, "slides over 512 tokens"],
  ["Qwen2-VL", { ...facts(both(rotated)), family: { ...family, ropeType: 8 } }, "M-RoPE"],
  [
    "DeepSeek",
    {
      ...facts(both(rotated)),
      family: {
        ...family,
        architecture: "deepseek2",
        metadata: new Map([["deepseek2.attention.key_length_mla", "192"]]),
      },
    },
    "MLA",
  ],
  ["GPT-2", facts(both(withoutPosition)), "no RoPE"],
  ["an unknown payload", { ...facts(both(rotated)), layout: undefined }, "not known"],
  ["a library that does not say", facts(undefined), "do not say"],
  ["a layer too few", facts([rotated]), "do not say"],
  [
    "keys with something behind the rotated part",
    facts(both(other("CONCAT"))),
    "changed after they were rotated (CONCAT)",
  ],
  ["keys in q8_0, spread", facts(both(other("MUL_MAT")), q8_0, 8 * 4 * 34), "Hadamard"],
  ["keys in f16, multiplied", facts(both(other("MUL_MAT"))), "(MUL_MAT)"],
  ["keys in q4_0", facts(both(rotated), 2, 8 * 4 * 18), "type 2"],
  ["small heads in q8_0", facts(both({ ...rotated, headSize: 16 }), q8_0, 8 * 34), "type 8"],
  ["a rotation of several axes", facts(both(withRope({ mode: 40 }))), "M-RoPE"],
  ["rows that hold more", facts(both(rotated), f16, 9 * 128 * 2), "as they are stored"],
])("%s is not moved", (_, given, reason) => {
  expect(movable(given)).toEqual({ refused: expect.stringContaining(reason) });
});
