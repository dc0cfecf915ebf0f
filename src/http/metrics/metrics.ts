/**
 * Prometheus reads its figures here. Most are kept by the engine and the cache and copied when somebody asks; only what happens in HTTP
 * is counted here.
 */
import { Counter, Histogram, Registry } from "prom-client";
import type { Engine, PromptReport } from "../../engine.ts";
import { figureSource, type FigureSource } from "../../figures.ts";
import type { Tenant } from "../access.ts";
import { showFigures } from "./cache-metrics.ts";
import { engineFigures, schedulerFigures } from "./engine-figures.ts";
import { FiguresByTenant, type TenantFigures } from "./tenant-figures.ts";

/** Why a stream ended before its end. */
export type StreamCut = "client_gone" | "slow_reader" | "failed" | "closing";

export interface Metrics {
  readonly contentType: string;
  /** The exposition text. */
  render(): Promise<string>;
  requestAnswered(route: string, status: number): void;
  promptRead(report: PromptReport): void;
  streamCut(reason: StreamCut): void;
  /** The same figures, told of a request of this tenant: its own are kept as well. */
  ofTenant(tenant: Tenant): Metrics;
  /** What the tenant's own requests came to. */
  tenantFigures(tenant: NonNullable<Tenant>): TenantFigures;
}

/**
 * @param options.cacheFigures what the cache and its tiers have to show.
 * @param options.registry for callers with figures of their own; by default a new one.
 */
export function createMetrics(options: {
  engine: Engine;
  cacheFigures: readonly FigureSource[];
  registry?: Registry;
}): Metrics {
  const { engine, cacheFigures } = options;
  const registry = options.registry ?? new Registry();
  const registers = [registry];
  const modelName = () => engine.model?.name ?? "";

  const requests = new Counter({
    name: "reprise_requests_total",
    help: "Requests by route and HTTP status.",
    labelNames: ["route", "status"],
    registers,
  });
  const cuts = new Counter({
    name: "reprise_streams_cut_total",
    help: "Streams that ended before their end.",
    labelNames: ["reason"],
    registers,
  });
  const ttft = new Histogram({
    name: "reprise_time_to_first_token_seconds",
    help: "From the engine's acceptance of a request to its first token.",
    buckets: ttftBuckets,
    registers,
  });
  const vllmTtft = new Histogram({
    name: "vllm:time_to_first_token_seconds",
    help: "Time to first token in seconds.",
    labelNames: ["model_name"],
    buckets: ttftBuckets,
    registers,
  });

  const copyFigures = showFigures(registry, [
    figureSource(engineFigures, () => engine.stats()),
    figureSource(schedulerFigures, () => ({ model: modelName(), stats: engine.stats() })),
    ...cacheFigures,
  ]);
  const byTenant = new FiguresByTenant();
  const metrics: Metrics = {
    contentType: registry.contentType,
    async render() {
      copyFigures();
      return registry.metrics();
    },
    requestAnswered: (route, status) => requests.inc({ route, status: String(status) }),
    promptRead(report) {
      ttft.observe(report.ttftMs / 1000);
      vllmTtft.observe({ model_name: modelName() }, report.ttftMs / 1000);
    },
    streamCut: (reason) => cuts.inc({ reason }),
    ofTenant: (tenant) => ({
      ...metrics,
      promptRead(report) {
        metrics.promptRead(report);
        byTenant.promptRead(tenant, report);
      },
    }),
    tenantFigures: (tenant) => byTenant.of(tenant),
  };
  return metrics;
}

/** From a resident hit on a small model (1 ms) to a cold book on a CPU (ten minutes). */
const ttftBuckets = [
  0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 320, 640,
];
