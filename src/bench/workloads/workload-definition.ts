/** A workload that can be asked for by name: what it is, what can be set, and how it is made. */
import type { TextScale, Workload } from "./workload.ts";

export interface WorkloadOption {
  /** What stands for the value in the help, such as "N" or "TOKENS". */
  readonly value: string;
  readonly help: string;
  /** Taken when the option is not given. */
  readonly default: string;
}

export type WorkloadOptions = Readonly<Record<string, WorkloadOption>>;

export interface WorkloadDefinition {
  /** One line for the help. */
  readonly summary: string;
  /** By flag name, without the dashes. */
  readonly options: WorkloadOptions;
  /**
   * The same options, scale and seed give the same requests at the same times.
   *
   * @param options what was given, as texts; the rest takes its default. Names that are not in `options` are ignored.
   * @throws RepriseError BAD_CONFIG listing every fault, one a line.
   */
  create(options: Readonly<Record<string, string>>, scale: TextScale & { readonly seed: number }): Workload;
}
