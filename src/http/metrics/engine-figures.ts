/**
 * What `/metrics` shows of the engine: Reprise's own figures, and under vLLM's names those that schedulers of the llm-d and
 * KServe kind read to choose a server.
 */
import { tierNames } from "../../tier.ts";
import type { EngineStats } from "../../engine.ts";
import type { Figure } from "../../figures.ts";

export const engineFigures: readonly Figure<EngineStats>[] = [
  {
    name: "reprise_prompt_tokens_total",
    kind: "counter",
    help: "Tokens of all prompts.",
    read: ({ promptTokens }) => promptTokens,
  },
  {
    name: "reprise_computed_tokens_total",
    kind: "counter",
    help: "Prompt tokens that went through the model.",
    read: ({ computedTokens }) => computedTokens,
  },
  {
    name: "reprise_generated_tokens_total",
    kind: "counter",
    help: "Tokens of all answers.",
    read: ({ generatedTokens }) => generatedTokens,
  },
  {
    name: "reprise_drafted_tokens_total",
    kind: "counter",
    help: "Tokens computed as what may come next in an answer.",
    read: ({ draftedTokens }) => draftedTokens,
  },
  {
    name: "reprise_accepted_tokens_total",
    kind: "counter",
    help: "Drafted tokens that came.",
    read: ({ acceptedTokens }) => acceptedTokens,
  },
  {
    name: "reprise_reused_tokens_total",
    kind: "counter",
    help: "Prompt tokens reused, by tier.",
    label: "tier",
    read: ({ reusedTokens }) => tierNames.map((tier) => [tier, reusedTokens[tier] ?? 0]),
  },
  {
    name: "reprise_saved_chunks_total",
    kind: "counter",
    help: "Chunks handed to the cache.",
    read: ({ savedChunks }) => savedChunks,
  },
  {
    name: "reprise_engine_restarts_total",
    kind: "counter",
    help: "Times the engine process was started again.",
    read: ({ restarts }) => restarts,
  },
  {
    name: "reprise_engine_ready",
    kind: "gauge",
    help: "1 when the engine takes requests.",
    read: ({ state }) => (state === "ready" ? 1 : 0),
  },
  {
    name: "reprise_requests_running",
    kind: "gauge",
    help: "Requests in the engine.",
    read: ({ runningRequests }) => runningRequests,
  },
  {
    name: "reprise_requests_waiting",
    kind: "gauge",
    help: "Requests that wait for a sequence.",
    read: ({ waitingRequests }) => waitingRequests,
  },
];

/** An engine's figures, and its model's name. */
export interface ServedStats {
  readonly model: string;
  readonly stats: EngineStats;
}

export const schedulerFigures: readonly Figure<ServedStats>[] = [
  ofModel("num_requests_running", "gauge", "Requests in the engine.", ({ runningRequests }) => runningRequests),
  ofModel("num_requests_waiting", "gauge", "Requests that wait for a sequence.", (stats) => stats.waitingRequests),
  // Not the pool's fill: a warm cache is always full, and a scheduler would take that for a busy server.
  ofModel("kv_cache_usage_perc", "gauge", "Share of the engine's sequences in use; 1 = all.", (stats) =>
    Math.min(1, stats.runningRequests / Math.max(1, stats.sequences)),
  ),
  ofModel("prompt_tokens_total", "counter", "Tokens of all prompts.", ({ promptTokens }) => promptTokens),
  ofModel("generation_tokens_total", "counter", "Tokens of all answers.", ({ generatedTokens }) => generatedTokens),
  // vLLM's Python client exposes these with `_total`; its documentation and some schedulers name them without.
  ...["prefix_cache_queries", "prefix_cache_queries_total"].map((name) =>
    ofModel(name, "counter", "Prompt tokens looked up.", ({ promptTokens }) => promptTokens),
  ),
  ...["prefix_cache_hits", "prefix_cache_hits_total"].map((name) =>
    ofModel(name, "counter", "Prompt tokens reused.", ({ reusedTokens }) =>
      Object.values(reusedTokens).reduce((sum, tokens) => sum + tokens, 0),
    ),
  ),
];

function ofModel(
  name: string,
  kind: "counter" | "gauge",
  help: string,
  read: (stats: EngineStats) => number,
): Figure<ServedStats> {
  return {
    name: `vllm:${name}`,
    kind,
    help,
    label: "model_name",
    read: ({ model, stats }) => [[model, read(stats)]],
  };
}
