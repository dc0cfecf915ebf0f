import { describe, expect, test } from "vitest";
import { library, loadTiny } from "../../../../test/support/scheduler-rig.ts";
import type { Family } from "../../../../test/support/tiny-gguf.ts";
import { someTokens } from "../../../../test/support/tokens.ts";
import type { LayerKeys } from "../../../ffi/key-ropes.ts";
import type { Library } from "../model/library.ts";
import { type CellLayout, Context } from "./context.ts";
import { measureLayout } from "./family.ts";
import { payloadBytes } from "./sequence-state.ts";
import { provenRotation } from "./proven-rotation.ts";
import { StepThreads } from "./thread-choice.ts";

function proven(family: Family, { cells = "unified", from = library }: { cells?: CellLayout; from?: Library } = {}) {
  const model = loadTiny({ family, layers: 4 });
  const threads = new StepThreads(1, { deterministic: true });
  const shape = { library: from, model, threads, threadPool: undefined, abortFlag: undefined };
  const context = Context.create({ ...shape, cells: 3 * 512, sequences: 3, layout: cells });
  const { layout } = measureLayout(context);
  const found = provenRotation({ library: from, model, context, layout, threadPool: undefined });
  return { context, layout, found };
}

describe.each<CellLayout>(["unified", "streams", "device"])("in cells that are %s", (cells) => {
  test.each<Family>(["llama", "yarn", "smollm3"])("a rotation of %s is proven, and nothing is left of it", (family) => {
    const { context, layout, found } = proven(family, { cells });
    expect(found).toHaveProperty("rotation");
    expect([0, 1, 2].map((sequence) => context.length(sequence))).toEqual([0, 0, 0]);
    context.begin();
    for (const [i, token] of someTokens(8, 3).entries()) context.add(0, i, token, i === 7);
    expect(context.decode()).toBe("done");
    const payload = new Uint8Array(payloadBytes(layout!, 8)); // of a plain model
    expect(context.copies.save(0, 0, 8, payload)).toBe(payload.length);
    expect(context.state(0).length).toBe(payload.length + 4 * (context.streams - 1));
    context.free();
  });
});

test.each<Family>(["gemma3", "qwen2vl", "mamba"])("%s is refused before anything is computed", (family) => {
  const { context, found } = proven(family);
  expect(found).toEqual({ refused: expect.any(String) });
  context.free();
});

type Changed = Partial<Extract<LayerKeys, { are: "rotated" }>["rope"]>;

/** Libraries whose graphs are not what they compute. */
function lying(changed: Changed): Library {
  const findKeyRopes: Library["findKeyRopes"] = (...asked) =>
    library.findKeyRopes!(...asked)?.map((keys) =>
      keys.are === "rotated" ? { ...keys, rope: { ...keys.rope, ...changed } } : keys,
    );
  return { ...library, findKeyRopes };
}

test.each<[string, Family, Changed]>([
  ["another base", "llama", { base: 20_000 }],
  ["other pairs", "llama", { mode: 2 }],
  ["a part of a head", "qwen3", { dimensions: 32 }],
  ["YaRN that is not there", "llama", { extension: 1, scale: 0.25 }],
  ["no YaRN, where there is", "yarn", { extension: 0 }],
  ["no divisors, where there are", "llama3", { factors: undefined }],
])("a rotation with %s is refused, and why is said", (_, family, changed) => {
  const { context, found } = proven(family, { from: lying(changed) });
  expect(found).toEqual({
    refused: expect.stringMatching(/^its keys, rotated, are not those .*\(off by [\d.e+]+ times/),
  });
  context.free();
});

test("libraries that cannot rotate, or do not say how, are a reason", () => {
  const without = [
    { ...library, createRotateRows: () => undefined },
    { ...library, findKeyRopes: undefined },
  ];
  const found = without.map((from) => proven("llama", { from }).found);
  expect(found).toEqual([
    { refused: "these libraries cannot rotate its keys" },
    { refused: "these libraries do not say how its keys are rotated" },
  ]);
});

test("a kernel that fails is a reason", () => {
  const fail = () => {
    throw new Error("ggml could not rotate rows: status -1");
  };
  const { found } = proven("llama", { from: { ...library, createRotateRows: () => fail } });
  expect(found).toEqual({ refused: "ggml could not rotate rows: status -1" });
});
