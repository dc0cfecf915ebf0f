/**
 * Copies between this process's memory and a GPU's, by NVIDIA's driver: of many rows in one call, at the link's full rate where the
 * memory is registered, and while the GPU computes something else.
 *
 * They go through a stream of their own, so whoever wants what the GPU computes waits for that first. The device is the first one, in the
 * context that CUDA's run-time library, and so ggml, uses. https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__MEM.html
 */
import koffi from "koffi";
import type { Pointer } from "./posix.ts";

/** Rows at a constant distance from each other. */
export interface Rows {
  readonly at: Pointer;
  /** From one row to the next, in bytes. */
  readonly stride: number;
}

/** How many rows of how many bytes. */
export interface RowCount {
  readonly rows: number;
  readonly bytes: number;
}

/** Values of `CUmemorytype`. */
const onHost = 1n;
const onDevice = 2n;
/** `CU_STREAM_NON_BLOCKING`: it does not wait for the default stream. */
const nonBlocking = 1;
/** `CU_EVENT_DISABLE_TIMING`. */
const noTiming = 2;
/** `CU_MEMHOSTREGISTER_PORTABLE`: for every context. */
const portable = 1;
const notReady = 600;
/** A copy of rows further apart than this is refused (`CU_DEVICE_ATTRIBUTE_MAX_PITCH` of every device there is). */
export const largestStride = 2 ** 31 - 1;

type Call = (...values: unknown[]) => number;
type Calls = Record<"copy" | "wait" | "register" | "unregister" | "event" | "record" | "query" | "destroy", Call>;

/** What had been begun when it was made. */
export type Mark = Pointer;

export class CudaMemory {
  readonly #calls: Calls;
  readonly #stream: Pointer;
  /** `CUDA_MEMCPY2D`: 16 words, of which some are halves. */
  readonly #plan = new BigUint64Array(16);

  private constructor(calls: Calls, stream: Pointer) {
    this.#calls = calls;
    this.#stream = stream;
  }

  /** @returns undefined where there is no driver, or it refuses */
  static open(library = "libcuda.so.1"): CudaMemory | undefined {
    try {
      const driver = koffi.load(library);
      const call = (declaration: string) => driver.func(declaration) as Call;
      const pointers: [Pointer[], Pointer[]] = [[0n], [0n]];
      const device = [0];
      const steps = [
        call("int cuInit(uint)")(0),
        call("int cuDeviceGet(_Out_ int*, int)")(device, 0),
        call("int cuDevicePrimaryCtxRetain(_Out_ void**, int)")(pointers[0], device[0]),
        call("int cuCtxSetCurrent(void*)")(pointers[0][0]),
        call("int cuStreamCreate(_Out_ void**, uint)")(pointers[1], nonBlocking),
      ];
      if (steps.some((result) => result !== 0)) return undefined;
      const calls = {
        copy: call("int cuMemcpy2DAsync_v2(void*, void*)"),
        wait: call("int cuStreamSynchronize(void*)"),
        event: call("int cuEventCreate(_Out_ void**, uint)"),
        record: call("int cuEventRecord(void*, void*)"),
        query: call("int cuEventQuery(void*)"),
        destroy: call("int cuEventDestroy_v2(void*)"),
        register: call("int cuMemHostRegister_v2(void*, size_t, uint)"),
        unregister: call("int cuMemHostUnregister(void*)"),
      };
      return new CudaMemory(calls, pointers[1][0]!);
    } catch {
      return undefined;
    }
  }

  /**
   * Lets the device read and write memory itself, which keeps its pages where they are: 5 ms for 64 MiB of them on an H200's host, and
   * five times as much where they have to be made first.
   *
   * @returns whether it may now
   */
  register(at: Pointer, bytes: number): boolean {
    return this.#calls.register(at, bytes, portable) === 0;
  }

  unregister(at: Pointer): void {
    this.#calls.unregister(at);
  }

  /** Begins a copy to the device. What is copied must stay as it is until a {@link mark} of it {@link isPast}, or {@link wait}. @throws Error */
  toDevice(from: Rows, to: Rows, count: RowCount): void {
    this.#copy([onHost, from], [onDevice, to], count);
  }

  /** Begins a copy from the device. @throws Error */
  toHost(from: Rows, to: Rows, count: RowCount): void {
    this.#copy([onDevice, from], [onHost, to], count);
  }

  /** Begins a copy within the device. @throws Error */
  within(from: Rows, to: Rows, count: RowCount): void {
    this.#copy([onDevice, from], [onDevice, to], count);
  }

  /** Marks what has been begun until now; asked for until {@link isPast}. @throws Error */
  mark(): Mark {
    const event: Pointer[] = [0n];
    check(this.#calls.event(event, noTiming), "cuEventCreate");
    check(this.#calls.record(event[0], this.#stream), "cuEventRecord");
    return event[0]!;
  }

  /** Has all of that ended? Then the mark is no more. @throws Error when something went wrong on the device */
  isPast(mark: Mark): boolean {
    const result = this.#calls.query(mark);
    if (result === notReady) return false;
    this.#calls.destroy(mark);
    check(result, "cuEventQuery");
    return true;
  }

  /** Waits until all that was begun has ended. @throws Error when something went wrong on the device */
  wait(): void {
    check(this.#calls.wait(this.#stream), "cuStreamSynchronize");
  }

  #copy([fromKind, from]: [bigint, Rows], [toKind, to]: [bigint, Rows], { rows, bytes }: RowCount): void {
    const place = (word: number, kind: bigint, { at, stride }: Rows) => {
      this.#plan[word + 2] = kind;
      this.#plan[word + 3] = kind === onHost ? at : 0n;
      this.#plan[word + 4] = kind === onHost ? 0n : at;
      this.#plan[word + 6] = BigInt(rows === 1 ? bytes : stride);
    };
    place(0, fromKind, from); // first x, y, kind, host, device, array, pitch
    place(7, toKind, to);
    this.#plan[14] = BigInt(bytes);
    this.#plan[15] = BigInt(rows);
    check(this.#calls.copy(this.#plan, this.#stream), "cuMemcpy2DAsync");
  }
}

function check(result: number, call: string): void {
  if (result !== 0) throw new Error(`${call} answered ${result}`);
}
