import { chmodSync, copyFileSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, test } from "vitest";
import { temporaryDirectory } from "../../../test/support/data-directory.ts";
import { isHere, wheel } from "../../../test/support/nixl.ts";
import { findNixl } from "./library.ts";

function refused(given: string | undefined, environment: Record<string, string> = {}): string {
  try {
    findNixl(given, "POSIX", environment);
  } catch (error) {
    expect(error).toMatchObject({ code: "BAD_CONFIG" });
    const { message } = error as Error; // it is one
    expect(message).not.toContain("\n");
    return message;
  }
  throw new Error("it was taken");
}

/** Something that is laid out as a wheel is. */
function fakeWheel(version: string, library = process.execPath): string {
  const site = temporaryDirectory();
  const libraries = join(site, ".nixl_cu12.mesonpy.libs");
  mkdirSync(join(libraries, "plugins"), { recursive: true });
  copyFileSync(library, join(libraries, "libnixl_capi.so"));
  mkdirSync(join(site, "nixl_cu12-0.dist-info"));
  writeFileSync(join(site, "nixl_cu12-0.dist-info", "METADATA"), `Name: nixl-cu12\nVersion: ${version}\n`);
  return site;
}

/** A library of the system's that has other calls than ours. */
const otherLibrary = "/lib/x86_64-linux-gnu/libm.so.6";

test("where there is none, one line says what to install", () => {
  expect(refused("/nowhere")).toContain("pip install --no-deps nixl-cu12");
  expect(refused(undefined, { NIXL_LIBRARY: "/nowhere" })).toContain("pip install --no-deps nixl-cu12");
});

test("what is no library, or another one, is refused", () => {
  const file = join(temporaryDirectory(), "libnixl_capi.so");
  writeFileSync(file, "not a library");
  mkdirSync(join(dirname(file), "plugins"));
  expect(refused(file)).toContain("cannot be used");
});

test.skipIf(process.arch !== "x64")("a library without the calls is refused by the name of the first one", () => {
  expect(refused(fakeWheel("1.5.1", otherLibrary))).toContain("nixl_capi_is_stub");
});

for (const version of ["1.4.0", "0.9.1", "2.0.0", "nonsense"])
  test(`release ${version} is not the one that is known`, () => {
    expect(refused(fakeWheel(version))).toContain(`has NIXL ${version}`);
  });

test("a library that others could change is not loaded, nor one whose plugins others could", () => {
  const site = fakeWheel("1.5.1");
  const open = temporaryDirectory();
  chmodSync(open, 0o777);
  expect(refused(site, { NIXL_PLUGIN_DIR: open })).toContain(`${open} can be written by others`);
  const plugins = join(site, ".nixl_cu12.mesonpy.libs", "plugins");
  chmodSync(plugins, 0o777);
  expect(refused(site)).toContain("can be written by others");
  chmodSync(plugins, 0o755);
  chmodSync(site, 0o777);
  expect(refused(site)).toContain(`${site} can be written by others`);
  chmodSync(site, 0o755);
  chmodSync(join(site, ".nixl_cu12.mesonpy.libs", "libnixl_capi.so"), 0o666);
  expect(refused(site)).toContain("can be written by others");
});

describe.skipIf(!isHere)("the real wheel", () => {
  test("is found by its folder, by the environment, and in the environment of a Python", () => {
    const path = findNixl(wheel, "POSIX", {});
    expect(path).toMatch(/libnixl_capi\.so$/);
    expect(findNixl(path, "OBJ", {})).toBe(path);
    expect(findNixl(dirname(path), "POSIX", {})).toBe(path);
    expect(findNixl(undefined, "OBJ", { NIXL_LIBRARY: wheel })).toBe(path);
    const python = join(temporaryDirectory(), "lib", "python3.11");
    mkdirSync(python, { recursive: true });
    symlinkSync(wheel, join(python, "site-packages"));
    expect(findNixl(undefined, "POSIX", { VIRTUAL_ENV: join(python, "../..") })).toBe(path);
  });

  test("a plugin that does not load is said to be the fault", () => {
    expect(() => findNixl(wheel, "NONE" as "OBJ", {})).toThrow(/its plugin NONE does not load/);
  });
});
