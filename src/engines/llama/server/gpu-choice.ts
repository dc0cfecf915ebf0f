/**
 * On what an engine computes, decided once before its process is first started.
 *
 *     off ─────────────────────────────────────────────────────────► the processor
 *     auto, on ──► each GPU's libraries that are there, tried ──usable──► that GPU
 *                    └─ none ── auto ──► the processor, and one line that says why
 *                             └ on ────► an error that says why
 */
import { RepriseError } from "../../../errors.ts";
import { formatBytes } from "../../../bytes.ts";
import type { Device } from "../../../ffi/ggml-devices.ts";
import type { Log } from "../../../log.ts";
import type { EngineSettings } from "../engine-settings.ts";
import { libraryPlaces } from "../model/library-places.ts";
import { probeGpu } from "./gpu-probe.ts";
import type { ProbeOptions } from "./gpu-probe.ts";

export interface GpuChoiceOptions extends Pick<ProbeOptions, "signal" | "program" | "limits"> {
  readonly settings: EngineSettings;
  readonly log: Log;
}

/**
 * The settings with what was found to work.
 *
 * @throws RepriseError LIBRARY_UNSUPPORTED when no GPU can be used and one must be, or there are no libraries at all;
 *   BAD_CONFIG when the folder of libraries cannot be used; the signal's reason
 */
export async function chooseGpu(options: GpuChoiceOptions): Promise<EngineSettings> {
  const { settings, signal, log, program, limits } = options;
  const { gpu, llamaLib } = settings;
  const reasons: string[] = [];
  for (const place of libraryPlaces({ gpu, folder: llamaLib })) {
    if (place.gpu === undefined) break; // those for the processor come last
    const result = await probeGpu({ place: { ...place, gpu: place.gpu }, llamaLib, signal, log, program, limits });
    if (result.isUsable) {
      const notBy = reasons.length === 0 ? "" : `; not by ${reasons.join("; ")}`;
      log.info(`computing on ${result.devices.map(described).join(" and ")}, by ${place.title}${notBy}`);
      return { ...settings, gpuBuild: place.build };
    }
    reasons.push(`${place.title}: ${result.reason}`);
  }
  if (reasons.length === 0) return settings;
  const why = reasons.join("; ");
  if (gpu === "on") throw new RepriseError("LIBRARY_UNSUPPORTED", `--gpu on: no GPU can be used. ${why}`);
  log.warn(notUsed(why));
  return { ...settings, gpu: "off" };
}

/** The one line that says why a GPU's libraries are there and not used. */
export function notUsed(why: string): string {
  return `the GPU is not used, starting on the CPU (--gpu off does so at once): ${why}`;
}

function described({ name, description, totalBytes }: Device): string {
  return `${name} (${description}, ${formatBytes(totalBytes)})`;
}
