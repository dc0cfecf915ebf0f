import { existsSync, openSync, readdirSync } from "node:fs";
import { expect, test } from "vitest";
import { AbortFlag, mapAbortFlag } from "./abort-flag.ts";

const onLinux = test.runIf(process.platform === "linux" && existsSync("/dev/shm"));

onLinux("a flag has no name that could be left behind, and is raised for the request that is computed alone", () => {
  const before = new Set(readdirSync("/dev/shm"));
  const flag = AbortFlag.create();
  expect(readdirSync("/dev/shm").filter((name) => name.startsWith("reprise-flag-") && !before.has(name))).toEqual([]);

  const inherited = openSync(`/proc/self/fd/${flag.descriptor}`, "r+"); // as fork() would hand it over
  const { bytes, request } = mapAbortFlag(inherited);
  flag.raise(7); // nothing is computed
  request[0] = 2 ** 40 + 8;
  flag.raise(7);
  expect(bytes[0]).toBe(0);
  flag.raise(2 ** 40 + 8);
  expect(bytes[0]).toBe(1);
  bytes[0] = 0;
  flag.close();
  flag.raise(2 ** 40 + 8); // says nothing any more
  expect(bytes[0]).toBe(0);
  expect(flag.descriptor).toBeUndefined();
});
