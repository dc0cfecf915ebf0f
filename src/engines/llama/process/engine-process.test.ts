import { writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { EngineBench } from "../../../../test/support/engine.ts";

const oneCore = Array.from({ length: 64 }, (_, thread) => `processor\t: ${thread}\nphysical id\t: 0\ncore id\t\t: 0\n`);

/** The engine process on a machine whose processors are all threads of one core. */
function onOneCore(bench: EngineBench): string {
  const program = join(bench.path, "one-core.mjs");
  const real = new URL("../../../../dist/engines/llama/process/engine-process.js", import.meta.url).href;
  writeFileSync(
    program,
    `import fs from "node:fs";
     import { syncBuiltinESMExports } from "node:module";
     const { readFileSync } = fs;
     fs.readFileSync = (path, ...rest) =>
       path === "/proc/cpuinfo" ? ${JSON.stringify(oneCore.join("\n"))} : readFileSync(path, ...rest);
     syncBuiltinESMExports();
     await import(${JSON.stringify(real)});`,
  );
  return program;
}

test.runIf(process.platform === "linux" && availableParallelism() > 1)(
  "an engine computes on one thread for each physical core, unless it is told how many",
  async () => {
    await using bench = new EngineBench();
    const { socketPath } = await bench.openCache();
    // Deterministic mode names the number of threads in the space.
    const threadsOf = async (threads: number | undefined) => {
      const engine = bench.start(
        { threads, deterministic: true, sequences: 1, socketPath },
        { engineProgram: onOneCore(bench) },
      );
      await engine.ready;
      return /;exact=\w+\/(\d+)$/.exec((await engine.guest).space.layout)?.[1];
    };
    expect(await threadsOf(undefined)).toBe("1");
    expect(await threadsOf(2)).toBe("2");
  },
);
