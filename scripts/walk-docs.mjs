// Follows the pages as somebody would who has none of this: every command of README.md and docs/ is run as it is pasted, with an empty
// home and in a root of its own, where the clone is only for the blocks that ask for one. How blocks say so: walk/blocks.mjs.
//
//     node scripts/walk-docs.mjs [--must] [--list] [PAGE …]
//
// Without PAGE all are walked, in an order in which each finds what it needs: README.md installs what most others use. `--list` only
// tells what would be walked. `--must` fails on a machine that gives no namespaces, instead of saying so.
import { readdirSync } from "node:fs";
import { createServer } from "node:net";
import { readBlocks } from "./walk/blocks.mjs";
import { whyNoNamespaces } from "./walk/machine.mjs";
import { repository, Roots } from "./walk/root.mjs";

const given = process.argv.slice(2);
const [must, list] = ["--must", "--list"].map((flag) => given.includes(flag));
const pages = given.filter((word) => !word.startsWith("--"));

process.chdir(repository);
process.exitCode = await main(pages.length > 0 ? pages : allPages());

function allPages() {
  const first = ["README.md", "docs/python.md"];
  const others = readdirSync("docs").flatMap((name) => (name.endsWith(".md") ? [`docs/${name}`] : []));
  return [...new Set([...first, ...others.sort(), "CONTRIBUTING.md", "python/README.md"])];
}

async function main(pages) {
  let blocks;
  try {
    blocks = pages.flatMap((page) => readBlocks(page));
  } catch (error) {
    return fail(error.message);
  }
  if (list) {
    for (const { page, line, reason, roots } of blocks) tell(page, line, "", reasonOr(reason, roots.join(", and ")));
    return 0;
  }
  const impossible = whyNoNamespaces();
  if (impossible !== undefined) {
    console.log(`The docs are not walked: this machine gives no namespaces (${impossible})`);
    return must ? 1 : 0;
  }
  const wants8080 = blocks.some(({ lines, beside }) => beside || lines.join(" ").includes("8080"));
  if (wants8080 && !(await isFree(8080)))
    return fail("port 8080 is taken, and the pages' servers want it: end what listens there");

  const roots = new Roots();
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"])
    process.once(signal, () => {
      roots.close();
      process.exit(1);
    });
  const began = performance.now();
  try {
    for (const page of pages) {
      const failed = await walkPage(
        roots,
        page,
        blocks.filter((block) => block.page === page),
      );
      if (failed) return 1;
    }
  } finally {
    roots.close();
  }
  const walked = blocks.filter(({ reason }) => reason === undefined).length;
  const seconds = Math.round((performance.now() - began) / 1000);
  console.log(`${walked} blocks walked in ${seconds} s, ${blocks.length - walked} not, for the reasons above`);
  return 0;
}

async function walkPage(roots, page, blocks) {
  for (const { line, reason } of blocks) if (reason !== undefined) tell(page, line, "", reasonOr(reason));
  for (const root of ["in a clone", "without a clone"]) {
    const here = blocks.filter((block) => block.roots.includes(root));
    if (here.length === 0) continue;
    const title = (line) => {
      const block = here.find((each) => String(each.line) === line);
      return block === undefined ? "reprise serve" : block.lines.find((text) => !/^\s*(#|$)/.test(text));
    };
    const failure = await roots.walk(root, here, ({ line, seconds }) =>
      tell(page, line.replace(/-.*/, ""), seconds.toFixed(1), `${root}: ${title(line)}`),
    );
    if (failure === undefined) continue;
    const { line, what, output } = failure;
    console.error(`\n${page}:${line.replace(/-.*/, "")} failed ${root}: ${what}\n${output}`);
    return true;
  }
  return false;
}

function reasonOr(reason, otherwise) {
  return reason === undefined ? otherwise : `not walked: ${reason}`;
}

function tell(page, line, seconds, words) {
  console.log(`${`${page}:${line}`.padEnd(28)} ${seconds.padStart(6)}  ${words}`.slice(0, 140));
}

function fail(message) {
  console.error(message);
  return 1;
}

function isFree(port) {
  return new Promise((answer) => {
    const server = createServer().once("error", () => answer(false));
    server.listen(port, "127.0.0.1", () => server.close(() => answer(true)));
  });
}
