// Roots to walk in, where the repository is not: one with a fresh clone of what it holds now, one without. Each has a home that begins
// empty and stays from page to page; what is built in the clone is brought to where there is none.
import { spawn } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { enterNamespaces, environment, kept, pythonGiven, said, toolFolders } from "./machine.mjs";
import { writeScript } from "./program.mjs";

const here = dirname(fileURLToPath(import.meta.url));
export const repository = realpathSync(resolve(here, "..", ".."));
const home = "/home/me";
const secondsForBlock = 300;

export class Roots {
  #folder = mkdtempSync(join(tmpdir(), "reprise-walk-"));
  #child;

  /**
   * Walks blocks of one page in one of the roots, each after the other, and ends what they have started.
   *
   * @param onBlock is told {line, seconds} of each that is done
   * @returns undefined, or what failed: {line, what, output}
   */
  async walk(root, blocks, onBlock) {
    const folder = this.#folderOf(root);
    for (const name of ["walk", "tmp"]) {
      rmSync(join(folder, name), { recursive: true, force: true });
      mkdirSync(join(folder, name));
    }
    writeScript(join(folder, "walk"), blocks, root === "in a clone" ? "reprise" : ".");
    const given = blocks.some(({ language }) => language === "python") ? [`${pythonGiven()}=/srv/python`] : [];
    const binds = [...toolFolders(), ...given];
    const [program, ...args] = [...enterNamespaces, "bash", join(here, "enter.sh"), folder, repository, kept, ...binds];
    this.#child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe", "pipe"], env: environment(home) });
    const failure = await follow(this.#child, join(folder, "walk"), onBlock);
    this.#child = undefined;
    return failure;
  }

  /** Ends what runs, and removes all. */
  close() {
    this.#child?.kill("SIGKILL");
    rmSync(this.#folder, { recursive: true, force: true, maxRetries: 10 });
  }

  #folderOf(root) {
    const folder = join(this.#folder, root.replaceAll(" ", "-"));
    if (!existsSync(folder)) {
      makeHome(join(folder, "home"));
      if (root === "in a clone") makeClone(join(folder, "home", "reprise"));
    }
    if (root !== "in a clone")
      bringWhatWasBuilt(join(this.#folder, "in-a-clone", "home", "reprise"), join(folder, "home"));
    return folder;
  }
}

/** Until a page's script has ended. What its descriptor 3 says: terminals.sh. */
async function follow(child, walk, onBlock) {
  const outputOf = (line) => {
    const file = join(walk, `${line}.out`);
    return existsSync(file) ? readFileSync(file, "utf8") : "";
  };
  let failure, began, timer;
  let last = "0";
  let isDone = false;
  createInterface(child.stdio[3]).on("line", (text) => {
    const [, event, line, rest] = /^(\w+) ?(\S*) ?(.*)$/.exec(text);
    clearTimeout(timer);
    const [, at, what] = /^(\S+) (.*)$/.exec(rest) ?? [];
    if (event === "fail") failure ??= { line: at, what, output: outputOf(line) };
    if (event === "end") onBlock({ line, seconds: (performance.now() - began) / 1000 });
    if (event === "done") isDone = true;
    if (event !== "begin") return;
    last = line;
    began = performance.now();
    timer = setTimeout(() => {
      failure ??= { line, what: `not done after ${secondsForBlock} s`, output: outputOf(line) };
      child.kill("SIGKILL");
    }, secondsForBlock * 1000);
  });
  let around = "";
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding("utf8").on("data", (text) => (around += text));
  const status = await new Promise((done) => {
    child.once("error", (error) => done(error.message));
    child.once("close", (code, signal) => done(code ?? signal));
  });
  clearTimeout(timer);
  if (failure !== undefined || (isDone && status === 0)) return failure;
  return { line: last, what: `the terminal ended with ${status}`, output: `${outputOf(last)}${around}` };
}

/** What somebody's home has: a place of their own for `npm install -g`. And curl fails here where a server refuses. */
function makeHome(folder) {
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, ".npmrc"), `prefix=${home}/.npm-global\n`);
  writeFileSync(join(folder, ".curlrc"), "fail-with-body\nshow-error\n");
}

/** As a fresh clone is: what the repository holds now, committed or not, without what it ignores. */
function makeClone(clone) {
  const files = said("git", ["ls-files", "-z", "--cached", "--others", "--exclude-standard"], { cwd: repository });
  for (const file of files.split("\0").filter((name) => name !== ""))
    if (existsSync(join(repository, file))) cpSync(join(repository, file), join(clone, file));
  const commit = ["-c", "user.name=walk", "-c", "user.email=walk@localhost", "commit", "--quiet", "--message=walk"];
  for (const args of [["init", "--quiet"], ["add", "--all"], commit]) said("git", args, { cwd: clone });
}

function bringWhatWasBuilt(clone, target) {
  for (const folder of [clone, join(clone, "python", "dist")]) {
    const names = existsSync(folder) ? readdirSync(folder) : [];
    for (const name of names) if (/\.(tgz|whl)$/.test(name)) cpSync(join(folder, name), join(target, name));
  }
}
