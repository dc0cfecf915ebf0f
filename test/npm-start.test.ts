/** `npm start` as init systems and containers end it: the signal goes to npm. */
import { spawn } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { temporaryDirectory } from "./support/data-directory.ts";

/** Stands where scripts/ready.mjs is, and says what it was told. */
const standIn = `
  process.on("SIGTERM", () => { process.stdout.write("told to end\\n"); process.exit(0); });
  process.stdout.write("pid " + process.pid + " arguments " + process.argv.slice(2).join(" ") + "\\n");
  setInterval(() => {}, 1000);
`;

test("SIGTERM to npm start reaches the server, and arguments do", async () => {
  const folder = temporaryDirectory();
  const { scripts } = JSON.parse(readFileSync("package.json", "utf8")) as { scripts: Record<string, string> };
  writeFileSync(join(folder, "package.json"), JSON.stringify({ name: "stand-in", scripts }));
  mkdirSync(join(folder, "scripts"));
  writeFileSync(join(folder, "scripts", "ready.mjs"), standIn);

  const npm = spawn("npm", ["start", "--", "--port", "0"], { cwd: folder, stdio: ["ignore", "pipe", "inherit"] });
  let output = "";
  const ended = new Promise((resolve) => npm.once("close", resolve));
  await new Promise<void>((resolve) => {
    npm.stdout.setEncoding("utf8").on("data", (text: string) => {
      output += text;
      if (/pid \d+ arguments .*\n/.test(output)) resolve();
    });
  });
  const server = Number(/pid (\d+)/.exec(output)?.[1]);
  onTestFinished(() => {
    try {
      process.kill(server, "SIGKILL");
    } catch {
      // It ended, as it should.
    }
  });
  expect(output).toContain("serve --port 0");
  npm.kill("SIGTERM");
  await ended;
  expect(output).toContain("told to end");
}, 30_000);
