/** Libraries for a GPU that cannot be used must not keep a server from starting: it starts on the CPU, and says so once. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import { createLog } from "../src/log.ts";
import { EngineBench, ask } from "./support/engine.ts";
import { writeGpuPackage } from "./support/gpu-package.ts";
import { someTokens } from "./support/tokens.ts";

const searched = process.env["NODE_PATH"];

afterEach(() => {
  if (searched === undefined) delete process.env["NODE_PATH"];
  else process.env["NODE_PATH"] = searched;
});

const faults: Record<string, (file: string) => string | undefined> = {
  "has other names than are known": (file) => file.replace("lib", "libx"),
  "cannot be loaded": (file) => (file.startsWith("libggml.v") ? "damaged" : file),
  "finds no GPU": (file) => file.replace(/^lib(ggml|llama)\.v/, "lib$1.cuda.v"),
};

for (const [fault, named] of Object.entries(faults)) {
  test.runIf(process.platform === "linux")(`a package for a GPU that ${fault}: the CPU serves`, async () => {
    await using bench = new EngineBench();
    writeGpuPackage(bench.path, named);
    process.env["NODE_PATH"] = bench.path; // what the engine's process searches besides its own folders
    expect(await linesOf(bench)).toEqual([expect.stringMatching(/the GPU is not used.*linux-\w+-cuda/)]);
  });
}

test("an engine process that dies in a GPU's libraries at start: the CPU serves", async () => {
  await using bench = new EngineBench();
  const engineProgram = join(bench.path, "dying.mjs");
  const real = new URL("../dist/engines/llama/process/engine-process.js", import.meta.url).href;
  // As ggml does when a driver knows none of its code: a line, and SIGABRT.
  writeFileSync(
    engineProgram,
    `import ${JSON.stringify(real)};
     process.prependListener("message", ({ kind, options }) => {
       if (kind !== "start" || options.settings.gpu !== "auto") return;
       process.send({ kind: "gpu", build: "linux-x64-cuda" });
       process.stderr.write("no kernel image\\n");
       process.kill(process.pid, "SIGABRT");
     });`,
  );
  expect(await linesOf(bench, { engineProgram })).toEqual([
    expect.stringMatching(/the GPU is not used.*SIGABRT.*no kernel image/),
  ]);
});

/** Starts an engine, lets it answer, and returns what it warned of. */
async function linesOf(bench: EngineBench, more: { engineProgram?: string } = {}): Promise<string[]> {
  const lines: string[] = [];
  const log = createLog({ level: "warn", write: (line) => lines.push(line) });
  const engine = bench.start({ gpu: "auto" }, { log, ...more });
  await engine.ready;
  expect((await ask(engine, someTokens(20, 1))).tokens).toHaveLength(8);
  expect(engine.stats()).toMatchObject({ state: "ready", restarts: 0 });
  return lines;
}
