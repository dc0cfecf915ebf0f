/**
 * A GPU from its trial to an answer, on one that every machine can have: Mesa's llvmpipe, which is Vulkan by software. It needs
 * Debian's mesa-vulkan-drivers and libvulkan1, and REPRISE_TEST_VULKAN: a `node_modules` with the Vulkan package of llama.cpp.
 */
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { createLog } from "../src/log.ts";
import { EngineBench, ask } from "./support/engine.ts";
import { plainName, searchPackagesIn, setVariable } from "./support/gpu-package.ts";
import { shippedModelPath } from "./support/repository.ts";
import { someTokens } from "./support/tokens.ts";

const drivers = "/usr/share/vulkan/icd.d";
const driver = existsSync(drivers) ? readdirSync(drivers).find((file) => file.startsWith("lvp_icd")) : undefined;
const modules = process.env["REPRISE_TEST_VULKAN"] ?? "";
const isHere = driver !== undefined && existsSync(join(modules, "@node-llama-cpp", `${plainName}-vulkan`));

/** Shaders are compiled on the processor, twice: for the trial, and for the engine. */
const limitMs = 400_000;

test.runIf(isHere)(
  "a GPU that Vulkan reaches passes its trial, and gives the answer that the processor gives",
  async () => {
    await using bench = new EngineBench({ path: shippedModelPath });
    const prompt = someTokens(60, 1);
    const here = bench.start({ gpu: "off" });
    await here.ready;
    const expected = await ask(here, prompt);

    searchPackagesIn(modules);
    setVariable("VK_ICD_FILENAMES", join(drivers, driver ?? ""));
    setVariable("GGML_VK_VISIBLE_DEVICES", "0"); // ggml takes no processor for a GPU unless it is told to
    const lines: string[] = [];
    const log = createLog({ level: "info", write: (line) => lines.push(line) });
    const engine = bench.start({ gpu: "on" }, { log });
    await engine.ready;
    expect(lines).toEqual([
      expect.stringMatching(/computing on Vulkan0 \(llvmpipe .*by @node-llama-cpp\/linux-\w+-vulkan/),
    ]);
    expect((await ask(engine, prompt)).tokens).toEqual(expected.tokens);
    // What was read stays on the device, and is found there.
    const again = await ask(engine, prompt);
    expect(again.report.reused.resident).toBeGreaterThan(0);
    expect(again.tokens).toEqual(expected.tokens);
  },
  limitMs,
);
