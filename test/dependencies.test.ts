/** What is installed is what was looked at: exact versions with checksums, and no script of theirs that runs. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { repositoryRoot } from "./support/repository.ts";

interface Entry {
  readonly version?: string;
  readonly integrity?: string;
  readonly resolved?: string;
  readonly hasInstallScript?: boolean;
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
  expect(read(".npmrc")).toMatch(/^ignore-scripts=true$/m);
  const withScripts = installed.flatMap(([path, { hasInstallScript }]) => (hasInstallScript ? [path] : []));
  // Both would build what came prebuilt already.
  expect(withScripts).toEqual(["node_modules/koffi", "node_modules/msgpackr-extract"]);
});
