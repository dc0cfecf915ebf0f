/** The workloads by name: what `reprise bench NAME` can run. */
import { smoke } from "./smoke.ts";
import type { TextScale, Workload } from "./workload.ts";

export interface WorkloadDefinition {
  /** One sentence for the list. */
  readonly summary: string;
  /** The workload's own options, by flag name; their texts are `create`'s first argument, defaults filled in. */
  readonly options: Readonly<
    Record<string, { readonly value: string; readonly help: string; readonly default: string }>
  >;
  /** Equal arguments make equal workloads. @throws RepriseError BAD_CONFIG naming every option that cannot be used. */
  create(options: Readonly<Record<string, string>>, scale: TextScale & { readonly seed: number }): Workload;
}

export const workloads: Readonly<Record<string, WorkloadDefinition>> = { smoke };
