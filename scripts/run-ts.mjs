// Runs a TypeScript program of this repository under any supported Node: `node scripts/run-ts.mjs bench/first-light.ts …`.
// Compiles bench/, models/, test/ and src/ into .build/ with the project's own compiler, then runs the result.
import { spawn, spawnSync } from "node:child_process";
import { constants } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const root = resolve(dirname(fileURLToPath(import.meta.url)), "..");
const [file, ...args] = process.argv.slice(2);
if (!file?.endsWith(".ts")) {
  process.stderr.write("usage: node scripts/run-ts.mjs FILE.ts [ARGUMENT ...]\n");
  process.exit(2);
}

const tsc = join(root, "node_modules", "typescript", "bin", "tsc");
const flags = [
  "--noEmit",
  "false",
  "--rootDir",
  ".",
  "--outDir",
  ".build",
  "--incremental",
  "--tsBuildInfoFile",
  ".build/info.json",
];
const built = spawnSync(process.execPath, [tsc, "-p", "tsconfig.json", ...flags], { cwd: root, stdio: "inherit" });
if (built.status !== 0) process.exit(1);

const program = join(root, ".build", file.replace(/\.ts$/, ".js"));
const child = spawn(process.execPath, [program, ...args], { stdio: "inherit" });
process.on("SIGINT", () => {});
process.on("SIGTERM", () => child.kill("SIGTERM"));
child.on("exit", (status, signal) => {
  process.exitCode = status ?? 128 + constants.signals[signal];
});
