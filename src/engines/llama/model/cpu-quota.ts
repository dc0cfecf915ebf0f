/**
 * How many processors' time a container may use up: the limits of its control groups, which Node's count of processors leaves out.
 *
 *     cgroup 2   cpu.max                                    "150000 100000": that many microseconds in every period of so many
 *     cgroup 1   cpu.cfs_quota_us and cpu.cfs_period_us     the same in two files, -1 for no limit
 */
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";

/**
 * The smallest limit of the process's group and of those around it; Infinity where there is none.
 *
 * @param options where Linux says which groups the process is in, and where their files are
 */
export function cpuQuota(options: { groups?: string; root?: string } = {}): number {
  const { groups = "/proc/self/cgroup", root = "/sys/fs/cgroup" } = options;
  let least = Infinity;
  for (const line of (read(groups) ?? "").split("\n")) {
    const [, controllers, path] = /^\d+:([^:]*):(.*)$/.exec(line) ?? [];
    if (controllers === undefined || path === undefined) continue;
    const isSecond = controllers === "";
    if (!isSecond && !controllers.split(",").includes("cpu")) continue;
    const base = join(root, isSecond ? "" : controllers);
    // In a container the path may be the one outside of it: what is there of it is above.
    for (let group = join("/", path); ; group = dirname(group)) {
      const folder = join(base, group);
      least = Math.min(least, isSecond ? secondLimit(folder) : firstLimit(folder));
      if (group === "/") break;
    }
  }
  return least;
}

function secondLimit(folder: string): number {
  const [quota, period] = (read(join(folder, "cpu.max")) ?? "").trim().split(" ");
  return limit(quota, period);
}

function firstLimit(folder: string): number {
  return limit(read(join(folder, "cpu.cfs_quota_us")), read(join(folder, "cpu.cfs_period_us")));
}

/** Infinity for "max", -1 and files that are not there. */
function limit(quota: string | undefined, period: string | undefined): number {
  const share = Number(quota) / Number(period);
  return share > 0 ? share : Infinity;
}

function read(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined; // no such group, or none at all
  }
}
