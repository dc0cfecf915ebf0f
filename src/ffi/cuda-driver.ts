/**
 * NVIDIA's driver, asked directly: which devices it has, and which code they take. For messages only; nothing is computed.
 *
 * Calls are synchronous and may take seconds on a machine whose GPUs sleep. Only a process whose death is provided for may ask.
 */
import koffi from "koffi";

export interface CudaDriver {
  /** The newest CUDA that the driver knows, as 1000 × major + 10 × minor. */
  readonly cuda: number;
  /** CUresult of the first call that failed; 0 when none did. */
  readonly failure: number;
  readonly devices: readonly CudaDevice[];
}

export interface CudaDevice {
  readonly name: string;
  /** Compute capability as 10 × major + minor: 90 is sm_90. */
  readonly architecture: number;
}

/** Values of `CUdevice_attribute`. */
const capabilityMajor = 75;
const capabilityMinor = 76;
const nameBytes = 256;

/** @returns undefined where no driver is installed. */
export function askCudaDriver(): CudaDriver | undefined {
  let driver;
  try {
    driver = koffi.load("libcuda.so.1");
  } catch {
    return undefined;
  }
  type Call = (...values: unknown[]) => number;
  const init = driver.func("int cuInit(uint)") as Call;
  const version = driver.func("int cuDriverGetVersion(_Out_ int*)") as Call;
  const count = driver.func("int cuDeviceGetCount(_Out_ int*)") as Call;
  const get = driver.func("int cuDeviceGet(_Out_ int*, int)") as Call;
  const name = driver.func("int cuDeviceGetName(void*, int, int)") as Call;
  const attribute = driver.func("int cuDeviceGetAttribute(_Out_ int*, int, int)") as Call;

  let failure = 0;
  const numberFrom = (call: Call, ...rest: number[]): number => {
    const into = [0];
    failure ||= call(into, ...rest);
    return failure === 0 ? into[0]! : 0;
  };
  const cuda = numberFrom(version); // this one answers before cuInit
  failure ||= init(0);
  const devices = Array.from({ length: numberFrom(count) }, (_, index): CudaDevice => {
    const device = numberFrom(get, index);
    const text = Buffer.alloc(nameBytes);
    failure ||= name(text, nameBytes, device);
    const [major, minor] = [
      numberFrom(attribute, capabilityMajor, device),
      numberFrom(attribute, capabilityMinor, device),
    ];
    return { name: text.toString("utf8", 0, Math.max(0, text.indexOf(0))), architecture: 10 * major + minor };
  });
  return { cuda, failure, devices };
}
