// `npm run bench -- NAME [ARGUMENT ...]`: runs bench/NAME.ts, or what `reprise bench` has by that name. Without a name: the
// quick ones, one after another, one JSON line each.
import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";

// In seconds, without a server and without a peer.
const quick = ["hash", "radix-insert", "lookup", "pool-copy", "disk"];

const [name, ...args] = process.argv.slice(2);
const files = readdirSync("bench").flatMap((file) => (/^[a-z-]+\.ts$/.test(file) ? [file.slice(0, -3)] : []));
if (name === undefined) process.exitCode = Math.max(...quick.map((each) => runFile(each, [])));
else if (name === "--help") {
  process.stdout.write(
    "usage: npm run bench [-- NAME [ARGUMENT ...]]\n\n" +
      `programs of bench/, one JSON line each: ${files.join(", ")}; without a name: ${quick.join(", ")}\n\n`,
  );
  process.exitCode = run(["dist/cli/main.js", "bench", "--help"]);
} else if (files.includes(name)) process.exitCode = runFile(name, args);
else process.exitCode = run(["dist/cli/main.js", "bench", name, ...args]);

function runFile(file, args) {
  return run(["scripts/run-ts.mjs", `bench/${file}.ts`, ...args]);
}

function run(words) {
  return spawnSync(process.execPath, words, { stdio: "inherit" }).status ?? 1;
}
