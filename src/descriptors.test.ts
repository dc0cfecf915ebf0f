import { execFileSync } from "node:child_process";
import { expect, test } from "vitest";
import { connectionsFor, descriptorLimit } from "./descriptors.ts";

test("connections leave three eighths of the open files to the process itself, whatever the limit", () => {
  for (const limit of [64, 100, 256, 1024, 4096, 65_536, Infinity]) {
    const taken = connectionsFor("http", 4096, limit) + connectionsFor("guests", 256, limit);
    expect(limit - taken, `of ${limit}`).toBeGreaterThanOrEqual((limit * 3) / 8);
  }
  expect(connectionsFor("http", 4096, 1 << 20)).toBe(4096);
  expect(connectionsFor("guests", 256, 1 << 20)).toBe(256);
});

test.runIf(process.platform === "linux")("the limit is the process's own", () => {
  const hard = execFileSync("bash", ["-c", "ulimit -Hn"], { encoding: "utf8" }).trim();
  expect(descriptorLimit()).toBe(hard === "unlimited" ? Infinity : Number(hard));
});
