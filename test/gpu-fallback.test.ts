/** Libraries for a GPU that cannot be used must not keep a server from starting: it starts on the CPU, and says so once. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import type { LlamaEngineOptions } from "../src/engines/llama/server/engine.ts";
import { createLog } from "../src/log.ts";
import { ask as askServer } from "./support/client.ts";
import { temporaryDirectory } from "./support/data-directory.ts";
import { EngineBench, ask } from "./support/engine.ts";
import { elfFile, fatBinary } from "./support/fat-binary.ts";
import {
  binsOf,
  compileLibrary,
  driverOfH200,
  hasCompiler,
  hasGpuPackages,
  onOpening,
  realName,
  searchPackagesIn,
  setVariable,
  writeGpuPackage,
  writeOwnBuild,
} from "./support/gpu-package.ts";
import { startServer } from "./support/server.ts";
import { someTokens } from "./support/tokens.ts";

const watched = { silentMs: 1000, hungMs: 1000, busyMs: 60_000, tickMs: 100 };

const faults: Record<string, { named?: (file: string) => string | undefined; says: RegExp }> = {
  "has other names than are known": { named: (file) => file.replace("lib", "libx"), says: /no file like/ },
  "cannot be loaded": {
    named: (file) => (file.startsWith("libggml-base") ? "damaged" : realName("vulkan")(file)),
    says: /cannot be loaded: .*file too short/,
  },
  "has nothing that computes on a GPU": { says: /no GPU is found by Vulkan/ },
};

for (const [fault, { named = realName("vulkan"), says }] of Object.entries(faults)) {
  test.runIf(hasGpuPackages)(`a package for a GPU that ${fault}: the CPU serves`, async () => {
    await using bench = new EngineBench();
    writeGpuPackage(bench.path, named, "vulkan");
    expect(await linesOf(bench)).toEqual([notUsed(says)]);
  });
}

const stubs: Record<string, { source: string; flags?: readonly string[]; says: RegExp }> = {
  "needs a library that is missing": {
    source: "",
    flags: ["-Wl,--no-as-needed", "-lmissing"],
    says: /libmissing\.so is missing/,
  },
  "ends its process": {
    source: onOpening(`fprintf(stderr, "no kernel image\\n"); abort();`),
    says: /a trial failed while opening the libraries: it died of SIGABRT: .*no kernel image/,
  },
  hangs: { source: onOpening("for (;;) pause();"), says: /a trial failed while opening the libraries: it did nothing/ },
  "ends its process in order": { source: onOpening("exit(0);"), says: /it ended with code 0/ },
};

for (const [fault, { source, flags = [], says }] of Object.entries(stubs)) {
  test.runIf(hasCompiler)(
    `a GPU's library that ${fault}: the CPU serves, or nothing does where a GPU must`,
    async () => {
      await using bench = new EngineBench();
      writeGpuPackage(bench.path, realName("vulkan"), "vulkan");
      // What is linked against is there only while it is linked.
      if (flags.length > 0) compileLibrary(join(bench.path, "libmissing.so"), "", "-Wl,-soname,libmissing.so");
      compileLibrary(join(binsOf(bench.path, "vulkan"), "libggml-vulkan.so"), source, `-L${bench.path}`, ...flags);
      expect(await linesOf(bench)).toEqual([notUsed(says)]);

      const engine = bench.start({ gpu: "on" }, { probeLimits: watched });
      await expect(engine.ready).rejects.toMatchObject({
        code: "LIBRARY_UNSUPPORTED",
        message: expect.stringMatching(says),
      });
    },
  );
}

test.runIf(hasGpuPackages)(
  "a GPU that must be used and no libraries for one: an error that says what to install",
  async () => {
    await using bench = new EngineBench();
    await expect(bench.start({ gpu: "on" }).ready).rejects.toMatchObject({
      code: "LIBRARY_UNSUPPORTED",
      message: expect.stringMatching(/npm install @node-llama-cpp\/linux-\w+-cuda@/),
    });
  },
);

test.runIf(hasCompiler)(
  "`reprise serve` with a CUDA package whose code no GPU here runs answers, and says why in one line",
  async () => {
    const folder = temporaryDirectory();
    writeGpuPackage(folder);
    compileLibrary(join(folder, "libcuda.so.1"), driverOfH200, "-Wl,-soname,libcuda.so.1");
    const code = fatBinary([
      { kind: "machine", architecture: 86 },
      { kind: "ptx", architecture: 90, version: [9, 1] },
    ]);
    writeFileSync(join(binsOf(folder, "cuda"), "libggml-cuda.so"), elfFile({ ".nv_fatbin": code }));
    const environment = { NODE_PATH: folder, LD_LIBRARY_PATH: folder };
    const server = await startServer({ dataDirectory: join(folder, "data"), environment });
    expect(await askServer(server.url, "/v1/completions", { prompt: "Hello", max_tokens: 1 })).toMatchObject({
      completionTokens: 1,
    });
    const warnings = server.output().match(/.* warn .*/g);
    expect(warnings).toEqual([
      expect.stringMatching(
        /the GPU is not used.*NVIDIA H200 is sm_90.*sm_86.*PTX 9\.1.*CUDA 13\.1 or newer.*CUDA 13\.0/,
      ),
    ]);
    expect(await server.stop()).toBe(0);
  },
);

