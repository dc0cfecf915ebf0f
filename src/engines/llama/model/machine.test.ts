import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { repositoryRoot } from "../../../../test/support/repository.ts";
import { execFileSync } from "node:child_process";
import { type Processors, numbersOf, physicalCores, usableProcessors } from "./machine.ts";

const builtMachine = join(repositoryRoot, "dist", "engines", "llama", "model", "machine.js");

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

/** All that is not said is no limit. */
function machine(allowed: number, cpuInfo: string, limits: Partial<Processors> = {}): Processors {
  return { allowed, numbers: undefined, quota: Infinity, cpuInfo, ...limits };
}

test("two threads of a core are one core, and two sockets have cores of the same number", () => {
  expect(physicalCores(machine(8, cpuInfo(1, 4)))).toBe(4);
  expect(physicalCores(machine(16, cpuInfo(2, 4)))).toBe(8);
});

test("a process that may use fewer processors than there are has no more cores than that", () => {
  expect(physicalCores(machine(3, cpuInfo(2, 4)))).toBe(3);
});

test("of processors that a process may run on, two threads of a core are one core", () => {
  // The second thread of core n is processor 4 + n.
  expect(physicalCores(machine(2, cpuInfo(1, 4), { numbers: numbersOf("1,5") }))).toBe(1);
  expect(physicalCores(machine(2, cpuInfo(1, 4), { numbers: numbersOf("1,6") }))).toBe(2);
  expect(physicalCores(machine(5, cpuInfo(2, 4), { numbers: numbersOf("0-3,8") }))).toBe(5);
});

test("a container's limit is rounded down to cores, and never to none", () => {
  expect(physicalCores(machine(16, cpuInfo(1, 8), { quota: 3.9 }))).toBe(3);
  expect(physicalCores(machine(16, cpuInfo(1, 8), { quota: 0.5 }))).toBe(1);
  expect(physicalCores(machine(16, cpuInfo(1, 8), { quota: 64 }))).toBe(8);
});

test("as many threads can run at once as there are processors and a container's limit, rounded up, allows", () => {
  expect(usableProcessors(machine(8, cpuInfo(1, 4)))).toBe(8);
  expect(usableProcessors(machine(3, cpuInfo(2, 4)))).toBe(3);
  expect(usableProcessors(machine(16, cpuInfo(1, 8), { quota: 3.9 }))).toBe(4);
  expect(usableProcessors(machine(16, cpuInfo(1, 8), { quota: 0 }))).toBe(1);
});

test("where nothing is told of cores, every processor counts", () => {
  expect(physicalCores(machine(6, ""))).toBe(6);
  expect(physicalCores(machine(6, "processor\t: 0\nBogoMIPS\t: 50.00\n"))).toBe(6);
});

test.runIf(process.platform === "linux")("a process that is held to one processor has one core", () => {
  const program = `import(${JSON.stringify(builtMachine)}).then((m) => console.log(m.physicalCores()))`;
  const [first] = numbersOf(/^Cpus_allowed_list:\s*(\S+)$/m.exec(readFileSync("/proc/self/status", "utf8"))![1]!);
  const said = execFileSync("taskset", ["-c", String(first), process.execPath, "-e", program], { encoding: "utf8" });
  expect(said.trim()).toBe("1");
});
