/**
 * A workload under one load after another: how a server's latency grows with what it is asked to carry, and where it ends.
 *
 * Each step is an open loop (so many requests begin per second, whether or not the server keeps up) or a closed one (so many
 * are under way at any time). A step's samples form one group, named by its load, so that tables have one row per step and
 * target, and the plot of throughput against latency one point.
 */
import { RepriseError } from "../errors.ts";
import type { WorkloadDefinition, WorkloadOptions } from "./workloads/workload-definition.ts";
import { closedLoop } from "./workloads/closed-loop.ts";
import { openLoop } from "./workloads/open-loop.ts";
import type { TextScale, Workload } from "./workloads/workload.ts";

export const sweepSummary = "a workload under one load after another; takes the options of that workload too";

/** Beside those of the workload; where both have one of a name, it is the sweep's. */
export const sweepOptions: WorkloadOptions = {
  of: { value: "NAME", help: "the workload", default: "multi-round-qa" },
  qps: { value: "LIST", help: "open loop: requests per second, such as 0.5,1,2,4", default: "none" },
  concurrency: { value: "LIST", help: "closed loop: requests at a time, such as 1,2,4,8", default: "none" },
};

export type Load =
  | { readonly kind: "qps"; readonly value: number }
  | { readonly kind: "concurrency"; readonly value: number };

/** Parses `--qps` or `--concurrency`, one of which must be given; adds to `faults` what is wrong. */
export function parseLoads(own: Readonly<Record<string, string>>, faults: string[]): Load[] {
  const { qps, concurrency } = own;
  if ((qps === undefined) === (concurrency === undefined)) {
    faults.push("sweep: give either --qps 0.5,1,2,4 or --concurrency 1,2,4,8");
    return [];
  }
  const [kind, list] = qps === undefined ? (["concurrency", concurrency ?? ""] as const) : (["qps", qps] as const);
  const values = list.split(",").map((text) => (/^\d+(\.\d+)?$/.test(text.trim()) ? Number(text) : Number.NaN));
  const good = values.every((value) => value > 0 && (kind === "qps" || Number.isInteger(value)));
  if (!good) faults.push(`--${kind}: "${list}" is not a list of ${kind === "qps" ? "" : "whole "}numbers above 0`);
  if (good && new Set(values).size < values.length) faults.push(`--${kind}: "${list}" has a load twice`);
  return good ? values.map((value) => ({ kind, value })) : [];
}

/** What a step is called in tables: its group. */
export function loadName({ kind, value }: Load): string {
  return kind === "qps" ? `${value}/s` : `${value} at a time`;
}

/**
 * The workload under this load. A workload that has a rate of its own (`--qps`) keeps its schedule at the step's rate;
 * the actors of any other arrive as a Poisson process of a fixed seed.
 *
 * @throws RepriseError BAD_CONFIG when the workload has fewer actors than are to be at work.
 */
export function underLoad(
  load: Load,
  { definition, options }: { definition: WorkloadDefinition; options: Readonly<Record<string, string>> },
  scale: TextScale & { readonly seed: number },
): Workload {
  if (load.kind === "concurrency") {
    const workload = definition.create(options, scale);
    mustHaveActors(workload, load.value);
    return regrouped(closedLoop(workload, load.value), loadName(load));
  }
  const hasRate = "qps" in definition.options;
  const workload = definition.create(hasRate ? { ...options, qps: String(load.value) } : options, scale);
  const open = hasRate ? workload : openLoop(workload, { ratePerSecond: load.value, seed: scale.seed });
  return regrouped(open, loadName(load));
}

function mustHaveActors(workload: Workload, wanted: number): void {
  let actors = 0;
  for (const _ of workload.actors()) if (++actors === wanted) return;
  throw new RepriseError(
    "BAD_CONFIG",
    `--concurrency ${wanted}: ${workload.name} has only ${actors} to be at work; ask it for more (its own options)`,
  );
}

/** The same workload with all requests in one group. */
function regrouped(workload: Workload, group: string): Workload {
  return {
    ...workload,
    *actors() {
      for (const actor of workload.actors()) {
        const { startMs, gapMs } = actor;
        yield {
          startMs,
          gapMs,
          next(previousAnswer) {
            const request = actor.next(previousAnswer);
            return request === undefined ? undefined : { ...request, group };
          },
        };
      }
    },
  };
}
