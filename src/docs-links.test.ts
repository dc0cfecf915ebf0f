/** Links of every Markdown page: to files that are there, to headings that are there, and to addresses that can be one. */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { expect, test } from "vitest";
import { readPage, repositoryFiles } from "../test/support/markdown.ts";
import { repositoryRoot } from "../test/support/repository.ts";

const files = new Set(repositoryFiles());
const folders = new Set([...files].flatMap(foldersAbove));
const pages = new Map(
  [...files]
    .filter((path) => path.endsWith(".md"))
    .map((path) => [path, readPage(readFileSync(join(repositoryRoot, path), "utf8"))]),
);

test("every link of every page leads somewhere", () => {
  expect([...pages.keys()]).toEqual(expect.arrayContaining(["README.md", "docs/http.md", "bench/gpu/README.md"]));
  const faults = [...pages].flatMap(([path, { links }]) =>
    links.flatMap(({ target, line }) => {
      const fault = isExternal(target) ? faultOfAddress(target) : faultOfPath(path, target);
      return fault === undefined ? [] : `${path}:${line}: ${target}: ${fault}`;
    }),
  );
  expect(faults).toEqual([]);
});

test("what the README links to is in the npm package", () => {
  const pack = ["pack", "--dry-run", "--json", "--ignore-scripts"];
  const told: unknown = JSON.parse(execFileSync("npm", pack, { cwd: repositoryRoot, encoding: "utf8" }));
  const [{ files: packed }] = told as [{ files: { path: string }[] }]; // npm-pack's documented form
  const paths = new Set(packed.map(({ path }) => path));
  const wanted = pages
    .get("README.md")!
    .links.flatMap(({ target }) => (isExternal(target) ? [] : target.split("#")[0]!));
  expect(wanted.length).toBeGreaterThan(15);
  expect(wanted.filter((path) => path !== "" && !paths.has(path))).toEqual([]);
});

test("the wheel's README is shown alone, so it has no links to files", () => {
  const links = pages.get("python/README.md")!.links.map(({ target }) => target);
  expect(links.filter((target) => !isExternal(target) && !target.startsWith("#"))).toEqual([]);
});

test("links and headings are read as GitHub reads them", () => {
  const { links, anchors } = readPage(
    [
      "# Load or compute?  ",
      "## `reprise cache`, and *why*",
      "## A [link](a.md) in it",
      "## Same",
      "### Same",
      "```",
      "# no heading, and [no link](no.md)",
      "```",
      '[one](a.md#x), ![two](b.png "title"), [![three](c.svg)](d.md) and `[none](no.md)` (see https://example.org/a_b).',
      "[broken](no file.md)",
      "[label]: e.md",
    ].join("\n"),
  );
  expect([...anchors]).toEqual(["load-or-compute", "reprise-cache-and-why", "a-link-in-it", "same", "same-1"]);
  const targets = ["a.md", "a.md#x", "b.png", "c.svg", "d.md", "https://example.org/a_b", "no file.md", "e.md"];
  expect(links.map(({ target }) => target)).toEqual(targets);
});

function isExternal(target: string): boolean {
  return /^[a-z][a-z+.-]*:/i.test(target);
}

/** Nobody is asked: a test must not depend on the network. */
function faultOfAddress(target: string): string | undefined {
  if (!URL.canParse(target)) return "is no address";
  const { protocol, hostname, username, port } = new URL(target);
  if (protocol !== "https:") return "is not https";
  if (!/^([a-z\d-]+\.)+[a-z]{2,}$/.test(hostname) || username !== "" || port !== "")
    return "is nobody's public address";
  return undefined;
}

function faultOfPath(page: string, target: string): string | undefined {
  const [path = "", anchor, ...more] = target.split("#");
  const file = path === "" ? page : normalize(join(dirname(page), path));
  if (path.startsWith("/") || more.length > 0) return "is neither an address nor a path from here";
  if (!files.has(file) && !folders.has(file.replace(/\/$/, ""))) return `there is no ${file}`;
  if (anchor !== undefined && !pages.get(file)?.anchors.has(anchor)) return `${file} has no heading of that name`;
  return undefined;
}

function foldersAbove(path: string): string[] {
  const folder = dirname(path);
  return folder === "." ? [] : [folder, ...foldersAbove(folder)];
}
