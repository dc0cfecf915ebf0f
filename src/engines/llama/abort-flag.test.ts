import { existsSync, openSync, readdirSync } from "node:fs";
import { expect, test } from "vitest";
import { AbortFlag, mapAbortFlag } from "./abort-flag.ts";

const onLinux = test.runIf(process.platform === "linux" && existsSync("/dev/shm"));

onLinux("a flag has no name that could be left behind, and is seen by who inherits it", () => {
  const before = new Set(readdirSync("/dev/shm"));
  const flag = AbortFlag.create();
  expect(readdirSync("/dev/shm").filter((name) => name.startsWith("reprise-flag-") && !before.has(name))).toEqual([]);

  const inherited = openSync(`/proc/self/fd/${flag.descriptor}`, "r+"); // as fork() would hand it over
  const { bytes } = mapAbortFlag(inherited);
  expect(bytes[0]).toBe(0);
  flag.raise();
  expect(bytes[0]).toBe(1);
  flag.close();
  flag.raise(); // says nothing any more
  expect(flag.descriptor).toBeUndefined();
});
