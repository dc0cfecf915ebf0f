import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { temporaryDirectory } from "../../test/support/data-directory.ts";
import { silentLog } from "../log.ts";
import { diskDirectories } from "./cache-host.ts";
import { mustBeThere } from "./data-directory.ts";
import { rememberDrives, rememberedDrives } from "./remembered-drives.ts";

const own = [{ directory: undefined, bytes: 1 }];

test("a drive that was named once is looked at by commands that do not name it", async () => {
  const dataDir = temporaryDirectory();
  await rememberDrives(dataDir, ["/mnt/a"], silentLog);
  await rememberDrives(dataDir, ["/mnt/b", "/mnt/a"], silentLog);
  expect(rememberedDrives(dataDir)).toEqual(["/mnt/a", "/mnt/b"]);
  expect(diskDirectories({ dataDir, disk: own })).toEqual([join(dataDir, "disk"), "/mnt/a", "/mnt/b"]);
  expect(rememberedDrives(join(dataDir, "nowhere"))).toEqual([]);
  writeFileSync(join(dataDir, "drives"), "relative\n\n/mnt/c\n", { mode: 0o600 });
  expect(rememberedDrives(dataDir)).toEqual(["/mnt/c"]);
});

test("what is no data directory is said to be none: whoever mistypes must not believe that a cache is gone", () => {
  const directory = temporaryDirectory();
  expect(() => mustBeThere(join(directory, "nowhere"))).toThrow(/there is no data directory/);
  expect(() => mustBeThere(directory)).toThrow(/is not a data directory of Reprise/);
  writeFileSync(join(directory, "file"), "");
  expect(() => mustBeThere(join(directory, "file"))).toThrow(/is a file, not a data directory/);
  mkdirSync(join(directory, "disk"));
  expect(() => mustBeThere(directory)).not.toThrow();
});