test.runIf(hasCompiler)("a CUDA package without NVIDIA's run-time libraries says which", async () => {
  await using bench = new EngineBench();
  writeGpuPackage(bench.path);
  compileLibrary(join(bench.path, "libcuda.so.1"), driverOfH200, "-Wl,-soname,libcuda.so.1");
  compileLibrary(join(bench.path, "libcublas.so"), "", "-Wl,-soname,libcublas.so.13");
  compileLibrary(
    join(binsOf(bench.path, "cuda"), "libggml-cuda.so"),
    "",
    `-L${bench.path}`,
    "-Wl,--no-as-needed",
    "-lcublas",
  );
  setVariable("LD_LIBRARY_PATH", bench.path);
  expect(await linesOf(bench)).toEqual([notUsed(/CUDA 13 run-time libraries are missing \(libcublas\.so\.13\)/)]);
});

test.runIf(hasCompiler)(
  "with --gpu off a GPU's library is not even opened, in a build of one's own neither",
  async () => {
    await using bench = new EngineBench();
    const llamaLib = writeOwnBuild(join(bench.path, "own"));
    compileLibrary(join(llamaLib, "libggml-vulkan.so"), onOpening("abort();"));
    const { lines, options } = listening();
    const engine = bench.start({ gpu: "off", llamaLib }, options);
    await engine.ready;
    expect((await ask(engine, someTokens(20, 1))).tokens).toHaveLength(8);
    expect(lines).toEqual([]);
    // Where it shall be used, it is tried; the build's own part for the CPU serves then.
    expect(await linesOf(bench, {}, { llamaLib })).toEqual([notUsed(/--llama-lib .*own: .*SIGABRT/)]);
  },
);

const engineFaults: Record<string, { does: string; says: RegExp }> = {
  // As ggml does when a driver knows none of its code: a line, and SIGABRT.
  "dies in a GPU's libraries": {
    does: `process.stderr.write("no kernel image\\n"); process.kill(process.pid, "SIGABRT");`,
    says: /SIGABRT.*no kernel image/,
  },
  "finds the GPU full": {
    does: `process.send({ kind: "refused", code: "NOT_ENOUGH_MEMORY", message: "it is full" }, () => process.exit(1));`,
    says: /it is full/,
  },
};

for (const [fault, { does, says }] of Object.entries(engineFaults)) {
  test.runIf(hasGpuPackages)(
    `an engine process that ${fault} although the trial went well: the CPU serves`,
    async () => {
      await using bench = new EngineBench();
      writeGpuPackage(bench.path);
      const programs = { engineProgram: faultyEngine(bench.path, does), probeProgram: contentProbe(bench.path) };
      expect(await linesOf(bench, programs)).toEqual([notUsed(says)]);
      await expect(bench.start({ gpu: "on" }, programs).ready).rejects.toThrowError(says);
    },
  );
}

/** An engine process that does this where it is to use a GPU. */
function faultyEngine(folder: string, does: string): string {
  const program = join(folder, "faulty.mjs");
  const real = new URL("../dist/engines/llama/process/engine-process.js", import.meta.url).href;
  writeFileSync(
    program,
    `const { emit } = process;
     process.emit = (name, message, ...rest) => {
       if (name !== "message" || message.kind !== "start" || message.options.settings.gpu === "off")
         return emit.call(process, name, message, ...rest);
       process.send({ kind: "gpu", build: message.options.settings.gpuBuild });
       ${does}
     };
     await import(${JSON.stringify(real)});`,
  );
  return program;
}

/** A probe that finds a GPU. */
function contentProbe(folder: string): string {
  const program = join(folder, "content.mjs");
  const device = { name: "CUDA0", description: "a GPU", kind: "gpu", freeBytes: 1, totalBytes: 1 };
  writeFileSync(
    program,
    `process.on("message", () => {
       process.send({ kind: "devices", devices: [${JSON.stringify(device)}] });
       process.send({ kind: "usable" });
     });`,
  );
  return program;
}

function notUsed(why: RegExp): unknown {
  return expect.stringMatching(new RegExp(`the GPU is not used.*(?:${why.source})`));
}

function listening() {
  const lines: string[] = [];
  const log = createLog({ level: "warn", write: (line) => lines.push(line) });
  return { lines, options: { log, probeLimits: watched } };
}

/** Starts an engine, lets it answer, and returns what it warned of. */
async function linesOf(
  bench: EngineBench,
  more: Partial<LlamaEngineOptions> = {},
  settings: { llamaLib?: string } = {},
): Promise<string[]> {
  searchPackagesIn(bench.path);
  const { lines, options } = listening();
  const engine = bench.start({ gpu: "auto", ...settings }, { ...options, ...more });
  await engine.ready;
  expect((await ask(engine, someTokens(20, 1))).tokens).toHaveLength(8);
  expect(engine.stats()).toMatchObject({ state: "ready", restarts: 0 });
  return lines;
}
