/** Why a GPU cannot be used, in a sentence that says what to do: from what a probe told before it ended. */
import type { CudaDriver } from "../../../ffi/cuda-driver.ts";
import type { CudaCode } from "./cuda-code.ts";

/** What is known of a probe that did not find its GPU usable. */
export interface ProbeFacts {
  /** On what the libraries compute: "cuda", "vulkan" … */
  readonly gpu: string;
  /** What the probe said of itself, or how it ended. */
  readonly end: string;
  /** NVIDIA's driver: "none" was found, or undefined: it was not asked, or did not answer. */
  readonly driver: CudaDriver | "none" | undefined;
  /** The driver's own version, such as 580.159.04. */
  readonly driverVersion: string | undefined;
  readonly code: CudaCode | undefined;
}

const noDriver = "NVIDIA's driver is not installed (libcuda.so.1 is missing)";

export function gpuReason(facts: ProbeFacts): string {
  const { gpu, end } = facts;
  // What no further library would mend comes before the libraries that are missing.
  return (gpu === "cuda" ? cudaReason(facts) : undefined) ?? missingLibrary(end) ?? otherReason(facts) ?? end;
}

/** What the dynamic linker did not find. */
function missingLibrary(end: string): string | undefined {
  const name = /(lib[\w+-]+\.so[.\d]*): cannot open shared object file/.exec(end)?.[1];
  if (name === undefined) return undefined;
  const runtime = /^lib(?:cudart|cublas|cublasLt)\.so\.(\d+)/.exec(name)?.[1];
  if (runtime !== undefined)
    return `NVIDIA's CUDA ${runtime} run-time libraries are missing (${name}): install libcudart and libcublas of CUDA ${runtime}, or name their folder in LD_LIBRARY_PATH (docs/gpu.md)`;
  if (name.startsWith("libcuda.so")) return noDriver;
  if (name.startsWith("libvulkan.so"))
    return `the Vulkan loader is not installed (${name} is missing): install libvulkan1, and the Vulkan driver of your GPU`;
  return `${name} is missing`;
}

function otherReason({ gpu, end }: ProbeFacts): string | undefined {
  if (gpu !== "vulkan" || !/find no GPU/.test(end)) return undefined;
  return "no GPU is found by Vulkan: install the Vulkan driver of your GPU (mesa-vulkan-drivers, or NVIDIA's), and see that you may open /dev/dri";
}

function cudaReason({ driver, driverVersion, code }: ProbeFacts): string | undefined {
  if (driver === undefined) return undefined;
  if (driver === "none") return noDriver;
  const its = `NVIDIA's driver${driverVersion === undefined ? "" : ` ${driverVersion}`}`;
  const knows = `${its} is for CUDA ${cudaText(driver.cuda)}`;
  const runtime = code?.runtime;
  if (runtime !== undefined && driver.cuda > 0 && driver.cuda < 1000 * runtime)
    return `${knows}, and these libraries need one for CUDA ${runtime}.0 or newer: update the driver`;
  if (driver.devices.length === 0)
    return `${its} shows no device${driver.failure === 0 ? "" : ` (CUDA error ${driver.failure})`}`;
  if (code === undefined) return undefined;
  const unfit = driver.devices.find(({ architecture }) => !hasMachineCode(code, architecture));
  if (unfit === undefined) return undefined;
  const why = codeReason(code, unfit.architecture, driver.cuda, knows);
  return why === undefined ? undefined : `${unfit.name} is sm_${unfit.architecture}: ${why}`;
}

/** undefined: the code should have run. */
function codeReason(code: CudaCode, architecture: number, cuda: number, knows: string): string | undefined {
  const build = "build llama.cpp for this GPU and give --llama-lib (docs/gpu.md)";
  const machine = `these libraries have machine code for ${code.machine.map(nameOf).join(", ") || "no GPU"}`;
  const ptx = code.ptx.findLast((each) => each.architecture <= architecture);
  if (ptx === undefined) return `${machine} and no PTX for it: ${build}`;
  const needed = cudaOfPtx(ptx);
  if (needed === undefined || cuda >= needed) return undefined;
  return `${machine}, and for others PTX ${ptx.major}.${ptx.minor}, which needs a driver for CUDA ${cudaText(needed)} or newer; ${knows}: update the driver, or ${build}`;
}

function hasMachineCode(code: CudaCode, architecture: number): boolean {
  const generation = (of: number) => Math.floor(of / 10);
  return code.machine.some((each) =>
    each.isExact
      ? each.architecture === architecture
      : generation(each.architecture) === generation(architecture) && each.architecture <= architecture,
  );
}

function nameOf({ architecture, isExact }: CudaCode["machine"][number]): string {
  return `sm_${architecture}${isExact ? "a" : ""}`;
}

/** The first CUDA whose driver takes this PTX: 9.0 came with 13.0, 9.1 with 13.1; 8.0 with 12.0, and 12.6 brought none. */
function cudaOfPtx({ major, minor }: { readonly major: number; readonly minor: number }): number | undefined {
  if (major === 9) return 13_000 + 10 * minor;
  if (major !== 8) return undefined;
  return 12_000 + 10 * (minor < 6 ? minor : minor + 1);
}

/** 13000 is 13.0. */
function cudaText(cuda: number): string {
  return `${Math.floor(cuda / 1000)}.${Math.floor((cuda % 1000) / 10)}`;
}
