// `npm run bench -- NAME [ARGUMENT ...]`: runs bench/NAME.ts.
import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";

const [name, ...args] = process.argv.slice(2);
const names = readdirSync("bench").flatMap((file) => (/^[a-z-]+\.ts$/.test(file) ? [file.slice(0, -3)] : []));
if (!names.includes(name)) {
  process.stderr.write(`usage: npm run bench -- NAME [ARGUMENT ...]; names: ${names.join(", ")}\n`);
  process.exit(2);
}
const done = spawnSync(process.execPath, ["scripts/run-ts.mjs", `bench/${name}.ts`, ...args], { stdio: "inherit" });
process.exitCode = done.status ?? 1;
