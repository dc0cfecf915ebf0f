/** Every call of a restart may find no open file left: the server goes on, and so does the engine once there are some. */
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { isFull } from "../../../../test/support/depth.ts";
import { EngineBench } from "../../../../test/support/engine.ts";

const program = fileURLToPath(new URL("../../../../test/support/starved-engine.mjs", import.meta.url));

/** Files left to open: at each number another step of a start fails. */
const left = [0, 1, 2, 3, 4, 5, 7, 9].filter((count) => isFull || count % 3 === 0).map(String);

test.runIf(process.platform === "linux").each(["engine", "tokenizer"])(
  "with 0 to 9 open files left, the %s processes that were killed come back when there are more",
  async (kind) => {
    await using bench = new EngineBench();
    const args = [
      "-c",
      'ulimit -n 100; exec "$0" "$@"',
      process.execPath,
      program,
      bench.modelPath,
      bench.path,
      kind,
      ...left,
    ];
    const { status, stdout, stderr } = spawnSync("bash", args, { encoding: "utf8", timeout: 240_000 });
    expect(status, stderr).toBe(0);
    const told = stdout
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as { left: number; faults: string[] });
    expect(told).toHaveLength(left.length);
    const inVain = (faults: readonly string[]) => faults.filter((fault) => fault.includes("EMFILE"));
    expect(inVain(told[0]!.faults), "with none left it was tried in vain").not.toEqual([]);
    const ofEngine = inVain(told[0]!.faults).filter((fault) => fault.includes("starting the engine"));
    expect(ofEngine.length, "which is told once").toBeLessThanOrEqual(1);
  },
  240_000,
);
