import { expect, test } from "vitest";
import { areAllLayers } from "./contexts.ts";

test("a model is on a GPU as a whole where what follows its last layer is there too", () => {
  expect([undefined, 99, 13].map((gpuLayers) => areAllLayers(gpuLayers, 12))).toEqual([true, true, true]);
  expect([12, 1, 0].map((gpuLayers) => areAllLayers(gpuLayers, 12))).toEqual([false, false, false]);
});
