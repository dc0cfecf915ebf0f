/**
 * Figures for Prometheus: Reprise's own (`reprise_*`), and under vLLM's names those that schedulers of the llm-d and
 * KServe kind read to choose a server.
 *
 * Most are kept by the engine and the cache and copied when somebody asks; only what happens in HTTP is counted here.
 */
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import type { Engine, EngineStats, PromptReport } from "../engine.ts";
import { cacheFigures, setSum } from "./cache-metrics.ts";

/** Why a stream ended before its end. */
export type StreamCut = "client_gone" | "slow_reader" | "failed";

export interface Metrics {
  readonly contentType: string;
  /** The exposition text. */
  render(): Promise<string>;
  requestAnswered(route: string, status: number): void;
  promptRead(report: PromptReport): void;
  streamCut(reason: StreamCut): void;
}

/**
 * @param options.cacheStats its `tiers`, where it has one, gives bytes and corrupt records per tier.
 * @param options.registry for callers with figures of their own; by default a new one.
 */
export function createMetrics(options: { engine: Engine; cacheStats: () => unknown; registry?: Registry }): Metrics {
  const { engine, cacheStats } = options;
  const registry = options.registry ?? new Registry();
  const registers = [registry];
  const modelLabels = ["model_name"];
  const modelName = () => ({ model_name: engine.model?.name ?? "" });

  const counter = (name: string, help: string, labelNames: string[] = []) =>
    new Counter({ name, help, labelNames, registers });
  const gauge = (name: string, help: string, labelNames: string[] = []) =>
    new Gauge({ name, help, labelNames, registers });

  const requests = counter("reprise_requests_total", "Requests by route and HTTP status.", ["route", "status"]);
  const cuts = counter("reprise_streams_cut_total", "Streams that ended before their end.", ["reason"]);
  const ttft = new Histogram({
    name: "reprise_time_to_first_token_seconds",
    help: "From the engine's acceptance of a request to its first token.",
    buckets: ttftBuckets,
    registers,
  });
  const vllmTtft = new Histogram({
    name: "vllm:time_to_first_token_seconds",
    help: "Time to first token in seconds.",
    labelNames: modelLabels,
    buckets: ttftBuckets,
    registers,
  });

  const promptTokens = counter("reprise_prompt_tokens_total", "Tokens of all prompts.");
  const computedTokens = counter("reprise_computed_tokens_total", "Prompt tokens that went through the model.");
  const generatedTokens = counter("reprise_generated_tokens_total", "Tokens of all answers.");
  const reusedTokens = counter("reprise_reused_tokens_total", "Prompt tokens reused, by tier.", ["tier"]);
  const savedChunks = counter("reprise_saved_chunks_total", "Chunks handed to the cache.");
  const restarts = counter("reprise_engine_restarts_total", "Times the engine process was started again.");
  const up = gauge("reprise_engine_ready", "1 when the engine takes requests.");
  const running = gauge("reprise_requests_running", "Requests in the engine.");
  const waiting = gauge("reprise_requests_waiting", "Requests that wait for a place in the engine.");
  const copyCache = cacheFigures(registry);

  const vllmRunning = gauge("vllm:num_requests_running", "Requests in the engine.", modelLabels);
  const vllmWaiting = gauge("vllm:num_requests_waiting", "Requests that wait for the engine.", modelLabels);
  const vllmUsage = gauge("vllm:kv_cache_usage_perc", "Share of the engine's places in use; 1 = all.", modelLabels);
  const vllmPrompt = counter("vllm:prompt_tokens_total", "Tokens of all prompts.", modelLabels);
  const vllmGeneration = counter("vllm:generation_tokens_total", "Tokens of all answers.", modelLabels);
  // vLLM's Python client exposes these with `_total`; its documentation and some schedulers name them without.
  const vllmQueries = ["vllm:prefix_cache_queries", "vllm:prefix_cache_queries_total"].map((name) =>
    counter(name, "Prompt tokens looked up.", modelLabels),
  );
  const vllmHits = ["vllm:prefix_cache_hits", "vllm:prefix_cache_hits_total"].map((name) =>
    counter(name, "Prompt tokens reused.", modelLabels),
  );

  const copyEngine = (stats: EngineStats) => {
    const labels = modelName();
    const reused = Object.values(stats.reusedTokens).reduce((sum, tokens) => sum + tokens, 0);
    up.set(stats.state === "ready" ? 1 : 0);
    running.set(stats.runningRequests);
    waiting.set(stats.waitingRequests);
    setSum(promptTokens, stats.promptTokens);
    setSum(computedTokens, stats.computedTokens);
    setSum(generatedTokens, stats.generatedTokens);
    setSum(savedChunks, stats.savedChunks);
    setSum(restarts, stats.restarts);
    reusedTokens.reset();
    for (const tier of tiers) reusedTokens.inc({ tier }, stats.reusedTokens[tier] ?? 0);
    vllmRunning.set(labels, stats.runningRequests);
    vllmWaiting.set(labels, stats.waitingRequests);
    // Not the pool's fill: a warm cache is always full, and a scheduler would take that for a busy server.
    vllmUsage.set(labels, Math.min(1, stats.runningRequests / Math.max(1, stats.slots)));
    setSum(vllmPrompt, stats.promptTokens, labels);
    setSum(vllmGeneration, stats.generatedTokens, labels);
    for (const queries of vllmQueries) setSum(queries, stats.promptTokens, labels);
    for (const hits of vllmHits) setSum(hits, reused, labels);
  };
  return {
    contentType: registry.contentType,
    async render() {
      copyEngine(engine.stats());
      copyCache(cacheStats());
      return registry.metrics();
    },
    requestAnswered: (route, status) => requests.inc({ route, status: String(status) }),
    promptRead(report) {
      ttft.observe(report.ttftMs / 1000);
      vllmTtft.observe(modelName(), report.ttftMs / 1000);
    },
    streamCut: (reason) => cuts.inc({ reason }),
  };
}

/** From a resident hit on a small model (1 ms) to a cold book on a CPU (ten minutes). */
const ttftBuckets = [
  0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 320, 640,
];

const tiers = ["resident", "memory", "disk"] as const;
