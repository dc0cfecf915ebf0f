/**
 * The pages behind the pool: what the kernel offers in the directory where the file lies.
 *
 * On a tmpfs the mount decides about huge pages (`mount -o remount,huge=within_size /dev/shm`): our pages are allocated
 * with fallocate, which asks the mount and not the mapping. On hugetlbfs they are huge from the start, and taken from a
 * store that the administrator has filled.
 */
import { readFileSync, realpathSync, statfsSync } from "node:fs";

export interface PoolPages {
  /** Pages are handed out in units of so many bytes. */
  readonly bytes: number;
  /** `"no"`, or how huge pages come: `"hugetlbfs"`, or the mount's option, such as `"within_size"`. */
  readonly huge: string;
  /** Pages come from a store that other programs share: more of them cannot be counted on later. */
  readonly areReserved: boolean;
}

const hugetlbfsMagic = 0x9584_58f6;

export function pagesOf(directory: string): PoolPages {
  const { type, bsize } = statfsSync(directory);
  // Signed on some kernels.
  if (type >>> 0 === hugetlbfsMagic) return { bytes: bsize, huge: "hugetlbfs", areReserved: true };
  return { bytes: 4096, huge: hugeOption(realpathSync(directory)), areReserved: false };
}

/** The `huge=` of the mount that `directory` is in. */
function hugeOption(directory: string): string {
  let mounts: string;
  try {
    mounts = readFileSync("/proc/self/mounts", "utf8");
  } catch {
    return "no"; // not Linux
  }
  let longest = "";
  let huge = "no";
  for (const line of mounts.split("\n")) {
    const [, place = "", , options = ""] = line.split(" ");
    const holds = place === "/" || directory === place || directory.startsWith(`${place}/`);
    if (!holds || place.length < longest.length) continue;
    longest = place;
    huge = /(?:^|,)huge=(\w+)/.exec(options)?.[1] ?? "no";
  }
  return huge === "never" ? "no" : huge;
}
