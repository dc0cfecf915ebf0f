/** What is installed is what was looked at: exact versions with checksums, known licences, and no script of theirs that runs. */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { repositoryRoot } from "./support/repository.ts";

interface Entry {
  readonly version?: string;
  readonly integrity?: string;
  readonly resolved?: string;
  readonly hasInstallScript?: boolean;
  readonly license?: string;
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}

const read = (name: string) => readFileSync(join(repositoryRoot, name), "utf8");
const { packages } = JSON.parse(read("package-lock.json")) as { packages: Record<string, Entry> };
const installed = Object.entries(packages).filter(([path]) => path !== "");

test("every package of the lock file has its version and a checksum, and comes from whatever registry is in use", () => {
  expect(installed.length).toBeGreaterThan(100);
  for (const [path, { version, integrity, resolved }] of installed) {
    expect(version, path).toMatch(/^\d+\.\d+\.\d+/);
    expect(integrity, path).toMatch(/^sha512-[\w+/]{86}==$/);
    expect(resolved, path).toBeUndefined();
  }
});

test("our own dependencies are pinned exactly", () => {
  const own = JSON.parse(read("package.json")) as Record<string, Record<string, string> | undefined>;
  for (const kind of ["dependencies", "devDependencies", "optionalDependencies"])
    for (const [name, version] of Object.entries(own[kind] ?? {})) expect(version, name).toMatch(/^\d+\.\d+\.\d+$/);
});

test.each(["runtime", "development"])("what CI installs of Python (%s) is exact, each with its checksums", (set) => {
  const [comment, ...pins] = read(`python/requirements/${set}.txt`)
    .trim()
    .split(/\n(?! )/);
  expect(comment).toMatch(/^# Made by pin_requirements\.py/);
  expect(pins.length).toBeGreaterThan(1);
  for (const pin of pins) expect(pin).toMatch(/^[\w-]+==[\w.]+(?: \\\n {4}--hash=sha256:[0-9a-f]{64})+$/);
});

test("no dependency's install script runs; a new one that has some is looked at first", () => {
  const withScripts = installed.flatMap(([path, { hasInstallScript }]) =>
    hasInstallScript ? [path.replace("node_modules/", "")] : [],
  );
  // Both would build what came prebuilt already. npm 11 heeds the list; what we run says it to older ones.
  expect(withScripts).toEqual(["koffi", "msgpackr-extract"]);
  const { allowScripts } = JSON.parse(read("package.json")) as { allowScripts: Record<string, boolean> };
  expect(allowScripts).toEqual(Object.fromEntries(withScripts.map((name) => [name, false])));
  expect(read("scripts/ready.mjs")).toContain('"--ignore-scripts"');
});

/** They ask for their notice to be kept, and for nothing else. */
const allowedLicences = ["MIT", "ISC", "0BSD", "BSD-2-Clause", "BSD-3-Clause", "Apache-2.0", "BSL-1.0"];

test("THIRD-PARTY.md names every package that an installation brings, with the lock file's versions and licences", () => {
  const listed = new Map<string, string>();
  for (const [name = "", version, licence, , platforms] of tableRows(read("THIRD-PARTY.md")))
    for (const platform of name.endsWith("*") ? platforms!.split(", ") : [""])
      listed.set(`${name.replace(/\*$/, "")}${platform}`, `${version} ${licence}`);

  const brought = broughtPackages();
  expect(brought.size).toBeGreaterThan(60);
  for (const [name, { version, license = "MIT" }] of brought)
    expect(listed.get(name), name).toBe(`${version} ${license}`);
  const ofPython = [...read("python/pyproject.toml").matchAll(/^ {2}"([\w-]+)(>=[\d.,<]+)/gm)];
  expect(ofPython.length).toBe(2);
  for (const [, name, versions] of ofPython) expect(listed.get(name!), name).toMatch(`${versions} `);
});

test("THIRD-PARTY.md has no licence that asks for more than its notice", () => {
  const rows = tableRows(read("THIRD-PARTY.md"));
  expect(rows.length).toBeGreaterThan(35);
  for (const [name, , licence] of rows) expect(allowedLicences, name).toContain(licence);
});

test("THIRD-PARTY.md is what its script makes of the installed packages", () => {
  const said = execFileSync(process.execPath, ["scripts/third-party.mjs", "--check"], { cwd: repositoryRoot });
  expect(said.toString()).toMatch(/^THIRD-PARTY\.md is current/);
});

/** Lock entries by name, from our dependencies on, optional ones included. */
function broughtPackages(): Map<string, Entry> {
  const brought = new Map<string, Entry>();
  const visit = ({ dependencies, optionalDependencies }: Entry): void => {
    for (const name of Object.keys({ ...dependencies, ...optionalDependencies })) {
      if (brought.has(name)) continue;
      const entry = packages[`node_modules/${name}`]!; // `npm ci` refuses a lock that lacks one
      brought.set(name, entry);
      visit(entry);
    }
  };
  visit(packages[""]!); // the package itself
  return brought;
}

/** The cells of all rows of a page's tables, heads left out; of a cell that is a link its text. */
function tableRows(page: string): string[][] {
  const lines = page.split("\n");
  const isRow = (line: string, index: number) => /^\| (?!-)/.test(line) && !lines[index + 1]?.startsWith("| ---");
  return lines.filter(isRow).map((line) => {
    const cells = line.split("|").slice(1, -1);
    return cells.map((cell) => cell.trim().replace(/^\[(.*)\]\(.*\)$/, "$1"));
  });
}
