import { expect, test } from "vitest";
import { physicalCores } from "./machine.ts";

/** As /proc/cpuinfo tells of `sockets` processors of so many cores, with two threads on each. */
function cpuInfo(sockets: number, cores: number): string {
  const blocks: string[] = [];
  for (let socket = 0; socket < sockets; socket += 1)
    for (let thread = 0; thread < 2 * cores; thread += 1)
      blocks.push(
        `processor\t: ${blocks.length}\nphysical id\t: ${socket}\ncore id\t\t: ${thread % cores}\nflags\t\t: fpu\n`,
      );
  return blocks.join("\n");
}

test("two threads of a core are one core, and two sockets have cores of the same number", () => {
  expect(physicalCores(8, cpuInfo(1, 4))).toBe(4);
  expect(physicalCores(16, cpuInfo(2, 4))).toBe(8);
});

test("a process that may use fewer processors than there are has no more cores than that", () => {
  expect(physicalCores(3, cpuInfo(2, 4))).toBe(3);
});

test("where nothing is told of cores, every processor counts", () => {
  expect(physicalCores(6, "")).toBe(6);
  expect(physicalCores(6, "processor\t: 0\nBogoMIPS\t: 50.00\n")).toBe(6);
});
