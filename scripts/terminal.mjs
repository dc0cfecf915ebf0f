// Makes docs/terminal.md out of real runs, in a home that begins empty and on a terminal:
//
//     node scripts/terminal.mjs                 writes the page; the command is built before (npm start does it)
//     node scripts/terminal.mjs --quick         prints the scenes that take seconds, as JSON lines; on a free port instead of 8080
//
// test/terminal-page.test.ts compares the two.
import { chmodSync, mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { quickScenes, slowScenes } from "./terminal/scenes.mjs";
import { Terminal } from "./terminal/terminal.mjs";

const usualColumns = 120;
const repository = realpathSync(resolve(fileURLToPath(import.meta.url), "..", ".."));
const folder = realpathSync(mkdtempSync(join(tmpdir(), "reprise-terminal-")));
const home = join(folder, "home");
const quick = process.argv.includes("--quick");
const port = quick ? await freePort() : 8080;

const terminals = new Set();
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.once(signal, () => process.exit(1));
process.on("exit", () => {
  for (const terminal of terminals) terminal.kill();
  rmSync(folder, { recursive: true, force: true });
});

makeHome();
let last;
const stage = { start, run, passing: () => last.passing() };
const blocks = [];
for await (const scene of quickScenes(stage)) show(scene);
if (!quick) {
  for await (const scene of slowScenes(stage)) show(scene);
  writeFileSync(join(repository, "docs", "terminal.md"), page());
}
process.exit(0);

function freePort() {
  return new Promise((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

/** With a `reprise` on the PATH, as an installed package has it. */
function makeHome() {
  mkdirSync(join(home, "bin"), { recursive: true });
  const command = join(home, "bin", "reprise");
  writeFileSync(command, `#!/bin/sh\nexec node ${join(repository, "dist", "cli", "main.js")} "$@"\n`);
  chmodSync(command, 0o755);
}

function start(command, { columns = usualColumns } = {}) {
  const own = Object.entries(process.env).filter(([name]) => !/^(npm_|REPRISE_(?!TEST_))/.test(name));
  const path = `${join(home, "bin")}:${process.env["PATH"]}`;
  const env = {
    ...Object.fromEntries(own),
    HOME: home,
    PATH: path,
    TERM: "xterm",
    LANG: "C.UTF-8",
    REPRISE_PORT: String(port),
    // Where other tests want the cores, two threads that spin are slower than one.
    ...(quick ? { REPRISE_THREADS: "1" } : {}),
  };
  const typed = command.replaceAll("127.0.0.1:8080", `127.0.0.1:${port}`);
  const terminal = new Terminal(typed, { columns, cwd: repository, env });
  terminals.add(terminal);
  void terminal.ended.then(() => terminals.delete(terminal));
  return terminal;
}

async function run(command, options) {
  last = start(command, options);
  const code = await last.ended;
  return { lines: last.take(), code };
}

function show({ heading, sentence, command, lines }) {
  const said = shortened(lines).join("\n");
  if (quick) process.stdout.write(`${JSON.stringify({ sentence, command, said })}\n`);
  const typed = command === undefined ? "" : `$ ${command}\n`;
  blocks.push(
    `${heading === undefined ? "" : `## ${heading}\n\n`}${sentence}\n\n\`\`\`text\n${typed}${wrapped(said)}\n\`\`\``,
  );
}

/** With paths as somebody has them whose clone lies in their home. In a table what follows a path stays in its column. */
function shortened(lines) {
  const inHome = new RegExp(`(?:${home}|(${repository}))(\\S*)(  +)?`, "g");
  return lines.map((line) =>
    line.replaceAll(inHome, (whole, clone, rest, gap) => {
      const path = `~${clone === undefined ? "" : "/reprise"}${rest}`;
      return gap === undefined ? path : path.padEnd(whole.length);
    }),
  );
}

/** As a terminal wraps what its programs have not made for its width. */
function wrapped(text) {
  const pieces = new RegExp(`.{1,${usualColumns}}`, "g");
  return text
    .split("\n")
    .flatMap((line) => (line.length < 2 * usualColumns ? [line] : line.match(pieces)))
    .join("\n");
}

function page() {
  return [
    "# What the terminal shows",
    "",
    "Real runs in a home that was empty, on a terminal of 120 columns; figures are of the machine and the moment. This page is made by",
    "`node scripts/terminal.mjs`; a test runs what takes seconds again, and compares all but the figures.",
    "",
    blocks.join("\n\n"),
    "",
  ].join("\n");
}
