/** Every workload that `reprise bench` knows, by name. */
import { smoke } from "./workloads/smoke.ts";
import type { WorkloadDefinition } from "./workloads/workload-definition.ts";
import { agent } from "./workloads/agent.ts";
import { coldWarm } from "./workloads/cold-warm.ts";
import { longDocQa } from "./workloads/long-doc-qa.ts";
import { multiRoundQa } from "./workloads/multi-round-qa.ts";
import { rag } from "./workloads/rag.ts";
import { trace } from "./workloads/trace.ts";

export const workloads: Readonly<Record<string, WorkloadDefinition>> = {
  smoke,
  "cold-warm": coldWarm,
  "multi-round-qa": multiRoundQa,
  "long-doc-qa": longDocQa,
  rag,
  agent,
  trace,
};
