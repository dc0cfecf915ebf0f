// `npm run check`: format, lint, types, tests, in that order; stops at the first that fails. `--no-tests` leaves the tests out.
import { spawnSync } from "node:child_process";

const steps = [
  ["format", "oxfmt", "--check"],
  ["lint", "oxlint", "--type-aware", "--deny-warnings"],
  ["types", "tsc", "-p", "tsconfig.json"],
  ["tests", "vitest", "run"],
];

for (const [title, program, ...args] of steps) {
  if (title === "tests" && process.argv.includes("--no-tests")) continue;
  process.stdout.write(`${title}: ${program} ${args.join(" ")}\n`);
  const done = spawnSync(program, args, { stdio: "inherit" });
  if (done.status !== 0) {
    process.stderr.write(`${title} failed\n`);
    process.exit(done.status ?? 1);
  }
}
