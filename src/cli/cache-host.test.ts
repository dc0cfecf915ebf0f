import { statSync } from "node:fs";
import { expect, test } from "vitest";
import { poolsOf, temporaryDirectory } from "../../test/support/data-directory.ts";
import { silentLog } from "../log.ts";
import { CacheHost } from "./cache-host.ts";

const mebibyte = 1024 * 1024;

test("the memory tier grows and shrinks while it is open, and its memory goes back to the system", async () => {
  const dataDir = temporaryDirectory();
  const config = { dataDir, memory: 128 * mebibyte, disk: [], scrubDays: 7, socket: "", poolDir: "" };
  await using host = await CacheHost.open({ config, log: silentLog });
  const [path = ""] = poolsOf(dataDir);
  const allocated = () => statSync(path).blocks * 512;
  await expect.poll(allocated, { timeout: 10_000 }).toBeGreaterThan(128 * mebibyte);

  const smaller = await host.resize(64 * mebibyte);
  expect(smaller).toMatchObject({ state: "done", memory: { capacityBytes: 64 * mebibyte } });
  expect(allocated()).toBeLessThan(70 * mebibyte);
  expect(await host.resize(256 * mebibyte)).toMatchObject({ memory: { capacityBytes: 256 * mebibyte } });
  await expect.poll(allocated, { timeout: 10_000 }).toBeGreaterThan(256 * mebibyte);

  await expect(host.resize(1)).rejects.toMatchObject({ code: "BAD_REQUEST", field: "memory" });
  await expect(host.resize(2 ** 50)).rejects.toMatchObject({ code: "BAD_REQUEST", field: "memory" });
}, 60_000);

test("a pool directory that is not there is a fault of the configuration", async () => {
  const config = {
    dataDir: temporaryDirectory(),
    memory: 64 * mebibyte,
    disk: [],
    scrubDays: 7,
    socket: "",
    poolDir: "/nowhere",
  };
  await expect(CacheHost.open({ config, log: silentLog })).rejects.toMatchObject({ code: "BAD_CONFIG" });
});

test("more memory than there is cannot be had, and the pool is not made", async () => {
  const dataDir = temporaryDirectory();
  const config = { dataDir, memory: 2 ** 50, disk: [], scrubDays: 7, socket: "", poolDir: "" };
  await expect(CacheHost.open({ config, log: silentLog })).rejects.toMatchObject({ code: "NOT_ENOUGH_MEMORY" });
  expect(poolsOf(dataDir)).toEqual([]);
});
