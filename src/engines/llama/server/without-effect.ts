/**
 * Settings that were asked for and change nothing beside others, or on this machine: each gets a line, since its silence would look like
 * success.
 */
import type { EngineSettings } from "../engine-settings.ts";

/** @param settings as {@link chooseGpu} has left them: without a build of the libraries no GPU is used */
export function withoutEffect({ gpu, gpuBuild, gpuLayers, maxGapMs, deterministic }: EngineSettings): string[] {
  const lines: string[] = [];
  // 0 layers on a GPU is what happens without one.
  if (gpuLayers !== undefined && gpuLayers > 0 && gpuBuild === undefined) {
    const install = gpu === "off" ? "" : ", and no libraries for one were found (docs/gpu.md)";
    lines.push(`--gpu-layers ${gpuLayers} has no effect: no GPU is used${install}`);
  }
  if (maxGapMs !== undefined && deterministic)
    lines.push(`--max-gap ${maxGapMs} has no effect: with --deterministic prompts are read in pieces of one size`);
  return lines;
}
