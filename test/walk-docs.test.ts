/** scripts/walk-docs.mjs: what it runs and what it refuses, on pages of our own. The docs themselves are walked by .ci/run. */
import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { temporaryDirectory } from "./support/data-directory.ts";
import { repositoryRoot } from "./support/repository.ts";

const namespaces = process.getuid?.() === 0 ? ["--mount", "--pid"] : ["--user", "--map-root-user", "--mount", "--pid"];
const canWalk = spawnSync("unshare", [...namespaces, "--fork", "--mount-proc", "true"]).status === 0;

function run(...args: readonly string[]): { status: number | null; out: string; error: string } {
  const walker = join(repositoryRoot, "scripts", "walk-docs.mjs");
  const { status, stdout, stderr } = spawnSync(process.execPath, [walker, ...args], { encoding: "utf8" });
  return { status, out: stdout, error: stderr };
}

/** Walks a page of these blocks, each with the line before its fence. */
function walk(...blocks: readonly (readonly [comment: string, language: string, ...lines: readonly string[]])[]) {
  const page = join(temporaryDirectory(), "page.md");
  const text = blocks.flatMap(([comment, language, ...lines]) => [comment, `\`\`\`${language}`, ...lines, "```"]);
  writeFileSync(page, text.join("\n"));
  const { error, ...ended } = run("--must", page);
  return { ...ended, error: error.replaceAll(page, "PAGE") };
}

test("every block of the docs says what it is", () => {
  const { status, out, error } = run("--list");
  expect({ status, error }).toEqual({ status: 0, error: "" });
  expect(out).toMatch(/^README\.md:\d+ +in a clone$/m);
  expect(out).toMatch(/^docs\/vllm\.md:\d+ +not walked: needs a vLLM/m);
});

test("a block that does not say what it is, or says it in other words, is told with its line", () => {
  const { status, error } = walk(["", "", "ls"], ["<!-- walked: now and then -->", "sh", "ls"], ["", "text", "x"]);
  expect(status).toBe(1);
  expect(error).toBe(
    'PAGE:2: say what this block is: sh, bash, console, python, ts (walked), text, json, yaml\nPAGE:5: not understood: "now and then"\n',
  );
});

test.runIf(canWalk)("blocks of a page share a terminal, in an empty home, without the clone", () => {
  const { status, error, out } = walk(
    ["", "sh", "greet() { echo hello $1; }", "cd /tmp"],
    ["", "console", "$ greet you > greeting", "hello you", "$ test \\", `> ! -e ${repositoryRoot}`],
    ["", "bash", 'test "$(cat /tmp/greeting)" = "hello you"', 'test "$(ls ~)" = ""'],
    ["<!-- not walked: it would fail -->", "sh", "false"],
  );
  expect({ status, error }).toEqual({ status: 0, error: "" });
  expect(out).toContain("3 blocks walked");
});

test.runIf(canWalk)("a command that fails is told with page, line, command and what it said", () => {
  const inside = walk(["", "sh", "echo before", "cat /none | sort", "echo after"]);
  expect(inside.status).toBe(1);
  expect(inside.error).toMatch(/PAGE:4 failed without a clone: sort\nbefore\ncat: \/none: No such file or directory\n/);
  expect(inside.error).not.toContain("after");
  const list = walk(["", "sh", "false && echo"]);
  expect(list.error).toContain("PAGE:2 failed without a clone: its last command");
  const gone = walk(["", "sh", "echo bye; exit 0"], ["", "sh", "true"]);
  expect(gone).toMatchObject({
    status: 1,
    error: "\nPAGE:2 failed without a clone: the terminal ended with 0\nbye\n\n",
  });
});

test.runIf(canWalk)("what stays runs beside the blocks behind it, until the next of its kind or the end", () => {
  const serve = (name: string) => `trap "echo over > /tmp/${name}; exit" INT; echo $$ up; while :; do sleep 0.05; done`;
  const { status, error } = walk(
    ['<!-- walked: until "up" -->', "sh", `bash -c '${serve("one")}'`],
    ["", "sh", "test ! -e /tmp/one", "ps -e | grep sleep"],
    ['<!-- walked: until "up" -->', "sh", `bash -c '${serve("two")}'`],
    ["", "sh", "grep over /tmp/one", "test ! -e /tmp/two"],
  );
  expect({ status, error }).toEqual({ status: 0, error: "" });
  expect(walk(['<!-- walked: until "up" -->', "sh", "echo not today"]).error).toMatch(
    /PAGE:2 failed without a clone: ended before it said "up"\nnot today/,
  );
  expect(walk(['<!-- walked: until "up" -->', "sh", "echo up"], ["", "sh", "sleep 0.2"]).error).toMatch(
    /PAGE:2 failed without a clone: ended by itself/,
  );
});
