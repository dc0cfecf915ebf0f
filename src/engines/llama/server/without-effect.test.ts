import { expect, test } from "vitest";
import type { EngineSettings } from "../engine-settings.ts";
import { withoutEffect } from "./without-effect.ts";

const settings: EngineSettings = {
  contextTokens: undefined,
  sequences: 4,
  threads: undefined,
  gpu: "auto",
  gpuLayers: undefined,
  deterministic: false,
  draft: "off",
  socketPath: undefined,
};

test("settings that do something, or were not given, get no line", () => {
  expect(withoutEffect(settings)).toEqual([]);
  expect(withoutEffect({ ...settings, deterministic: true })).toEqual([]);
  expect(withoutEffect({ ...settings, maxGapMs: 20, gpuLayers: 5, gpuBuild: "linux-x64-cuda" })).toEqual([]);
  expect(withoutEffect({ ...settings, gpu: "off", gpuLayers: 0 })).toEqual([]);
});

test("layers for a GPU without a GPU get a line", () => {
  expect(withoutEffect({ ...settings, gpuLayers: 5 })).toEqual([
    "--gpu-layers 5 has no effect: no GPU is used, and no libraries for one were found (docs/gpu.md)",
  ]);
  expect(withoutEffect({ ...settings, gpu: "off", gpuLayers: 5 })).toEqual([
    "--gpu-layers 5 has no effect: no GPU is used",
  ]);
});

test("a longest gap in deterministic mode gets a line", () => {
  expect(withoutEffect({ ...settings, maxGapMs: 20, deterministic: true })).toEqual([
    "--max-gap 20 has no effect: with --deterministic prompts are read in pieces of one size",
  ]);
});
