/**
 * What the server and a probe say to each other, over Node's child-process channel. The probe may end at any point.
 *
 *     server ──start──► probe ──at opening ─ devices ─ at computing ─ usable │ refused
 */
import type { CudaDriver } from "../../ffi/cuda-driver.ts";
import type { Device } from "../../ffi/ggml-devices.ts";
import type { Refused } from "./server-channel.ts";

export interface ProbeStart {
  readonly llamaLib: string | undefined;
  /** Which of the places for libraries is tried. */
  readonly build: string;
  /** A small model to compute with. */
  readonly modelPath: string;
}

/** What the probe does; it tells before it begins with it. */
export type ProbeStage = "asking the driver" | "opening the libraries" | "computing";

export type ToProbe = { readonly kind: "start"; readonly options: ProbeStart } | { readonly kind: "ping" };

export type FromProbe =
  | { readonly kind: "at"; readonly stage: ProbeStage }
  /** NVIDIA's driver; undefined: there is none. */
  | { readonly kind: "driver"; readonly driver: CudaDriver | undefined }
  | { readonly kind: "devices"; readonly devices: readonly Device[] }
  /** The devices have computed what the processor computes, too. */
  | { readonly kind: "usable" }
  | Refused;
