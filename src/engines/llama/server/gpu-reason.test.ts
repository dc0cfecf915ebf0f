import { expect, test } from "vitest";
import type { CudaCode } from "./cuda-code.ts";
import { gpuReason, type ProbeFacts } from "./gpu-reason.ts";

/** What the packages of this release have. */
const packaged: CudaCode = {
  machine: [
    { architecture: 86, isExact: false },
    { architecture: 89, isExact: false },
    { architecture: 120, isExact: true },
    { architecture: 121, isExact: true },
  ],
  ptx: [75, 80, 90].map((architecture) => ({ architecture, major: 9, minor: 1 })),
  runtime: 13,
};
const died = "a trial on the GPU failed while computing: it died of SIGABRT: CUDA error";

function reason(change: Partial<ProbeFacts>): string {
  return gpuReason({ gpu: "cuda", end: died, driver: undefined, driverVersion: undefined, code: packaged, ...change });
}

function driverOf(cuda: number, ...devices: [name: string, architecture: number][]): ProbeFacts["driver"] {
  return { cuda, failure: 0, devices: devices.map(([name, architecture]) => ({ name, architecture })) };
}

test("a device without machine code, under a driver that does not know the PTX: device, driver and what to do", () => {
  const driver = driverOf(13_000, ["NVIDIA H200", 90]);
  expect(reason({ driver, driverVersion: "580.159.04" })).toBe(
    "NVIDIA H200 is sm_90: these libraries have machine code for sm_86, sm_89, sm_120a, sm_121a, and for others PTX 9.1, which needs a driver " +
      "for CUDA 13.1 or newer; NVIDIA's driver 580.159.04 is for CUDA 13.0: update the driver, or build llama.cpp for this GPU and give --llama-lib (docs/gpu.md)",
  );
});

test("the architecture is to blame only where it is: else what happened is told as it was", () => {
  expect(reason({ driver: driverOf(13_000, ["NVIDIA RTX A6000", 86]) })).toBe(died);
  expect(reason({ driver: driverOf(13_000, ["NVIDIA L40S", 89]) })).toBe(died);
  expect(reason({ driver: driverOf(13_010, ["NVIDIA H200", 90]) })).toBe(died);
  expect(reason({ driver: driverOf(13_000, ["NVIDIA L40S", 89], ["NVIDIA A100", 80]) })).toContain("A100 is sm_80");
  // Machine code of a later device of the same generation, and exact code of another, do not run.
  expect(reason({ driver: driverOf(13_000, ["NVIDIA Thor", 122]) })).toContain("sm_122");
  expect(reason({ driver: driverOf(13_000, ["NVIDIA P100", 60]) })).toContain("no PTX for it");
  expect(reason({ driver: driverOf(13_000, ["NVIDIA H200", 90]), code: undefined })).toBe(died);
});

test("drivers are named that are missing, too old, or show nothing", () => {
  expect(reason({ driver: "none", end: "there is no libcuda.so.1" })).toBe(
    "NVIDIA's driver is not installed (libcuda.so.1 is missing)",
  );
  expect(reason({ driver: driverOf(12_040, ["NVIDIA L40S", 89]), driverVersion: "550.54.15" })).toBe(
    "NVIDIA's driver 550.54.15 is for CUDA 12.4, and these libraries need one for CUDA 13.0 or newer: update the driver",
  );
  expect(reason({ driver: { cuda: 13_000, failure: 100, devices: [] } })).toBe(
    "NVIDIA's driver shows no device (CUDA error 100)",
  );
});

test("libraries that are missing are named, with what brings them", () => {
  const missing = (name: string) =>
    `cannot be loaded: ${name}: cannot open shared object file: No such file or directory`;
  const driver = driverOf(13_000, ["NVIDIA L40S", 89]);
  expect(reason({ driver, end: missing("libcublas.so.13") })).toMatch(
    /CUDA 13 run-time libraries.*libcublas\.so\.13.*LD_/,
  );
  expect(reason({ gpu: "vulkan", end: missing("libvulkan.so.1") })).toMatch(/Vulkan loader.*libvulkan1/);
  expect(reason({ gpu: "hip", end: missing("libamdhip64.so.7") })).toBe("libamdhip64.so.7 is missing");
  // What they would not mend comes first.
  const h200 = driverOf(13_000, ["NVIDIA H200", 90]);
  expect(reason({ driver: h200, end: missing("libcublas.so.13") })).toContain("sm_90");
});

test("a Vulkan that shows no GPU needs a GPU's driver", () => {
  expect(reason({ gpu: "vulkan", end: "The libraries of x find no GPU that they can use" })).toMatch(/Vulkan driver/);
});

test("PTX is as old as the CUDA it came with", () => {
  const needs = (major: number, minor: number) =>
    /CUDA (\d+\.\d+) or newer/.exec(
      reason({
        driver: driverOf(11_080, ["a GPU", 90]),
        code: { machine: [], ptx: [{ architecture: 50, major, minor }], runtime: undefined },
      }),
    )?.[1];
  expect([needs(8, 0), needs(8, 5), needs(8, 6), needs(8, 8), needs(9, 0), needs(9, 1)]).toEqual([
    "12.0",
    "12.5",
    "12.7",
    "12.9",
    "13.0",
    "13.1",
  ]);
});
