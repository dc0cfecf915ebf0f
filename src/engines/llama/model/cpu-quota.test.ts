import { mkdirSync, mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { expect, test } from "vitest";
import { cpuQuota } from "./cpu-quota.ts";

/** A machine whose process is in `groups`, with these files below /sys/fs/cgroup. */
function quotaOf(groups: string, files: Readonly<Record<string, string>>): number {
  const folder = mkdtempSync(join(tmpdir(), "reprise-groups-"));
  writeFileSync(join(folder, "groups"), groups);
  const root = join(folder, "root");
  for (const [path, content] of Object.entries(files)) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), content);
  }
  return cpuQuota({ groups: join(folder, "groups"), root });
}

test("a container's limit is the share of its period", () => {
  expect(quotaOf("0::/\n", { "cpu.max": "150000 100000\n" })).toBe(1.5);
  expect(quotaOf("0::/\n", { "cpu.max": "max 100000\n" })).toBe(Infinity);
});

test("of the groups around a process the smallest limit counts", () => {
  const files = { "a/cpu.max": "200000 100000", "a/b/cpu.max": "400000 100000", "cpu.max": "max 100000" };
  expect(quotaOf("0::/a/b\n", files)).toBe(2);
  expect(quotaOf("0::/a/b/c\n", files)).toBe(2);
  expect(quotaOf("0::/other\n", files)).toBe(Infinity);
});

test("groups of the first kind have their limit in two files", () => {
  const groups = "9:name=systemd:/x\n4:memory:/x\n3:cpuset:/x\n2:cpu,cpuacct:/docker/1\n0::/\n";
  const files = { "cpu,cpuacct/cpu.cfs_quota_us": "300000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n" };
  expect(quotaOf(groups, files)).toBe(3); // the path is the one outside of the container
  expect(quotaOf(groups, { ...files, "cpu,cpuacct/cpu.cfs_quota_us": "-1\n" })).toBe(Infinity);
});

test("where there are no groups there is no limit", () => {
  expect(quotaOf("", {})).toBe(Infinity);
  expect(cpuQuota({ groups: "/nowhere" })).toBe(Infinity);
});
