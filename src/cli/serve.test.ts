import { expect, test } from "vitest";
import { resolveConfig } from "../config.ts";
import { engineSettings, mustBeAlike } from "./serve.ts";

test("what nobody set is left for the engine process to choose: it knows the model and the machine's cores", () => {
  const config = resolveConfig({ flags: {}, environment: {} });
  expect(engineSettings(config, "/run/cache.sock")).toEqual({
    contextTokens: undefined,
    sequences: 4,
    threads: undefined,
    gpu: "auto",
    maxGapMs: undefined,
    gpuLayers: undefined,
    deterministic: false,
    draft: "off",
    socketPath: "/run/cache.sock",
  });
});

test("what was set arrives as it was set, no layers on the GPU included", () => {
  const flags = {
    context: "512",
    sequences: "2",
    threads: "3",
    maxGap: "80",
    gpu: "off",
    gpuLayers: "0",
    deterministic: "true",
  };
  expect(engineSettings(resolveConfig({ flags, environment: {} }), "/run/cache.sock")).toEqual({
    contextTokens: 512,
    sequences: 2,
    threads: 3,
    gpu: "off",
    maxGapMs: 80,
    gpuLayers: 0,
    deterministic: true,
    draft: "off",
    socketPath: "/run/cache.sock",
  });
});

test("answers that are to be the same bit for bit are not drafted", () => {
  const config = (flags: Record<string, string>) => resolveConfig({ flags, environment: {} });
  expect(engineSettings(config({ draft: "lookup" }), "/run/cache.sock").draft).toBe("lookup");
  expect(() => mustBeAlike(config({ draft: "lookup", deterministic: "true" }))).toThrow("--draft lookup");
  expect(() => mustBeAlike(config({ draft: "off", deterministic: "true" }))).not.toThrow();
  expect(() => mustBeAlike(config({ draft: "lookup" }))).not.toThrow();
});
