import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { temporaryDirectory } from "../../../../test/support/data-directory.ts";
import {
  hasGpuPackages,
  plainName,
  realName,
  searchPackagesIn,
  writeGpuPackage,
} from "../../../../test/support/gpu-package.ts";
import { createLog } from "../../../log.ts";
import type { EngineSettings } from "../engine-settings.ts";
import type { GpuUse } from "../model/library-places.ts";
import { chooseGpu } from "./gpu-choice.ts";

const settings: Omit<EngineSettings, "gpu"> = {
  contextTokens: undefined,
  sequences: 1,
  threads: 1,
  gpuLayers: undefined,
  deterministic: false,
  draft: "off",
  socketPath: undefined,
};

/** Chooses where the packages of both kinds are, and trials of these go well. */
async function choose(gpu: GpuUse, ...wellFor: string[]): Promise<{ chosen: EngineSettings; lines: string[] }> {
  const folder = temporaryDirectory();
  for (const kind of ["cuda", "vulkan"] as const) writeGpuPackage(folder, realName(kind), kind);
  searchPackagesIn(folder);
  const program = join(folder, "probe.mjs");
  const device = { name: "GPU0", description: "a GPU", kind: "gpu", freeBytes: 1, totalBytes: 2 ** 30 };
  writeFileSync(
    program,
    `process.once("message", ({ options }) => {
       if (!${JSON.stringify(wellFor)}.some((kind) => options.build.endsWith(kind))) process.exit(3);
       process.send({ kind: "devices", devices: [${JSON.stringify(device)}] });
       process.send({ kind: "usable" });
     });`,
  );
  const lines: string[] = [];
  const log = createLog({ level: "info", write: (line) => lines.push(line) });
  const { signal } = new AbortController();
  return { chosen: await chooseGpu({ settings: { ...settings, gpu }, signal, log, program }), lines };
}

test.runIf(hasGpuPackages)("the first whose trial goes well is taken, and one line says so", async () => {
  const both = await choose("auto", "cuda", "vulkan");
  expect(both.chosen).toEqual({ ...settings, gpu: "auto", gpuBuild: `${plainName}-cuda` });
  expect(both.lines).toEqual([expect.stringMatching(/info {2}computing on GPU0 \(a GPU, 1 GiB\), by \S+-cuda\n$/)]);
  const second = await choose("on", "vulkan");
  expect(second.chosen).toEqual({ ...settings, gpu: "on", gpuBuild: `${plainName}-vulkan` });
  expect(second.lines).toEqual([expect.stringMatching(/by \S+-vulkan; not by \S+-cuda: .*code 3/)]);
});

test.runIf(hasGpuPackages)("where no trial goes well one line has every reason, or one error", async () => {
  const none = await choose("auto");
  expect(none.chosen).toEqual({ ...settings, gpu: "off" });
  expect(none.lines).toEqual([
    expect.stringMatching(/warn {2}the GPU is not used.*-cuda: .*code 3; .*-vulkan: .*code 3/),
  ]);
  await expect(choose("on")).rejects.toMatchObject({
    code: "LIBRARY_UNSUPPORTED",
    message: expect.stringMatching(/--gpu on: no GPU can be used.*-cuda: .*-vulkan: /),
  });
});

test.runIf(hasGpuPackages)("with off nothing is tried", async () => {
  const off = await choose("off", "cuda");
  expect(off).toEqual({ chosen: { ...settings, gpu: "off" }, lines: [] });
});
