/**
 * Tries a GPU's libraries in a process of their own, before the engine is trusted to them.
 *
 * Whatever becomes of that process is an answer: it says that they can be used, or why not; it dies, hangs or says nothing that
 * can be understood, and then they cannot be used.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { CudaDriver } from "../../../ffi/cuda-driver.ts";
import type { Device } from "../../../ffi/ggml-devices.ts";
import type { Log } from "../../../log.ts";
import { shippedModelPath } from "../../../models/shipped-model.ts";
import { Child } from "./child.ts";
import { cudaCodeIn } from "./cuda-code.ts";
import { Deferred } from "./deferred.ts";
import { gpuReason } from "./gpu-reason.ts";
import type { LibraryPlace } from "../model/library-places.ts";
import type { FromProbe, ProbeStart, ToProbe } from "../probe-messages.ts";
import { Watchdog } from "./watchdog.ts";
import type { WatchLimits } from "./watchdog.ts";

export interface ProbeOptions {
  readonly place: LibraryPlace & { readonly gpu: string };
  /** The folder that the place is of, as it was given. */
  readonly llamaLib: string | undefined;
  /** Ends the probe. */
  readonly signal: AbortSignal;
  readonly log: Log;
  /** The probe's program: ours unless given. */
  readonly program?: string | undefined;
  /** {@link probeLimits} unless given. */
  readonly limits?: WatchLimits | undefined;
}

export type ProbeResult =
  | { readonly isUsable: true; readonly devices: readonly Device[] }
  | { readonly isUsable: false; readonly reason: string };

/** Drivers wake their devices for many seconds, and compile code for them for minutes, with the processor at work. */
export const probeLimits: WatchLimits = { silentMs: 30_000, hungMs: 30_000, busyMs: 300_000, tickMs: 500 };

/** @throws the signal's reason, once the process is gone */
export async function probeGpu(options: ProbeOptions): Promise<ProbeResult> {
  const { place, llamaLib, signal, log, program = "probe/probe-process.js", limits = probeLimits } = options;
  let stage = "starting";
  let driver: CudaDriver | "none" | undefined;
  let devices: readonly Device[] | undefined;
  let refusal: string | undefined;
  let hung: string | undefined;
  let isUsable = false;

  const gone = new Deferred<string>();
  const child: Child<ToProbe, unknown> = new Child({
    program,
    inherits: [],
    log,
    onMessage: (message) => hear(message),
    onExit: (how) => gone.resolve(how),
  });
  const watchdog = new Watchdog({
    limits,
    pid: child.pid,
    ping: () => child.send({ kind: "ping" }),
    onHung: (how) => {
      hung = how;
      void child.kill();
    },
  });
  const hear = (message: unknown): void => {
    watchdog.heard();
    if (!isFromProbe(message)) return;
    if (message.kind === "at") stage = message.stage;
    else if (message.kind === "driver") driver = message.driver ?? "none";
    else if (message.kind === "devices") ({ devices } = message);
    else if (message.kind === "refused") refusal = message.message;
    else {
      isUsable = true;
      void child.kill(); // it has nothing else to say, and drivers have ways to hang at an orderly end
    }
  };
  const leave = () => void child.kill();
  signal.addEventListener("abort", leave, { once: true });
  if (signal.aborted) leave();
  const start: ProbeStart = { llamaLib, build: place.build, modelPath: shippedModelPath() };
  child.send({ kind: "start", options: start });

  const how = await gone.promise;
  watchdog.stop();
  signal.removeEventListener("abort", leave);
  signal.throwIfAborted();
  if (isUsable && devices !== undefined) return { isUsable, devices };
  const where = devices === undefined ? "" : ` on ${devices.map(({ description }) => description).join(" and ")}`;
  const end = refusal ?? `a trial${where} failed while ${stage}: ${hung ?? how}`;
  const reason = gpuReason({
    gpu: place.gpu,
    end,
    driver,
    driverVersion: driverVersion(),
    code: place.gpu === "cuda" ? cudaCodeIn(join(place.directory, "libggml-cuda.so")) : undefined,
  });
  return { isUsable: false, reason };
}

/** What comes over the channel may be anything: native code that went wild has our descriptors. */
function isFromProbe(message: unknown): message is FromProbe {
  switch (has(message, "kind") && message["kind"]) {
    case "usable":
      return true;
    case "at":
      return has(message, "stage", "string");
    case "driver":
      return has(message, "driver") && (message["driver"] === undefined || isDriver(message["driver"]));
    case "devices":
      return has(message, "devices") && isListOf(message["devices"], isDevice);
    case "refused":
      return has(message, "message", "string");
    default:
      return false;
  }
}

function isDriver(value: unknown): value is CudaDriver {
  if (!has(value, "cuda", "number") || !has(value, "failure", "number") || !has(value, "devices")) return false;
  return isListOf(value["devices"], (each) => has(each, "name", "string") && has(each, "architecture", "number"));
}

function isDevice(value: unknown): boolean {
  return has(value, "name", "string") && has(value, "description", "string") && has(value, "totalBytes", "number");
}

function isListOf(value: unknown, isOne: (each: unknown) => boolean): boolean {
  return Array.isArray(value) && value.every(isOne);
}

function has(value: unknown, name: string, type?: "string" | "number"): value is Record<string, unknown> {
  if (typeof value !== "object" || value === null || !(name in value)) return false;
  return type === undefined || typeof (value as Record<string, unknown>)[name] === type; // it is an object, by the line above
}

/** The version that people know the driver by. */
function driverVersion(): string | undefined {
  try {
    const version = readFileSync("/sys/module/nvidia/version", "latin1").trim();
    return /^[\d.]+$/.test(version) ? version : undefined;
  } catch {
    return undefined; // no such driver here
  }
}
